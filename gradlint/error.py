"""Errors that a user can act on: what is wrong, where, and what to try."""

from __future__ import annotations

from gradlint.graph.ir import Span


class GradlintError(Exception):
    """Stops work on one target (or the whole run, for usage errors). The command line prints it and exits with 2.

    `kind` is a stable word for the JSON report; `hint` says what to try; `span` says where, when the source is known.
    """

    kind = "internal"

    def __init__(self, message: str, hint: str = "", span: Span | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.span = span


class UsageError(GradlintError):
    """The command line, a function argument or a configuration value is not usable."""

    kind = "usage"


class LoadError(GradlintError):
    """The file cannot be read, parsed or imported, holds no model, or the model cannot be built."""

    kind = "load"


class InputError(GradlintError):
    """No example inputs were found, or the ones given do not fit the model."""

    kind = "input"


class ForwardError(GradlintError):
    """The model's own forward raised."""

    kind = "forward"


class ProbeError(GradlintError):
    """The backward pass could not be run."""

    kind = "probe"


class LimitError(GradlintError):
    """The target ran past its time or memory limit, or its process died."""

    kind = "limit"
