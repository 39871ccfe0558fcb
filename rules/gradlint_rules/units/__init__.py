"""Rules of the family `units`."""
