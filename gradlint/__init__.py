"""gradlint: will gradients reach every layer, at a useful size? The public API, and nothing else."""

from gradlint.api import Report, check
from gradlint.config import Settings
from gradlint.error import GradlintError
from gradlint.finding import Claim, Draft, Factor, Finding, Fix, Related
from gradlint.rule import Rule, rule
from gradlint.version import __version__

__all__ = [
    "Claim",
    "Draft",
    "Factor",
    "Finding",
    "Fix",
    "GradlintError",
    "Related",
    "Report",
    "Rule",
    "Settings",
    "__version__",
    "check",
    "rule",
]
