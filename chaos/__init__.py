"""Faults under load, and whether anything accepted was lost or counted twice: `python -m chaos`."""
