"""gradlint: will gradients reach every layer, at a useful size? The public API, and nothing else."""

from gradlint.version import __version__

__all__ = ["__version__"]
