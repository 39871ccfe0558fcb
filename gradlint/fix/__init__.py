"""Fixes, tried by intervention on the recorded run, kept when the measurement shows that they help, and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlint.fix.proof import prove

__all__ = ["prove"]


def __getattr__(name: str) -> Any:
    """`prove`, imported when it is asked for: it needs torch, which whoever writes fixes goes without."""
    if name != "prove":
        raise AttributeError(name)
    from gradlint.fix.proof import prove

    return prove
