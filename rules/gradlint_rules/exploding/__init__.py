"""Rules of the family `exploding`."""
