import pytest
import torch
from torch import nn

from gradlint.error import LoadError
from gradlint.load.inputs import feed
from gradlint.load.meta import Answers, build, meta_build

MEGABYTE = 2**20


class Wide(nn.Module):
    built = 0

    def __init__(self, width: int, depth: int = 4) -> None:
        super().__init__()
        type(self).built += 1
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return x


class ReadsSmall(Wide):
    """As RegNet does: widths are computed with tensors and read back."""

    def __init__(self, width: int) -> None:
        super().__init__(width, int(torch.linspace(2, 4, 3).round().tolist()[-1]))


class ReadsLarge(Wide):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.scale = self.layers[0].weight.abs().max().item()


@pytest.fixture(autouse=True)
def count_from_zero() -> None:
    Wide.built = 0


def test_a_model_that_fits_is_built_really_and_once() -> None:
    model, on_meta = build(lambda: Wide(64), memory=MEGABYTE)
    assert not on_meta and not any(p.is_meta for p in model.parameters())
    assert Wide.built == 1


def test_a_model_that_does_not_fit_is_built_on_meta() -> None:
    model, on_meta = build(lambda: Wide(8192), memory=MEGABYTE)
    assert on_meta and all(p.is_meta for p in model.parameters())


def test_it_is_noticed_while_it_allocates_not_after() -> None:
    held: list[nn.Linear] = []

    def greedy() -> nn.Module:
        for _ in range(100):
            held.append(nn.Linear(256, 256))
        return nn.Sequential(*held)

    build(greedy, memory=4 * MEGABYTE)
    assert sum(layer.weight.numel() for layer in held if not layer.weight.is_meta) * 16 <= 4 * MEGABYTE


def test_deep_copied_layers_count() -> None:
    layer = nn.TransformerEncoderLayer(64, 4, 64)
    _, on_meta = build(lambda: nn.TransformerEncoder(layer, 40, enable_nested_tensor=False), memory=MEGABYTE)
    assert on_meta


def test_a_constructor_may_read_small_tensors() -> None:
    model = meta_build(lambda: ReadsSmall(512))
    assert len(model.layers) == 4 and all(p.is_meta for p in model.parameters())


def test_a_constructor_that_reads_a_large_tensor_is_a_load_error() -> None:
    with pytest.raises(LoadError, match="too large to build") as caught:
        meta_build(lambda: ReadsLarge(512))
    assert "--memory" in caught.value.hint


def test_inputs_are_found_without_memory() -> None:
    model, _ = build(lambda: Wide(8192), memory=MEGABYTE)
    found = feed(model, type("Settings", (), {"inputs": ()})())
    assert found.args[0].is_meta and found.inputs[0].shape[1:] == (8192,)


ASKED = {
    "item": (lambda x: x.sum().item(), 0.5),
    "a condition": (lambda x: bool((x > 0).all()), True),
    "tolist": (lambda x: x[0].tolist(), [0.5, 0.5, 0.5]),
    "int": (lambda x: int(x.argmax()), 1),
    "nonzero": (lambda x: tuple(x.nonzero().shape), (6, 2)),
    "where": (lambda x: [tuple(i.shape) for i in torch.where(x > 0)], [(6,), (6,)]),
    "a boolean index": (lambda x: tuple(x[x > 0].shape), (6,)),
}


@pytest.mark.parametrize("question", ASKED)
def test_questions_about_values_are_answered_and_counted(question: str) -> None:
    ask, answer = ASKED[question]
    x = torch.empty(2, 3, device="meta")
    with torch.device("meta"), Answers() as answers:
        assert ask(x) == answer
    assert answers.count >= 1


def test_the_other_branch_can_be_asked_for() -> None:
    with torch.device("meta"), Answers(truth=False):
        assert not bool(torch.empty(3, device="meta").all())


def test_a_real_tensor_answers_for_itself() -> None:
    with Answers() as answers:
        assert torch.full((2,), 7.0).sum().item() == 14.0
    assert answers.count == 0
