"""What gradlint costs when there is little to do: `python benchmarks/startup.py [--runs N]`.

Each command runs in a process of its own, N times. The median of the CPU seconds of it and its children counts,
as wall time says more about who else uses the machine. Exits with 1 when one of the promises below is broken.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "deep_sigmoid.py"
WARM_SHARE = 0.25  # of a cold run that a warm one may take
MODELLESS = 0.3  # CPU seconds of a commit that touches no model
DATA = """import torch
from torch.utils.data import Dataset


class Images(Dataset):
    def __getitem__(self, index):
        return torch.zeros(3, 8, 8), 0
"""
PROBE = (
    "import sys; from gradlint.cli import main\n"
    "try: main(sys.argv[1:])\n"
    "finally: sys.stderr.write(f\"torch={'torch' in sys.modules}\\n\")"
)


@dataclass(frozen=True)
class Cost:
    """Seconds of the CPU and of the clock, and whether the parent process imported torch."""

    cpu: float
    wall: float
    torch: bool


def once(words: Sequence[str], folder: Path) -> Cost:
    """One run of the command in a process of its own."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "rules")))
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu, time.monotonic() - started, "torch=True" in done.stderr)


def costs(runs: int, folder: Path) -> Iterator[tuple[str, Cost]]:
    """Every case with its median cost; the first run of each is thrown away."""
    for number in range(5):
        text = DATA if number < 2 else "import os\n\n\ndef f(x):\n    return os.fspath(x)\n"
        (folder / f"plain{number}.py").write_text(text * 20)
    modelless = ["--skip-modelless", *(f"plain{number}.py" for number in range(5))]
    cases = {
        "--help": ["--help"],
        "--version": ["--version"],
        "rule NAME": ["rule", "saturating-chain"],
        "a commit touching no model": modelless,
        "one model, cold": [str(EXAMPLE), "--no-cache"],
        "one model, warm": [str(EXAMPLE)],
    }
    for name, words in cases.items():
        once(words, folder)
        yield name, median([once(words, folder) for _ in range(runs)])


def median(found: Sequence[Cost]) -> Cost:
    """The median of each number; torch counts when any run imported it."""
    cpu, wall = (statistics.median(getattr(each, name) for each in found) for name in ("cpu", "wall"))
    return Cost(cpu, wall, any(each.torch for each in found))


def main() -> int:
    """Print the table and judge the promises."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    with tempfile.TemporaryDirectory() as folder:
        found = dict(costs(parser.parse_args().runs, Path(folder)))
    print(f"{'':30}{'CPU s':>8}{'wall s':>8}  torch")
    for name, cost in found.items():
        print(f"{name:30}{cost.cpu:8.2f}{cost.wall:8.2f}  {'imported' if cost.torch else 'no'}")
    share = found["one model, warm"].cpu / found["one model, cold"].cpu
    promises = {
        f"warm ÷ cold = {share:.2f} ≤ {WARM_SHARE}": share <= WARM_SHARE,
        f"no model: < {MODELLESS} s": found["a commit touching no model"].cpu < MODELLESS,
        "the command's own process never imports torch": not any(cost.torch for cost in found.values()),
    }
    for promise, kept in promises.items():
        print(f"{'kept' if kept else 'BROKEN':8}{promise}")
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
