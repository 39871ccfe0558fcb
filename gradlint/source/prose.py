"""Input shapes in the words of docstrings and comments: `(N, 3, 32, 32)`, `x: [batch, seq_len, 16]`, `28x28 images`."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from gradlint.source.names import Function, is_function, parameters
from gradlint.source.shapes import Dim, Origin, ShapeHint
from gradlint.source.text import Source

_DIM = r"(?:[A-Za-z_][\w ]*|\d+)"
_SHAPE = re.compile(rf"[(\[]\s*({_DIM}(?:\s*[,x×*]\s*{_DIM})+)\s*,?\s*[)\]]")
_SIDES = re.compile(r"(?<![\w.])(\d{2,3})\s*[x×]\s*(\d{2,3})(?![\w.])")
_BATCH = re.compile(r"n|b|bs|bsz|batch\w*|num_samples|samples|m", re.IGNORECASE)
_RESULT = re.compile(r"->|→|\breturns?\b|\boutputs?\b|\byields?\b|:returns?:", re.IGNORECASE)


def prose_shapes(source: Source, owner: ast.ClassDef | Function) -> list[ShapeHint]:
    """Shapes that the docstrings of a class, its forward or a factory give for inputs, then those of comments."""
    forward = _forward(owner)
    names = [p.arg for p in parameters(forward)] if forward else []
    docstrings = [text for node in (owner, forward) if node is not None and (text := ast.get_docstring(node))]
    found = [h for text in docstrings for h in _in_text(text, names, owner.lineno, "docstring")]
    found += [h for line, text in _comments(source, forward) for h in _in_text(text, names, line, "comment")]
    found += [h for text in docstrings for h in _sides(text, owner.lineno)]
    return list(dict.fromkeys(found))


def docstring(owner: ast.ClassDef | Function) -> str:
    """The docstrings of a class and of its forward."""
    forward = _forward(owner)
    texts = (
        [ast.get_docstring(node) for node in (owner, forward) if node is not None and node is not owner]
        if forward
        else []
    )
    return "\n".join(t for t in (ast.get_docstring(owner), *texts) if t)


def _forward(owner: ast.ClassDef | Function) -> Function | None:
    if is_function(owner):
        return None
    return next((n for n in owner.body if is_function(n) and n.name == "forward"), None)


def _in_text(text: str, names: list[str], line: int, origin: Origin) -> Iterator[ShapeHint]:
    for row in text.splitlines():
        before_result = _RESULT.split(row, maxsplit=1)[0]
        for match in _SHAPE.finditer(before_result):
            shape = tuple(_dim(part) for part in re.split(r"\s*[,x×*]\s*", match[1]) if part.strip())
            lead = before_result[: match.start()]
            name = _named(lead, names)
            said = name or re.search(r"\b(shape|size|inputs?|takes|expects)\b", lead, re.IGNORECASE)
            if _usable(shape) and (said or _is_batch(shape[0])) and not _other(lead, names):
                yield ShapeHint(shape, name=name, origin=origin, line=line)


def _sides(text: str, line: int) -> Iterator[ShapeHint]:
    """Image sides: `28x28 digits` may be grey or colour, with or without a channel axis."""
    for match in _SIDES.finditer(text):
        height, width = int(match[1]), int(match[2])
        if 8 <= height <= 512 and 8 <= width <= 512:
            shapes: list[tuple[Dim, ...]] = [("N", 3, height, width), ("N", 1, height, width), ("N", height, width)]
            yield from (ShapeHint(shape, "float32", origin="docstring", line=line) for shape in shapes)


def _comments(source: Source, forward: Function | None) -> Iterator[tuple[int, str]]:
    """Comments on the `def forward` line, and in its body before the first statement ends."""
    if forward is None:
        return
    last = forward.body[0].end_lineno or forward.lineno
    rows = source.text.splitlines(keepends=True)[forward.lineno - 1 : last]
    try:
        for token in tokenize.generate_tokens(io.StringIO("".join(rows)).readline):
            if token.type == tokenize.COMMENT:
                yield forward.lineno + token.start[0] - 1, token.string.lstrip("# ")
    except (tokenize.TokenError, IndentationError):
        return  # the rows are a fragment of the file


def _dim(text: str) -> Dim:
    text = text.strip()
    return int(text) if text.isdigit() else re.sub(r"\s+", "_", text)


def _usable(shape: tuple[Dim, ...]) -> bool:
    """At least two dimensions, none zero, and a number besides the batch: symbols alone say little."""
    return 2 <= len(shape) <= 6 and 0 not in shape and any(isinstance(d, int) for d in shape[1:])


def _is_batch(dim: Dim) -> bool:
    return isinstance(dim, str) and _BATCH.fullmatch(dim) is not None


def _named(lead: str, names: list[str]) -> str:
    """The parameter that a shape is said of: `x: (N, 3)`, `:param x: …`, `#src = [len, batch]`."""
    words = re.findall(r"[A-Za-z_]\w*", lead)
    return next((w for w in reversed(words) if w in names and w != "self"), "")


def _other(lead: str, names: list[str]) -> bool:
    """Whether the shape is said of something that is no parameter: `h = (N, 64)`."""
    match = re.search(r"([A-Za-z_]\w*)\s*[:=]\s*$", lead)
    return match is not None and match[1] not in names and match[1].lower() not in ("shape", "input", "inputs", "size")
