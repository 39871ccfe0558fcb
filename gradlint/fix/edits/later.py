"""Norms and skips put in at the end of `__init__`, where the source makes the layers at no place of their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.norm import reads_weight
from gradlint.fix.edits.scope import constructor, root
from gradlint.fix.edits.sites import by_site
from gradlint.fix.edits.skip import residual
from gradlint.fix.edits.sums import around_calls
from gradlint.fix.edits.syntax import Syntax, inside
from gradlint.fix.edits.text import Edit, NoEditError

MOST_STATEMENTS = 8  # of each kind
WIDTH = {"Linear": "out_features", "Bilinear": "out_features"}  # what torch's layers call the number of their outputs
CHANNELS = "out_channels"


def put_in(syntax: Syntax, norms: Sequence[Change], skips: Sequence[Change]) -> list[Edit]:
    """The edits that replace finished layers by rows of a layer and its norm, and members by blocks with a skip.

    Layers keep their positions, so that the blocks can be told by theirs. Raises NoEditError for a model without an
    `__init__` in the file, and for layers and blocks that no few statements reach.
    """
    rows = [change for change in skips if not change.name]
    edits = [edit for group in by_site([c for c in skips if c.name]) for edit in around_calls(syntax, group)]
    if not norms and not rows:
        return edits
    scope = root(syntax, (*norms, *rows)[0].types[1], None)
    if scope.owner is None or any(not change.module for change in (*norms, *rows)):
        raise NoEditError("the layers have no place of their own")
    if norms and _reads_weights(syntax, scope.owner):
        raise NoEditError("the file asks the layers for their weights")
    nn = syntax.owner("torch.nn")
    lines = [line for group in _alike(norms) for line in _normed(nn, group, syntax.module.default_indent)]
    if rows:
        name, made = residual(syntax, [scope.owner], [replace(change, partial=False) for change in rows])
        edits += made
        lines += [line for group in _by_list(rows) for line in _blocked(nn, group, name, syntax.fresh("members"))]
    return [*edits, *scope.appended(lines)]


def _reads_weights(syntax: Syntax, owner: cst.ClassDef) -> bool:
    """Whether the class, or a helper beside it, asks a layer for its weight once the model is made."""
    own = constructor(owner)
    reads = [node for node in inside(owner, cst.Attribute) if node.attr.value in ("weight", "bias")]
    reads += [node for node in syntax.all(cst.Attribute) if reads_weight(syntax, node)]
    return any(all(parent is not own for parent, _ in syntax.around(node)) for node in reads)


def _by_list(changes: Sequence[Change]) -> list[list[Change]]:
    """The changes by the list that their layers are in."""
    groups: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        groups[change.module].append(change)
    return _few(list(groups.values()))


def _alike(norms: Sequence[Change]) -> list[list[Change]]:
    """The norms of one list that are written alike."""
    groups: dict[tuple[object, ...], list[Change]] = defaultdict(list)
    for change in norms:
        width = change.size if not _width(change) else 0
        groups[change.module, change.new, change.gain, width].append(change)
    return _few(list(groups.values()))


def _few(groups: list[list[Change]]) -> list[list[Change]]:
    if len(groups) > MOST_STATEMENTS:
        raise NoEditError("too many lists of layers to name")
    return groups


def _width(change: Change) -> str:
    """The attribute of the layer that has the norm's width; empty for a layer of the user's own."""
    own = change.types[0]
    return WIDTH.get(own, CHANNELS if own.startswith("Conv") else "")


def _normed(nn: str, group: Sequence[Change], step: str) -> Iterator[str]:
    """The statements that replace layers of a list, or one attribute, by a row of the layer and its norm."""
    change = group[0]
    places = sorted({each.items[0] for each in group if each.items})
    layer = f"{change.module}[{places[0] if len(places) == 1 else 'i'}]" if places else change.module
    width = f"{layer}.{_width(change)}" if _width(change) else str(change.size)
    groups = f"{change.gain:g}, " if change.new == "GroupNorm" else ""
    made = f"{layer} = {nn}.Sequential({layer}, {nn}.{change.new}({groups}{width}))"
    if len(places) < 2:
        yield made
    else:
        yield f"for i in {_counted(places, change.items[2], change.module)}:"
        yield step + made


def _blocked(nn: str, group: Sequence[Change], name: str, members: str) -> Iterator[str]:
    """The statements that make a Sequential anew, with blocks of successive members in `name`."""
    spans = sorted({each.items[:2] for each in group})
    (start, last), whole = spans[0], group[0].items[2]
    size, end = last - start + 1, spans[-1][1] + 1
    if any(change.stride for change in group):
        raise NoEditError("the blocks need projections")
    if [each for first, each in spans] != list(range(last, end, size)) or {b - a + 1 for a, b in spans} != {size}:
        raise NoEditError("the blocks do not follow one another")
    if len(spans) == 1:
        block = f"{name}(*{members}[{start}:{end}])"
    else:
        counted = _counted([first for first, _ in spans], whole, members)
        block = f"*({name}(*{members}[i : i + {size}]) for i in {counted})"
    before, after = f"*{members}[:{start}]", f"*{members}[{end - whole}:]"
    parts = [before] * (start > 0) + [block] + [after] * (end < whole)
    yield f"{members} = list({group[0].module})"
    yield f"{group[0].module} = {nn}.Sequential({', '.join(parts)})"


def _counted(places: Sequence[int], whole: int, name: str) -> str:
    """The positions in a list of so many members: a range up to near its end, or each by its number."""
    start, step = places[0], places[1] - places[0]
    left = next((k for k in range(whole) if list(range(start, whole - k, step)) == list(places)), None)
    if left is None:
        return f"({', '.join(map(str, places))})"
    stop = f"len({name})" + (f" - {left}" if left else "")
    if step > 1:
        return f"range({start}, {stop}, {step})"
    return f"range({start}, {stop})" if start else f"range({stop})"
