"""gradlint inside other tools: pytest, Lightning, GitHub Actions. Each module imports its tool, none is imported."""
