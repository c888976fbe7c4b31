"""What medianserve is measured beside: services that somebody might write instead of it."""
