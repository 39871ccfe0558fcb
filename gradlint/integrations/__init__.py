"""gradlint inside other tools: pytest, Lightning, GitHub Actions. Each module imports its tool, and nothing imports them."""
