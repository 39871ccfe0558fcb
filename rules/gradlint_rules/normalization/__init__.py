"""Rules of the family `normalization`."""
