"""The JSON schema of the configuration, from the same table that reads it: for editors and validate-pyproject."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from gradlint import registry
from gradlint.config_keys import KEYS, MODEL_KEYS, Key
from gradlint.rule import Rule

FILE = "config.schema.json"
TYPES: Mapping[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


def text() -> str:
    """The schema as the committed file holds it; `pytest tests/test_config_schema.py --update` writes it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def tool_schema(name: str) -> dict[str, Any]:
    """The schema of `[tool.gradlint]`, as the entry point group `validate_pyproject.tool_schema` asks for it."""
    content: dict[str, Any] = json.loads(resources.files("gradlint").joinpath(FILE).read_text(encoding="utf-8"))
    return content


def schema() -> dict[str, Any]:
    """The schema of our table; rules with options are listed with the type and the default of each."""
    properties = {name: _property(key) for name, key in KEYS.items()}
    properties["model"] = {"type": "array", "items": _model(), "description": KEYS["model"].description}
    properties["rules"] = {**_rules(), "description": KEYS["rules"].description}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://json.schemastore.org/gradlint.json",
        "title": "gradlint's configuration: [tool.gradlint] of pyproject.toml, or gradlint.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _property(key: Key) -> dict[str, Any]:
    return {**key.kind.schema, "description": key.description}


def _model() -> dict[str, Any]:
    properties = {name: _property(key) for name, key in MODEL_KEYS.items()}
    return {"type": "object", "additionalProperties": False, "required": ["target"], "properties": properties}


def _rules() -> dict[str, Any]:
    found = {rule.name: _options(rule) for rule in registry.rules() if rule.options}
    return {"type": "object", "additionalProperties": {"type": "object"}, "properties": found}


def _options(rule: Rule) -> dict[str, Any]:
    properties = {name: {"type": TYPES[type(value)], "default": value} for name, value in rule.options.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}
