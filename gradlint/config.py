"""Everything that a run depends on besides its targets: one frozen `Settings`. Never imports torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gradlint.finding import Number

FORMATS = ("full", "concise", "json", "json-lines", "sarif", "github", "gitlab", "junit", "markdown", "html")
THRESHOLDS = ("error", "warning", "info", "never")
COLORS = ("auto", "always", "never")
DTYPES = ("bf16", "fp16", "fp8")
OPTIMIZERS = ("any", "sgd", "adam")
LOSSES = ("ce", "nll", "bce", "bce_logits", "mse", "unit", "own")


@dataclass(frozen=True)
class Ignore:
    """A rule whose findings the configuration suppresses somewhere: in some files, some modules or one model."""

    rule: str  # a name, a code, a code prefix or a family
    reason: str = ""
    path: str = ""  # a gitignore pattern, counted from `Settings.root`
    module: str = ""  # a glob of module paths; it also holds for the modules inside


@dataclass(frozen=True)
class Model:
    """A `[[tool.gradlint.model]]` table: a target, and the fields of Settings that are its own."""

    target: str
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """The command line and the configuration file, merged."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()  # the texts of --input
    inputs_from: str = "cli"  # who gave them: "cli" or "config"
    init: tuple[str, ...] = ()  # constructor arguments, "num_classes=10"
    loss: str | None = None
    device: str = "auto"
    seed: int = 0
    seeds: int = 5
    dtype: str | None = None  # a narrower number format whose losses are measured
    optimizer: str = "any"  # whose limits the verdict is read by, and which the steps are taken with
    data: str | None = None  # "module:function" of what gives batches, where inputs are not to be made up
    steps: int = 0  # training steps to follow the gradient through
    rate: float | None = None  # their learning rate; None: one that is usual for the optimizer
    probe: bool = True
    fix: bool = True  # try fixes by intervention and print those that help
    prove: bool = False  # train the model as it is and with the best fix, and show both curves
    fail_on: str = "warning"
    output_format: str = "full"
    output: tuple[str, ...] = ()
    timeout: float = 120.0  # seconds a target
    memory: int | None = None  # bytes a target
    jobs: int = 1
    weights: str | None = None  # a checkpoint to load into the model
    all_classes: bool = False
    color: str = "auto"
    exit_zero: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    root: str = ""  # the folder of the configuration file, which its paths and patterns count from; "": the working one
    exclude: tuple[str, ...] = ()  # gitignore patterns of what is left out when a folder is walked
    gitignore: bool = True  # leave out what git ignores, too
    skip_modelless: bool = False  # a file without a model is skipped, also when it is named
    options: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)  # rule → option → value
    severities: Mapping[str, str] = field(default_factory=dict)  # rule → severity
    ignores: tuple[Ignore, ...] = ()
    models: tuple[Model, ...] = ()
    cache: bool = True
    cache_dir: str | None = None
    baseline: str | None = None


# Fields of Settings that change nothing of what the analysis of one target finds.
OUTSIDE = frozenset(
    {
        *("fail_on", "output_format", "output", "timeout", "jobs", "color", "exit_zero", "quiet", "verbose"),
        *(
            "debug",
            "inputs_from",
            "root",
            "exclude",
            "gitignore",
            "skip_modelless",
            "ignores",
            "models",
            "cache",
            "cache_dir",
        ),
        "baseline",
    }
)


def inside(settings: Settings) -> Settings:
    """The settings as a worker gets them: without what it does not use."""
    return replace(settings, ignores=(), models=())


def default_jobs() -> int:
    """How many targets run at once when nothing else is said: every core but no more than four, as each holds torch."""
    return max(1, min(4, os.cpu_count() or 1))
