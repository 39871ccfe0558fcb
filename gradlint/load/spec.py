"""The grammar of `--input`: `[name=]dtype[dims]` and an optional distribution of the entries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NoReturn

from gradlint.error import UsageError

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
DTYPES = (*FLOATS, *INTEGERS, "bool", "complex64", "complex128")
ALIASES = {"float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int64"}
EXAMPLE = "--input 'x=float32[8,3,32,32]~U(0,1)' or --input 'int64[8,128]<32000'"


@dataclass(frozen=True)
class Values:
    """How the entries of an input are drawn: N(mean, std), U(low, high), or integers from 0 below a bound."""

    law: Literal["normal", "uniform", "integers"]
    first: float
    second: float

    def __str__(self) -> str:
        if self.law == "integers":
            return f"<{self.second:.0f}"
        return f"{'N' if self.law == 'normal' else 'U'}({_number(self.first)},{_number(self.second)})"


@dataclass(frozen=True)
class InputSpec:
    """One example input. `values` None leaves the choice of the entries to the loader.

    A dotted name ("batch.image") is an entry of a dict argument; an unnamed spec is a positional argument.
    """

    dtype: str
    shape: tuple[int, ...]
    name: str = ""
    values: Values | None = None

    def __str__(self) -> str:
        name = f"{self.name}=" if self.name else ""
        return f"{name}{self.dtype}[{','.join(map(str, self.shape))}]{_suffix(self.values)}"


def parse(text: str) -> InputSpec:
    """Read one spec, such as `x=float32[8,3,32,32]~U(0,1)`.

    Raises UsageError with the position of the first character that does not fit, and what was expected there.
    """
    reader = _Reader(text)
    name = reader.optional(r"([A-Za-z_]\w*(?:\.\w+)*)\s*=")
    dtype = _dtype(reader)
    shape = _shape(reader)
    values = _values(reader, dtype)
    reader.end()
    return InputSpec(dtype, shape, name or "", values)


def parse_all(texts: Iterable[str]) -> tuple[InputSpec, ...]:
    """Read several specs; raises UsageError when a name is given twice."""
    specs = tuple(parse(text) for text in texts)
    names = [spec.name for spec in specs if spec.name]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--input {twice!r} is given twice", "each argument of forward takes one --input")
    return specs


class _Reader:
    """Consumes the text from the left; remembers where it is for the message."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def optional(self, pattern: str) -> str | None:
        match = re.compile(rf"\s*{pattern}").match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match.group(1)

    def required(self, pattern: str, expected: str) -> str:
        found = self.optional(pattern)
        if found is None:
            self.fail(expected)
        return found

    def end(self) -> None:
        if self.text[self.at :].strip():
            self.fail("the end, or '~U(low,high)', '~N(mean,std)' or '<bound'")

    def fail(self, expected: str) -> NoReturn:
        rest = self.text[self.at :]
        at = self.at + len(rest) - len(rest.lstrip())
        found = repr(self.text[at]) if at < len(self.text) else "the end"
        raise UsageError(f"--input {self.text!r}: expected {expected} at position {at + 1}, found {found}", EXAMPLE)


def _dtype(reader: _Reader) -> str:
    start = reader.at
    word = reader.optional(r"(\w+)")
    dtype = ALIASES.get(word or "", word or "")
    if dtype not in DTYPES:
        reader.at = start
        reader.fail(f"a dtype ({', '.join(DTYPES)})")
    return dtype


def _shape(reader: _Reader) -> tuple[int, ...]:
    reader.required(r"(\[)", "'[' and the dimensions")
    if reader.optional(r"(\])"):
        return ()
    dims = [_dimension(reader)]
    while reader.required(r"([,\]])", "',' or ']'") == ",":
        dims.append(_dimension(reader))
    return tuple(dims)


def _dimension(reader: _Reader) -> int:
    return int(reader.required(r"([1-9]\d*)(?!\w)", "a dimension (a whole number from 1)"))


def _values(reader: _Reader, dtype: str) -> Values | None:
    if reader.optional(r"(<)"):
        return _bound(reader, dtype)
    if not reader.optional(r"(~)"):
        return None
    if dtype in (*INTEGERS, "bool"):
        reader.at -= 1
        reader.fail(f"'<bound' or the end, as {dtype} entries are not drawn from U or N")
    return _law(reader)


def _bound(reader: _Reader, dtype: str) -> Values:
    if dtype not in INTEGERS:
        reader.at -= 1
        reader.fail(f"'~U(low,high)', '~N(mean,std)' or the end, as only integers have a bound, not {dtype}")
    return Values(
        "integers", 0, int(reader.required(r"([1-9]\d*)", "the exclusive upper bound (a whole number from 1)"))
    )


def _law(reader: _Reader) -> Values:
    letter = reader.required(r"([UN])\b", "'U(low,high)' or 'N(mean,std)'")
    reader.required(r"(\()", "'('")
    first = _float(reader)
    reader.required(r"(,)", "','")
    start = reader.at
    second = _float(reader)
    if (letter == "U" and second <= first) or (letter == "N" and second <= 0):
        reader.at = start
        reader.fail(f"a high end above {_number(first)}" if letter == "U" else "a standard deviation above 0")
    reader.required(r"(\))", "')'")
    return Values("uniform" if letter == "U" else "normal", first, second)


def _float(reader: _Reader) -> float:
    return float(reader.required(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", "a number"))


def _suffix(values: Values | None) -> str:
    if values is None:
        return ""
    return str(values) if values.law == "integers" else f"~{values}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
