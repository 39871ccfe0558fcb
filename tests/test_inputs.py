import threading
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradlint.error import ForwardError, InputError, UsageError
from gradlint.load.inputs import Feed, feed
from gradlint.source.examples import ShapeHint, SourceHints


def settings(*inputs: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(inputs=inputs)


def inferred(model: nn.Module, hints: SourceHints | None = None) -> Feed:
    return feed(model, settings(), hints)


def forms(found: Feed) -> dict[str, str]:
    """name: dtype and shape without the batch, as "float32 3,32,32"."""
    return {used.name: f"{used.dtype} {','.join(map(str, used.shape[1:]))}" for used in found.inputs}


class Convolutional(nn.Module):
    def __init__(self, channels=3, features=16 * 5 * 5):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc = nn.Linear(features, 10)

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x).relu(), 2)
        x = F.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc(x.flatten(1))


class Viewed(Convolutional):
    def forward(self, x):
        x = F.max_pool2d(self.conv1(x).relu(), 2)
        x = F.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc(x.view(-1, self.fc.in_features))


class Flattening(nn.Module):
    def __init__(self, width=784):
        super().__init__()
        self.fc = nn.Linear(width, 10)

    def forward(self, x):
        return self.fc(x.view(x.size(0), -1))


class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(28, 16, batch_first=True)

    def forward(self, image):
        return self.lstm(image.squeeze(1))[0]


class TwoTables(nn.Module):
    def __init__(self):
        super().__init__()
        self.users = nn.Embedding(50, 8)
        self.items = nn.Embedding(70, 8)

    def forward(self, user, item):
        return (self.users(user) * self.items(item)).sum(-1)


class Offset(nn.Module):
    """The first rows are special tokens, so that ids end below the table's size."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(40, 8)
        self.small = nn.Embedding(36, 8)

    def forward(self, ids):
        return self.table(ids + 4) + self.small(ids + 0)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x, key_padding_mask):
        return self.attention(x, x, x, key_padding_mask=key_padding_mask)[0]


class Translator(nn.Module):
    """As torch's tutorial on translation: the sequence comes first, and every mask of `nn.Transformer` is asked for."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(30, 8)
        self.transformer = nn.Transformer(8, 2, 1, 1, 16)

    def forward(self, src, tgt, src_mask, tgt_mask, src_padding_mask, tgt_padding_mask, memory_key_padding_mask):
        masks = (src_mask, tgt_mask, None, src_padding_mask, tgt_padding_mask, memory_key_padding_mask)
        return self.transformer(self.table(src), self.table(tgt), *masks)


class Kept(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(30, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, ids, attention_mask):
        h = self.table(ids) + (1 - attention_mask).unsqueeze(-1) * -1e4
        return self.out(h.amax(1))


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(9, 12, num_layers=2, batch_first=True)

    def forward(self, x, state):
        return self.lstm(x, state)[0]


class Diffusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, 16), nn.SiLU())
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.out = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x, t):
        return self.out(self.conv(x) + self.time(t[:, None].float())[:, :, None, None])


class Language(nn.Module):
    def __init__(self, longest=11):
        super().__init__()
        self.tokens = nn.Embedding(64, 8)
        self.positions = nn.Embedding(longest, 8)
        self.head = nn.Linear(8, 64)

    def forward(self, idx, targets=None):
        steps = idx.shape[1]
        assert steps <= self.positions.num_embeddings, f"at most {self.positions.num_embeddings} steps, got {steps}"
        logits = self.head(self.tokens(idx) + self.positions(torch.arange(steps)))
        if targets is None:
            return logits
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class FromData(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 4)

    def forward(self, data):
        source, target = data.edge_index
        h = self.first(data.x)
        return torch.zeros_like(h).index_add(0, target, h[source])


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(14, 1)

    def forward(self, state, action):
        return self.fc(torch.cat([state, action], 1))


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 8, 8)
        self.position = nn.Parameter(torch.zeros(1, 1 + 5 * 5, 24))
        self.token = nn.Parameter(torch.zeros(1, 1, 24))

    def forward(self, x):
        h = self.patch(x).flatten(2).mT
        return torch.cat([self.token.expand(len(x), -1, -1), h], 1) + self.position


