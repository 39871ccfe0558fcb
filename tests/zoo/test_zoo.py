"""A fast sample of the zoo, and that its committed table is the one `python benchmarks/zoo.py` writes."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gradlint.capture import capture
from gradlint.config import Settings
from gradlint.load.inputs import Feed, feed

HERE = Path(__file__).parent
SAMPLE = (
    "timm/cspnext_tiny",
    "tv/squeezenet1_1",
    "tv/ssdlite320_mobilenet_v3_large",
    "hf/bert:BertForSequenceClassification",
    "hf/clip",
    "hf/encodec",
    "hf/layoutlmv3",
    "hf/llama:LlamaForCausalLM",
    "hf/patchtst",
    "hf/t5:T5ForConditionalGeneration",
    "hf/videomae",
    "hf/whisper",
)


def module(name: str, path: Path) -> ModuleType:
    """A module by its file; those of the zoo find one another."""
    sys.path.insert(0, str(HERE))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


build = module("build", HERE / "build.py")
expected = module("expected", HERE / "expected.py")
benchmark = module("benchmark_zoo", HERE.parents[1] / "benchmarks" / "zoo.py")
TABLE = json.loads((HERE / "table.json").read_text())
HAND = tuple(name for name in build.names() if name.startswith("hand/"))


def forms(found: Feed) -> dict[str, str]:
    return {used.name: f"{used.dtype}:{len(used.shape)}" for used in found.inputs}


@pytest.mark.parametrize("name", (*HAND, *SAMPLE))
def test_an_architecture_is_fed_the_inputs_it_is_trained_on(name: str) -> None:
    if not name.startswith("hand/"):
        pytest.importorskip({"timm": "timm", "tv": "torchvision", "hf": "transformers"}[name.partition("/")[0]])
    found = feed(build.build(name), Settings())
    assert expected.agrees(name, forms(found)), forms(found)


@pytest.mark.parametrize("name", HAND)
def test_a_hand_written_net_is_captured_with_every_layer_it_calls(name: str) -> None:
    model = build.build(name)
    found = feed(model, Settings())
    graph, _ = capture(model, found.args, found.kwargs)
    assert graph.coverage.unknown == () and len(graph.ops) > 1


def test_the_table_covers_the_zoo() -> None:
    assert list(TABLE) == build.names()


def test_the_table_is_written_by_the_benchmark() -> None:
    assert (HERE / "table.md").read_text() == benchmark.markdown(TABLE)


def test_the_table_meets_the_targets() -> None:
    fed = [row.get("fed") is True for row in TABLE.values()]
    right = [row.get("right") is True for row in TABLE.values()]
    assert sum(fed) >= 0.98 * len(fed) and sum(right) >= 0.95 * len(right)


def test_every_failure_in_the_table_has_its_message() -> None:
    failed = {name: row for name, row in TABLE.items() if not all(row.get(step) is True for step in benchmark.STEPS)}
    assert all(row.get("message") or row.get("right") is False for row in failed.values())
