"""`json-lines`: one JSON object a line, for streams and `grep`: findings, failures, and the summary last."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from gradlint.report.json import SCHEMA, document
from gradlint.report.view import View
from gradlint.result import Report


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write the lines; each names the schema, its type and, for a finding or a failure, the target."""
    for line in _lines(document(report)):
        stream.write(json.dumps({"schema": SCHEMA, **line}, allow_nan=False) + "\n")


def _lines(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for failure in data["errors"]:
        yield {"type": "failure", "target": None, **failure}
    for target in data["targets"]:
        for finding in target["findings"]:
            yield {"type": "finding", "target": target["target"], **finding}
        if target["error"]:
            yield {"type": "failure", "target": target["target"], **target["error"]}
    yield {"type": "summary", **data["summary"]}
