"""What settings say of rules, held against the rules that are installed. Imports rules, never torch."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint import registry
from gradlint.config import Ignore, Settings
from gradlint.config_file import Configuration, Place
from gradlint.engine import settle
from gradlint.error import UsageError


def check(settings: Settings, configuration: Configuration) -> None:
    """Raise UsageError for a rule or an option that does not exist, with the line of the file that names it."""
    for place, selector in _selectors(settings):
        try:
            registry.select((selector,))
        except UsageError as error:
            raise _placed(error, configuration, place) from None
    for place, name, options in _named(settings):
        try:
            settle(registry.find(name), options)
        except UsageError as error:
            raise _placed(error, configuration, place) from None


def _selectors(settings: Settings) -> Iterator[tuple[Place, str]]:
    yield from ((("select",), text) for text in settings.select)
    yield from ((("ignore",), text) for text in settings.ignore)
    yield from ((_place(ignore), ignore.rule) for ignore in settings.ignores)
    for i, model in enumerate(settings.models):
        yield from ((("model", i, "ignore", text), text) for text in model.given.get("ignores", {}))


def _named(settings: Settings) -> Iterator[tuple[Place, str, dict[str, float | int | bool | str | None]]]:
    """Rules that are called by their own name, with the options to settle."""
    yield from ((("severity", name), name, {}) for name in settings.severities)
    for name, options in settings.options.items():
        yield ("rules", name), name, {}
        yield from ((("rules", name, key), name, {key: value}) for key, value in options.items())


def _place(ignore: Ignore) -> Place:
    table, pattern = ("per-path-ignores", ignore.path) if ignore.path else ("per-module-ignores", ignore.module)
    return table, pattern, ignore.rule


def _placed(error: UsageError, configuration: Configuration, place: Place) -> UsageError:
    """The error on the line that says it; on the command line, it has none."""
    known = configuration.path is not None and str(place[0]) in {
        k for keys in configuration.keys.values() for k in keys
    }
    return UsageError(error.message, error.hint, configuration.span(place) if known else None)
