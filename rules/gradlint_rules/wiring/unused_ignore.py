"""GL999: suppression comments that suppress nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradlint.finding import Draft, Related
from gradlint.rule import rule
from gradlint.source.comments import Idle


@rule(code="GL999", name="unused-ignore", family="wiring", severity="info", since="0.1.0")
def unused_ignore(idle: Sequence[Idle]) -> Iterator[Draft]:
    """A draft for every comment, placed where the comment stands."""
    for comment in idle:
        yield Draft(message=f"unused suppression: {comment.problem}", related=(Related(comment.span, "", ""),))
