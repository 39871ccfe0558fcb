"""Loops over the layers and parameters of a model that are drawn alike, and over no others."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from gradlint.finding import Change
from gradlint.fix.edits.scope import Scope
from gradlint.fix.edits.text import NoEditError

MOST_NAMED = 8  # layers or lists that a generated method names one by one
MOST_ENDINGS = 4  # endings of names that tell the parameters drawn alike from all others
MEMBER = re.compile(r"(.+?)\.(\d+)(?:\.(.+))?")  # a member of a list, or what is in one, by its path


def loops(scope: Scope, group: Sequence[Change], others: Sequence[str]) -> list[tuple[list[str], str]]:
    """Loops over these parameters: one, or one for each name that they have in the members of a list."""
    try:
        return [_over(scope, group, others)]
    except NoEditError:
        parts = _by_list(group)
        if not 1 < len(parts) <= MOST_NAMED:
            raise
        rest = {key: [*others, *(c.old for c in group if c not in part)] for key, part in parts.items()}
        return [_over(scope, part, rest[key]) for key, part in parts.items()]


def _over(scope: Scope, group: Sequence[Change], others: Sequence[str]) -> tuple[list[str], str]:
    """The heads of a loop over these parameters and no other one, and their name in it; no loop over a single one."""
    if len(group) == 1:
        return [], scope.named(group[0].module)
    owners = {change.module.rpartition("[")[0] for change in group if change.module.endswith("]")}
    path = group[0].old.rpartition(".")[0]
    if len(owners) == 1 and path and not any(other.startswith(f"{path}.") for other in others):
        return [f"for param in {scope.named(owners.pop())}:"], "param"
    if alike := of_list(scope, group, others):
        return [f"for layer in {alike[0]}:"], f"layer{alike[1]}"
    if len(group) <= MOST_NAMED:
        names = ", ".join(scope.named(change.module) for change in group)
        return [f"for param in ({names}):"], "param"
    ends = list(dict.fromkeys(_ending(change.old, others) for change in group))
    if "" in ends or len(ends) > MOST_ENDINGS:
        raise NoEditError("too many parameters to name")
    quoted = ", ".join(f'"{end}"' for end in ends)
    listed = quoted if len(ends) == 1 else f"({quoted})"
    return [f"for name, param in {scope.model}.named_parameters():", f"if name.endswith({listed}):"], "param"


def of_list(scope: Scope, group: Sequence[Change], others: Sequence[str]) -> tuple[str, str] | None:
    """The list that these are parameters of, from some member on, and what they are called in one; None without it."""
    parts = [MEMBER.fullmatch(change.old) for change in group]
    found = [(part[1], part[3], int(part[2])) for part in parts if part is not None]
    left = [(part[1], part[3], int(part[2])) for other in others if (part := MEMBER.fullmatch(other)) is not None]
    first, places = group[0].module, sorted(place for _, _, place in found)
    owner, _, rest = first.partition("[")
    name = rest.partition("]")[2]
    start = places[0] if places else 0
    later = [place for path, last, place in left if (path, last) == found[0][:2] and place >= start] if found else []
    if len(found) < len(group) or len({each[:2] for each in found}) > 1 or later:
        return None
    if places != list(range(start, start + len(places))):
        return None
    return f"{scope.named(owner)}{f'[{start}:]' if start else ''}", name


def _ending(path: str, others: Sequence[str]) -> str:
    """The fewest last parts of the parameter's path that none of the others ends in; empty without any."""
    parts = path.split(".")
    endings = (".".join(parts[-count:]) for count in range(1, len(parts)))
    return next((end for end in endings if not any(other.endswith(end) for other in others)), "")


def lists(
    scope: Scope, groups: Sequence[Sequence[Change]], rest: Sequence[Change]
) -> Iterator[tuple[str, str, Change]]:
    """What holds the layers of each group: a list and the layer in a member of it, or a layer alone without a list.

    Raises NoEditError where they are neither few nor in few lists.
    """
    others = [change for group in groups for change in group] + list(rest)
    parts = [part for group in groups for part in _by_list(group).values()]
    if len(parts) > MOST_NAMED:
        raise NoEditError("the layers need many different initialisations")
    for part in parts:
        alike = of_list(scope, part, [change.old for change in others if change not in part])
        if len(part) > 1 and alike is None:
            raise NoEditError("the layers need many different initialisations")
        yield (
            (alike[0], f"layer{alike[1]}", part[0])
            if alike and len(part) > 1
            else ("", scope.named(part[0].module), part[0])
        )


def _by_list(group: Sequence[Change]) -> dict[object, list[Change]]:
    """The changes by the list that they are about members of, and by what they are about in those."""
    parts: dict[object, list[Change]] = defaultdict(list)
    for change in group:
        found = MEMBER.fullmatch(change.old)
        parts[(found[1], found[3], change.bias) if found else change.module].append(change)
    return parts