class ByKey(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 2)
        self.table = nn.Embedding(20, 2)

    def forward(self, batch):
        return self.fc(batch["features"]) + self.table(batch["category_ids"]).sum(1)


class Unbatched(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(7, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(self, x):
        return self.encoder(self.embed(x))


class Steering(nn.Module):
    """66 × 200 pixels, or any other size with as many features."""

    def __init__(self):
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.Conv2d(8, 8, 5, 2), nn.Conv2d(8, 16, 5, 2))
        self.fc = nn.Linear(16 * 5 * 22, 1)

    def forward(self, x):
        return self.fc(self.convs(x).flatten(1))


class Step(nn.Module):
    """One step of a recurrent net by hand."""

    def __init__(self, features=57, hidden=24):
        super().__init__()
        self.hidden_size = hidden
        self.next = nn.Linear(features + hidden, hidden)

    def forward(self, input, hidden):
        return self.next(torch.cat((input, hidden), 1)).tanh()


class Graphs(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 8)

    def forward(self, x, adj):
        return torch.bmm(adj, self.fc(x)).relu().mean(1)


class Scored(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 8)

    def forward(self, src, src_mask):
        h = self.table(src)
        scores = (h @ h.mT).masked_fill(src_mask == 0, -1e9)
        return scores.softmax(-1) @ h


class Pair(nn.Module):
    """As pix2pix's discriminator: an image and its condition, channel by channel."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(6, 8, 4, 2, 1), nn.InstanceNorm2d(8), nn.LeakyReLU(), nn.Conv2d(8, 1, 4))

    def forward(self, image, condition):
        return self.body(torch.cat((image, condition), 1))


class Attributes(nn.Module):
    """As StarGAN's generator: a vector is given to every place of the image."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 7, 1, 3), nn.InstanceNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3))

    def forward(self, x, c):
        c = c.view(c.size(0), c.size(1), 1, 1).repeat(1, 1, x.size(2), x.size(3))
        return self.body(torch.cat((x, c), 1))


class Codes(nn.Module):
    """As InfoGAN's generator: noise, a label as a row and a code, feature by feature."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(74, 12)

    def forward(self, noise, labels, code):
        return self.body(torch.cat((noise, labels, code), -1))


class Spelled(nn.Module):
    """As hand-written recurrent nets: a view spells out every size."""

    def __init__(self, batch=None):
        super().__init__()
        self.batch = batch
        self.rnn = nn.RNN(5, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(x.view(x.size(0) if self.batch is None else self.batch, 6, 5))[0]


class Noisy(nn.Module):
    """As PixelDA's generator: noise in the shape of the image is one more image."""

    def __init__(self):
        super().__init__()
        self.noise = nn.Linear(10, 3 * 20 * 20)
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 3, 3, 1, 1))

    def forward(self, img, z):
        return self.body(torch.cat((img, self.noise(z).view(*img.shape)), 1))


class Heads(nn.Module):
    """As hand-written attention: query, key and value are sequences that a view cuts into heads."""

    def __init__(self):
        super().__init__()
        self.queries, self.keys, self.values = (nn.Linear(16, 8) for _ in range(3))

    def forward(self, q, k, v):
        batch = q.size(0)
        parts = ((self.queries, q), (self.keys, k), (self.values, v))
        q, k, v = (layer(x).view(batch, x.size(1), 2, 4).transpose(1, 2) for layer, x in parts)
        return (q @ k.mT).softmax(-1) @ v


