"""Rules of the family `vanishing`."""
