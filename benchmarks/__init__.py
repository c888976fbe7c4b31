"""What the service and its window engine cost, beside their peers; see the README here."""