FOUND = {
    "a net for rectangles": (Steering(), {"x": "float32 3,104,112"}),
    "the state of a step by hand": (Step(), {"input": "float32 57", "hidden": "float32 24"}),
    "several graphs": (Graphs(), {"x": "float32 30,16", "adj": "float32 30,30"}),
    "a mask for scores": (Scored(), {"src": "int64 24", "src_mask": "bool 1,24"}),
    "a flattened image's side follows from the linear layer": (Convolutional(), {"x": "float32 3,32,32"}),
    "also when the flattening is a view over the batch": (Viewed(), {"x": "float32 3,32,32"}),
    "of one channel": (Convolutional(1, 16 * 4 * 4), {"x": "float32 1,28,28"}),
    "a net that flattens its input takes images": (Flattening(), {"x": "float32 1,28,28"}),
    "of three channels where that fits": (Flattening(3072), {"x": "float32 3,32,32"}),
    "a net that does not takes rows": (nn.Sequential(nn.Linear(784, 9)), {"input": "float32 784"}),
    "a squeezed channel was there": (Rows(), {"image": "float32 1,24,28"}),
    "a classifier of signals": (nn.Sequential(nn.Conv1d(2, 4, 9), nn.AdaptiveAvgPool1d(1)), {"input": "float32 2,256"}),
    "ids are single for users and items": (TwoTables(), {"user": "int64 ", "item": "int64 "}),
    "a padding mask": (Masked(), {"x": "float32 24,8", "key_padding_mask": "bool 24"}),
    "a mask that is computed with": (Kept(), {"ids": "int64 24", "attention_mask": "float32 24"}),
    "the state of an LSTM is a pair": (
        Stateful(),
        {"x": "float32 24,9", "state.0": "float32 32,12", "state.1": "float32 32,12"},
    ),
    "a time for each image": (Diffusion(), {"x": "float32 3,32,32", "t": "float32 "}),
    "an asserted length, and targets that give a loss": (Language(), {"idx": "int64 11", "targets": "int64 11"}),
    "a data object of a graph": (FromData(), {"data.edge_index": "int64 90", "data.x": "float32 5"}),
    "parts that are concatenated share the width": (Critic(), {"state": "float32 7", "action": "float32 7"}),
    "images that are concatenated share the channels": (
        Pair(),
        {"image": "float32 3,32,32", "condition": "float32 3,32,32"},
    ),
    "an image keeps three channels beside a vector": (Attributes(), {"x": "float32 3,32,32", "c": "float32 5"}),
    "also parts of which one is whole numbers": (
        Codes(),
        {"noise": "float32 25", "labels": "int64 25", "code": "float32 24"},
    ),
    "an image as large as what is made from noise": (Noisy(), {"img": "float32 3,20,20", "z": "float32 10"}),
    "sizes that a view spells out": (Spelled(), {"x": "float32 6,5"}),
    "query, key and value": (Heads(), dict.fromkeys("qkv", "float32 24,16")),
    "a position table gives the image's side": (Patches(), {"x": "float32 3,40,40"}),
    "a dict by the keys that forward reads": (
        ByKey(),
        {"batch.features": "float32 6", "batch.category_ids": "int64 24"},
    ),
    "a transformer takes sequences, not one sample": (Unbatched(), {"x": "float32 24,7"}),
    "half-precision weights": (nn.Sequential(nn.Linear(8, 4)).double(), {"input": "float64 8"}),
}


@pytest.mark.parametrize("case", FOUND)
def test_inputs_are_found_from_the_model_alone(case: str) -> None:
    model, expected = FOUND[case]
    found = inferred(model)
    assert forms(found) == expected
    assert {used.source for used in found.inputs} == {"guessed"}
    model(*found.args, **found.kwargs)


def test_a_view_may_spell_out_the_batch_as_well() -> None:
    assert inferred(Spelled(batch=2)).inputs[0].shape == (2, 6, 5)


def test_ids_reach_over_the_whole_table_of_each_input() -> None:
    found = inferred(TwoTables())
    assert [used.values for used in found.inputs] == ["<50", "<70"]


