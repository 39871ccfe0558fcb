"""gradlint inside other tools: pytest, Lightning, GitHub Actions, editors. Each imports its tool, none is imported."""
