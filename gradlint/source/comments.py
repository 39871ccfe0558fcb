"""Suppression comments: `# gradlint: ignore[rule] reason` on a line or above it, `file-ignore` for the whole file."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gradlint.graph.ir import Span

MARK = "gradlint:"
HERE, WHOLE = "ignore", "file-ignore"
FORM = "# gradlint: ignore[rule] reason"

_COMMENT = re.compile(
    r"#\s*gradlint:\s*(?P<word>[\w-]*)(?:\[(?P<rules>[^\]#]*)\])?"
    r"(?P<reason>(?:(?!#\s*(?:gradlint:|noqa|type:|error:|pragma)).)*)"
)
_LAYOUT = frozenset({tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT})


@dataclass(frozen=True)
class Idle:
    """A suppression that suppresses nothing: where it stands, and what is wrong with it."""

    span: Span
    problem: str


@dataclass(frozen=True)
class Comment:
    """One comment: where it stands, the rules it names, and the lines it covers (None: the whole file).

    `wrong` says what is wrong with its form; such a comment covers nothing.
    """

    line: int  # 1-based
    column: int  # 0-based, in UTF-8 bytes as `ast` counts
    rules: tuple[str, ...]
    reason: str
    lines: frozenset[int] | None
    wrong: str = ""

    def covers(self, line: int) -> bool:
        """Whether a finding on this line is meant."""
        return not self.wrong and (self.lines is None or line in self.lines)


def comments(text: str) -> list[Comment]:
    """The suppression comments of a file in order; none when it cannot be tokenized.

    A comment behind code covers its line, and the line on which a call begins that ends there. A comment on a line of
    its own covers the statement below it (of a class or function: its header), or inside brackets the element below.
    """
    if MARK not in text:
        return []
    try:
        found = list(tokenize.generate_tokens(io.StringIO(text).readline))
        tree = ast.parse(text)
    except (SyntaxError, tokenize.TokenError, ValueError, RecursionError, MemoryError):
        return []
    code = sorted({token.start[0] for token in found if token.type not in _LAYOUT and token.string})
    return [_comment(token, match, _cover(token, code, tree)) for token, match in _marked(found)]


def _marked(tokens: list[tokenize.TokenInfo]) -> Iterator[tuple[tokenize.TokenInfo, re.Match[str]]]:
    for token in tokens:
        if token.type == tokenize.COMMENT:
            yield from ((token, match) for match in _COMMENT.finditer(token.string))


def _comment(token: tokenize.TokenInfo, match: re.Match[str], cover: frozenset[int]) -> Comment:
    word, rules = match["word"], tuple(rule.strip() for rule in (match["rules"] or "").split(",") if rule.strip())
    line, at = token.start
    column = len(token.line[: at + match.start()].encode())
    reason = match["reason"].strip().lstrip("-–—:").strip()
    wrong = _wrong(word, rules)
    return Comment(line, column, rules, reason, None if word == WHOLE else cover, wrong)


def _wrong(word: str, rules: tuple[str, ...]) -> str:
    if word not in (HERE, WHOLE):
        return f"{word or 'nothing'!r} is neither {HERE} nor {WHOLE}"
    return "" if rules else f"{word} names no rule"


def _cover(token: tokenize.TokenInfo, code: list[int], tree: ast.Module) -> frozenset[int]:
    line = token.start[0]
    if line in code:
        return frozenset({line, *_begun(tree, line)})
    below = next((number for number in code if number > line), None)
    return frozenset() if below is None else _from(tree, below)


def _begun(tree: ast.Module, line: int) -> Iterator[int]:
    """The lines on which calls begin that end on this one."""
    return (node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and node.end_lineno == line)


def _from(tree: ast.Module, line: int) -> frozenset[int]:
    """The lines of the statement that begins on this one, or else of the longest expression that does."""
    ends: Mapping[bool, list[int]] = {True: [], False: [line]}
    for node in ast.walk(tree):
        if isinstance(node, (ast.stmt, ast.expr)) and _start(node) == line:
            ends[isinstance(node, ast.stmt)].append(_end(node))
    return frozenset(range(line, max(ends[True] or ends[False]) + 1))


def _start(node: ast.stmt | ast.expr) -> int:
    """The first line of a node, of a decorated one that of its first decorator."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _end(node: ast.stmt | ast.expr) -> int:
    """The last line of a node, of one with a body that of its header."""
    body: object = getattr(node, "body", None)
    if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
        return max(node.lineno, body[0].lineno - 1)
    last = node.end_lineno
    return node.lineno if last is None else last