def test_ids_stay_below_the_smallest_table_that_takes_them() -> None:
    found = inferred(Offset())
    assert found.inputs[0].values == "<36"


def test_a_mask_that_hides_everything_is_turned_round() -> None:
    found = inferred(Masked())
    assert not found.args[1].any()


def test_torch_s_attention_says_what_masks_it_wants_and_each_is_open() -> None:
    found = inferred(Translator())
    length, batch = found.args[0].shape
    wanted = [(length, length)] * 2 + [(batch, length)] * 3
    assert [tuple(mask.shape) for mask in found.args[2:]] == wanted
    assert not any(mask.any() for mask in found.args[2:])


def test_a_mask_that_keeps_is_all_ones() -> None:
    found = inferred(Kept())
    assert bool((found.args[1] == 1).all())


def test_the_batch_is_32_for_a_small_net_and_8_for_a_slow_one() -> None:
    slow = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 5), nn.AdaptiveAvgPool2d(1))
    assert inferred(nn.Linear(6, 2)).inputs[0].shape[0] == 32
    assert inferred(slow).inputs[0].shape[0] in (6, 8)


STEMS = {
    224: nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)),
    32: nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)),
    64: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), *(nn.Conv2d(4, 4, 3, 2, 1) for _ in range(3))),
}


@pytest.mark.parametrize("side", STEMS)
def test_a_net_for_any_image_size_gets_the_one_its_downsampling_is_made_for(side: int) -> None:
    assert inferred(STEMS[side]).inputs[0].shape[-1] == side


def test_a_loss_that_the_model_returns_is_noticed() -> None:
    assert inferred(Language()).loss == "own"
    assert inferred(nn.Linear(3, 2)).loss is None


