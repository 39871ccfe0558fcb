"""The first-party rule pack, written against the public API of gradlint only."""
