"""The Python and model files of a folder, less what git ignores, what the configuration excludes, and environments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist", "venv", "env", ".venv", "_build"})
WALKED = (".py", ".onnx", ".pt2")
ENVIRONMENT = "pyvenv.cfg"  # a folder that holds it is a virtual environment
IGNORE = ".gitignore"


@dataclass(frozen=True)
class Patterns:
    """Gitignore patterns that count from a folder."""

    folder: Path
    spec: GitIgnoreSpec

    def ignores(self, path: Path, *, folder: bool) -> bool | None:
        """Whether the path is left out; None when no pattern says anything of it."""
        if not path.is_relative_to(self.folder) or path == self.folder:
            return None
        return self.spec.check_file(path.relative_to(self.folder).as_posix() + "/" * folder).include


def patterns(folder: Path, lines: Sequence[str]) -> Patterns:
    """Patterns, one a line, as a .gitignore in `folder` would hold them."""
    from pathspec import GitIgnoreSpec  # imported where a folder is walked: most runs need none of it

    return Patterns(folder.resolve(), GitIgnoreSpec.from_lines(lines))


def model_files(
    folder: Path, *, exclude: Sequence[str] = (), root: Path | None = None, gitignore: bool = True
) -> Iterator[Path]:
    """Every .py, .onnx and .pt2 file below the folder, sorted, under the folder's path as it was given.

    `exclude` are gitignore patterns that count from `root` (None: the working folder). A folder that is named although
    git ignores it is walked as if git did not.
    """
    excluded = [patterns(root or Path.cwd(), exclude)] if exclude else []
    ignored = _above(folder.resolve()) if gitignore else []
    if _left_out(folder.resolve(), ignored, folder=True):
        gitignore, ignored = False, []
    yield from _walk(folder, [*ignored, *excluded], gitignore=gitignore)


def walked(
    file: Path, folder: Path, *, exclude: Sequence[str] = (), root: Path | None = None, gitignore: bool = True
) -> bool:
    """Whether `model_files(folder)` gives the file."""
    path, top = file.resolve(), folder.resolve()
    if path.suffix not in WALKED or not path.is_relative_to(top):
        return False
    excluded = [patterns(root or Path.cwd(), exclude)] if exclude else []
    above = gitignore and not _left_out(top, _above(top), folder=True)
    found = [*(_above(path) if above else []), *excluded]
    between = [place for place in path.parents if place.is_relative_to(top) and place != top]
    hidden = any(place.name.startswith(".") or place.name in SKIPPED for place in (path, *between))
    environment = any((place / ENVIRONMENT).exists() for place in between)
    return not (
        hidden or environment or any(_left_out(place, found, folder=place != path) for place in (path, *between))
    )


def _walk(folder: Path, found: list[Patterns], *, gitignore: bool) -> Iterator[Path]:
    here = _own(folder.resolve()) if gitignore else []
    found = [*here, *found]
    for path in sorted(folder.iterdir()):
        is_folder = path.is_dir()
        if path.name.startswith(".") or path.name in SKIPPED:
            continue
        if _left_out(path.parent.resolve() / path.name, found, folder=is_folder):
            continue
        if is_folder:
            if not path.is_symlink() and not (path / ENVIRONMENT).exists():
                yield from _walk(path, found, gitignore=gitignore)
        elif path.suffix in WALKED:
            yield path


def _left_out(path: Path, found: Sequence[Patterns], *, folder: bool) -> bool:
    """What the innermost patterns say that say anything."""
    said = (each.ignores(path, folder=folder) for each in found)
    return next((answer for answer in said if answer is not None), False)


def _above(folder: Path) -> list[Patterns]:
    """What git's files in the folders above say, innermost first, from the repository's root on."""
    root = next((place for place in (folder, *folder.parents) if (place / ".git").exists()), None)
    if root is None:
        return []
    between = [place for place in folder.parents if place.is_relative_to(root)]
    return [each for place in between for each in _own(place)] + _read(root, root / ".git" / "info" / "exclude")


def _own(folder: Path) -> list[Patterns]:
    return _read(folder, folder / IGNORE)


def _read(folder: Path, file: Path) -> list[Patterns]:
    if not file.is_file():
        return []
    return [patterns(folder, file.read_text("utf-8", "replace").splitlines())]