def test_equal_seeds_draw_equal_inputs_and_others_do_not() -> None:
    found = inferred(nn.Linear(5, 2))
    (first,), (again,), (other,) = (found.draw(seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_neither_the_model_nor_the_random_state_changes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    inferred(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training and all(p.grad is None for p in model.parameters())


def test_lazy_layers_keep_waiting_for_their_shape() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    assert forms(inferred(model)) == {"input": "float32 3,32,32"}
    assert isinstance(model[-1].weight, nn.UninitializedParameter)


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        with self.lock:
            return self.norm(x)


def test_a_model_that_cannot_be_copied_is_left_as_it_was() -> None:
    model = Locked()
    assert forms(inferred(model)) == {"x": "float32 5"}
    assert model.norm.num_batches_tracked == 0 and not model.norm.running_mean.any()


# ---- what the user, the model or its file says


def test_given_specs_are_used_as_they_are() -> None:
    found = feed(Diffusion(), settings("t=float32[4]~U(5,6)", "float32[4,3,16,16]"))
    assert [(used.name, used.shape, used.source) for used in found.inputs] == [
        ("x", (4, 3, 16, 16), "cli"),
        ("t", (4,), "cli"),
    ]
    assert found.args[1].min() >= 5 and found.args[1].max() <= 6


def test_what_is_not_given_is_inferred_with_the_same_batch() -> None:
    found = feed(Diffusion(), settings("x=float32[4,3,16,16]"))
    assert [(used.name, used.shape, used.source) for used in found.inputs] == [
        ("x", (4, 3, 16, 16), "cli"),
        ("t", (4,), "guessed"),
    ]


def test_a_dotted_name_is_an_entry_of_a_dict() -> None:
    found = feed(ByKey(), settings("batch.features=float32[4,6]", "batch.category_ids=int64[4,3]<20"))
    assert {key: tuple(value.shape) for key, value in found.args[0].items()} == {
        "features": (4, 6),
        "category_ids": (4, 3),
    }


def test_given_ids_without_a_bound_get_the_table_s() -> None:
    assert feed(Language(), settings("int64[4,7]")).inputs[0].values == "<64"


def test_a_name_that_forward_does_not_take_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"'y': Linear\.forward has no such argument") as caught:
        feed(nn.Linear(3, 2), settings("y=float32[4,3]"))
    assert caught.value.hint == "it takes input"


def test_given_inputs_that_do_not_fit_are_an_input_error_with_the_model_s_own_message() -> None:
    with pytest.raises(InputError, match=r"Linear does not accept input=float32\[4, 5\]: .*cannot be multiplied"):
        feed(nn.Linear(3, 2), settings("float32[4,5]"))


class Impossible(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x, secret):
        if secret != "xyzzy":
            raise ValueError("the secret is wrong")
        return self.fc(x)


def test_what_the_model_itself_raises_is_an_error_of_its_forward_at_its_own_line() -> None:
    with pytest.raises(ForwardError) as caught:
        inferred(Impossible())
    assert caught.value.message.startswith("the forward of Impossible raised ValueError: the secret is wrong (with x=")
    assert "give them: --input 'x=float32[" in caught.value.hint
    source = Path(caught.value.span.path).read_text(encoding="utf-8").splitlines()
    assert source[caught.value.span.line - 1].strip() == 'raise ValueError("the secret is wrong")'


class Mismatched(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(5, 4)

    def forward(self, x):
        return self.b(self.a(x))


def test_when_nothing_fits_the_error_says_what_was_tried_and_what_to_give() -> None:
    with pytest.raises(InputError) as caught:
        inferred(Mismatched())
    assert "no inputs were found that Mismatched accepts" in caught.value.message
    assert "cannot be multiplied" in caught.value.message
    assert caught.value.hint.startswith("give them: --input 'x=float32[")


def test_lightning_s_example_is_taken() -> None:
    model = nn.Linear(7, 2)
    model.example_input_array = torch.zeros(5, 3, 7)
    found = inferred(model)
    assert (found.inputs[0].shape, found.inputs[0].source) == ((5, 3, 7), "example")


def test_timm_s_configuration_is_taken() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1))
    model.pretrained_cfg = {"input_size": (3, 96, 96)}
    assert inferred(model).inputs[0].shape[1:] == (3, 96, 96)


def test_a_call_in_the_file_is_taken() -> None:
    hints = SourceHints(calls=((ShapeHint((2, 40, 9), "float32"),),))
    found = inferred(nn.Linear(9, 2), hints)
    assert (found.inputs[0].shape[1:], found.inputs[0].source) == ((40, 9), "example")


def test_a_call_in_the_file_that_does_not_fit_is_repaired_or_left() -> None:
    hints = SourceHints(calls=((ShapeHint((2, 3, 8, 8), "float32"),),))
    assert forms(inferred(Convolutional(), hints)) == {"x": "float32 3,32,32"}


def test_a_shape_in_a_docstring_gives_the_rank() -> None:
    hints = SourceHints(shapes=(ShapeHint(("N", "T", 3), origin="docstring"),))
    assert forms(inferred(nn.Linear(3, 2), hints)) == {"input": "float32 24,3"}


def test_a_model_on_meta_gets_meta_inputs() -> None:
    with torch.device("meta"):
        model = Convolutional()
    found = inferred(model)
    assert found.args[0].is_meta and found.inputs[0].shape[1:] == (3, 32, 32)


class Dated(nn.Module):
    """The features of a series' steps, and of the hour and the month at which each was taken."""

    def __init__(self):
        super().__init__()
        self.values = nn.Conv1d(5, 16, 3, padding=1)
        self.hour, self.month = nn.Embedding(24, 16), nn.Embedding(13, 16)

    def forward(self, x, mark):
        x, mark = self.values(x.permute(0, 2, 1)).transpose(1, 2), mark.long()
        return x + self.hour(mark[:, :, 3]) + self.month(mark[:, :, 0])


class Calendar(nn.Module):
    """A forecast from dated values; what is to come is dated as well."""

    def __init__(self):
        super().__init__()
        self.past, self.future, self.out = Dated(), Dated(), nn.Linear(16, 5)

    def forward(self, x_enc, x_mark_enc, x_dec, x_mark_dec):
        return self.out(self.future(x_dec, x_mark_dec) + self.past(x_enc, x_mark_enc).mean(1, keepdim=True))


def test_numbers_that_are_made_indices_and_picked_by_their_place_are_whole_and_as_many_as_picked() -> None:
    found = inferred(Calendar())
    for values, marks in (found.args[:2], found.args[2:]):
        assert isinstance(values, torch.Tensor)
        assert isinstance(marks, torch.Tensor)
        assert values.shape[-1] == 5
        assert marks.shape[-1] >= 4
        assert marks.dtype == torch.int64
        assert marks.shape[:2] == values.shape[:2]


class Recurrent(nn.Module):
    """A net whose first argument is where its recurrence starts from, and whose second holds the steps."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(7, 5)
        self.out = nn.Linear(5, 7)

    def forward(self, hidden, X):
        outputs, hidden = self.rnn(X.transpose(0, 1), hidden)
        return self.out(outputs[-1])


class Coarse(nn.Module):
    """A net that joins its features to a smaller copy of the image."""

    def __init__(self):
        super().__init__()
        self.down, self.out = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8 + 3, 3, 1)

    def forward(self, x, x_lr):
        return self.out(torch.cat((self.down(x), x_lr), 1))


class Enlarging(nn.Module):
    """A net that enlarges one of its inputs to the size of the other."""

    def __init__(self):
        super().__init__()
        self.fc, self.conv = nn.Linear(20, 8), nn.Conv2d(3 + 3, 8, 3)

    def forward(self, x, step, low):
        x = torch.cat((x, F.interpolate(low, x.shape[-2:], mode="bilinear")), 1)
        return self.conv(x) + self.fc(step)[..., None, None]


class Asserting(nn.Module):
    """A net of one length that says so after it was halved."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, stride=2, padding=1)
        self.register_buffer("table", torch.randn(50, 8))

    def forward(self, x):
        x = self.conv(x).permute(0, 2, 1)
        assert x.shape[1:] == self.table.shape, "incorrect length"
        return x + self.table


class Forecast(nn.Module):
    """A forecast that is linear over the steps of each series, of which the model knows how many there are."""

    def __init__(self):
        super().__init__()
        self.seq_len = 48
        self.fc = nn.Linear(48, 12)

    def forward(self, x_enc, x_mark_enc, x_dec):
        assert x_enc.dim() == 3
        mean = x_enc.mean(1, keepdim=True)
        return self.fc((x_enc - mean).permute(0, 2, 1)).permute(0, 2, 1) + mean + torch.zeros(x_dec.shape[-1]).sum()


DEPENDENT: dict[str, tuple[nn.Module, dict[str, str]]] = {
    "a hidden state first": (Recurrent(), {"hidden": "float32 {B},5", "X": "float32 {T},7"}),
    "an image at another resolution": (Coarse(), {"x": "float32 3,224,224", "x_lr": "float32 3,56,56"}),
    "an image that is enlarged": (
        Enlarging(),
        {"x": "float32 3,32,32", "step": "float32 20", "low": "float32 3,32,32"},
    ),
    "a series of a stated length": (
        Forecast(),
        {"x_enc": "float32 48,48", "x_mark_enc": "float32 48", "x_dec": "float32 48"},
    ),
    "an asserted length": (Asserting(), {"x": "float32 3,100"}),
}


@pytest.mark.parametrize("case", DEPENDENT)
def test_inputs_that_depend_on_each_other_or_on_what_the_model_asserts_are_found(case: str) -> None:
    model, wanted = DEPENDENT[case]
    found = inferred(model)
    batch, steps = next((u.shape[0], u.shape[1]) for u in reversed(found.inputs))
    assert forms(found) == {name: form.format(B=batch, T=steps) for name, form in wanted.items()}
