"""Activations as the source writes them: classes and functions of torch, and how a file may spell another one."""

from __future__ import annotations

from collections.abc import Mapping

from gradlint.fix.edits.syntax import Syntax
from gradlint.fix.edits.text import Edit, NoEditError

CLASSES: Mapping[str, str] = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "selu": "SELU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "log_softmax": "LogSoftmax",
    "softmin": "Softmin",
    "softsign": "Softsign",
    "hardtanh": "Hardtanh",
    "hardsigmoid": "Hardsigmoid",
    "logsigmoid": "LogSigmoid",
    "identity": "Identity",
}
SELF_TAUGHT = frozenset({"relu", "leaky_relu", "elu", "selu", "silu", "relu6", "hardtanh", "hardsigmoid"})  # inplace=
ROOT = frozenset({"relu", "tanh", "sigmoid", "selu", "softmax", "log_softmax"})  # functions of torch itself
METHODS = frozenset({"relu", "tanh", "sigmoid"})  # methods of a tensor
# What a new activation needs as an argument that no other one has.
ARGUMENTS: Mapping[str, str] = {"log_softmax": "dim=1"}


def classes(function: str) -> set[str]:
    """The qualified names of an activation's module class."""
    name = CLASSES.get(function, "?")
    return {f"torch.nn.{name}", f"torch.nn.modules.{name}", f"torch.nn.modules.activation.{name}"}


def functions(function: str) -> set[str]:
    """The qualified names of an activation's functions, in-place forms included."""
    names = (function, f"{function}_", {"logsigmoid": "logsigmoid", "sigmoid": "special.expit"}.get(function, function))
    return {f"{owner}.{name}" for name in names for owner in ("torch", "torch.nn.functional")}


def new_class(syntax: Syntax, function: str) -> tuple[str, list[Edit]]:
    """How the file may write the activation's module class, and the import that it takes."""
    owner = syntax.alias("torch.nn")
    return (f"{owner}.{CLASSES[function]}", []) if owner else (f"nn.{CLASSES[function]}", [_nn(syntax)])


def new_function(syntax: Syntax, function: str, written: str = "") -> tuple[str, list[Edit]]:
    """How the file may write the activation's function, beside `written`, the old one; and the import that it takes."""
    owner, _, _ = written.rpartition(".")
    if owner and owner == syntax.alias("torch") and function in ROOT:
        return f"{owner}.{function}", []
    short = syntax.alias("torch.nn.functional")
    if short and (short.count(".") < 2 or function not in ROOT):
        return f"{short}.{function}", []
    whole = syntax.alias("torch")
    if whole and function in ROOT:
        return f"{whole}.{function}", []
    return f"F.{function}", [syntax.imported("import torch.nn.functional as F")]


def _nn(syntax: Syntax) -> Edit:
    if syntax.alias("torch") is not None:
        raise NoEditError("the file names no torch.nn")
    return syntax.imported("from torch import nn")
