"""python benchmarks/signal.py runs benchmarks/prediction.py.

Scripts of this folder find it before the standard library's `signal`, which torch needs; for them it makes way.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.path[0] = str(HERE.parent)
    from benchmarks.prediction import main

    main()
else:
    spec = PathFinder.find_spec(__name__, [entry for entry in sys.path if Path(entry).resolve() != HERE])
    assert spec is not None and spec.loader is not None
    sys.modules[__name__] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])
