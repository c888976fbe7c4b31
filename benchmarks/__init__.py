"""What the window engine costs, beside its peers; see the README here."""
