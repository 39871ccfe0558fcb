"""Every kind of model that runs is captured whole, and recording changes neither its gradients nor the model."""

from __future__ import annotations

import copy
import math
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradlint.capture import capture, run, to_graph
from gradlint.capture.structure import flatten
from gradlint.graph.traversal import depth, is_weighted, reaches_output, residuals, series_ops
from gradlint.graph.verify import verify


class BasicBlock(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.down = None
        if stride != 1 or inputs != width:
            self.down = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.down is None else self.down(x)
        return self.relu(y)


class ResNet18(nn.Module):
    def __init__(self, classes=10, width=8):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks, inputs = [], width
        for stage in range(4):
            for block in range(2):
                blocks.append(BasicBlock(inputs, width << stage, 2 if stage and not block else 1))
                inputs = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        return self.fc(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))


class GPTBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln1, self.ln2, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1))

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(self.ln1(x)).split(c, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=0.1)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary=50, width=16, layers=3):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(32, width)
        self.blocks = nn.ModuleList(GPTBlock(width, 4) for _ in range(layers))
        self.ln = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, ids, targets=None):
        x = self.wte(ids) + self.wpe(torch.arange(ids.size(1)))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.ln(x))
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return {"logits": logits, "loss": loss}


class LSTMClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(40, 8)
        self.lstm = nn.LSTM(8, 6, num_layers=2, batch_first=True, bidirectional=True, dropout=0.2)
        self.fc = nn.Linear(12, 3)

    def forward(self, ids):
        out, _ = self.lstm(self.embedding(ids))
        return F.log_softmax(self.fc(out[:, -1]), dim=-1)


class DataDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, x):
        steps = 0
        while x.norm() > 1.0 and steps < 3:
            x = torch.tanh(self.a(x)) * 0.3
            steps += 1
        if x.mean() > 1e6:
            x = self.b(x)
        return [self.out(x)]


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense, self.embedding, self.head = nn.Linear(6, 8), nn.EmbeddingBag(10, 8), nn.Linear(16, 1)

    def forward(self, batch, pair):
        tokens, weights = pair
        x = torch.cat([self.dense(batch["x"]).relu_(), self.embedding(tokens)], dim=-1)
        return self.head(x * weights).sigmoid()


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.ParameterList(nn.Parameter(torch.randn(8, 8) * 0.3) for _ in range(4))

    def forward(self, x):
        x = F.gelu(x @ self.w[0])
        x = torch.special.expit(F.linear(x, self.w[1]))
        x = (x @ self.w[2].t()).tanh()
        return torch.einsum("bi,io->bo", x, self.w[3]).relu_()


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.encoder(x)


def ids(high=40):
    return torch.randint(0, high, (2, 7))


CASES = {
    "resnet18": lambda: (ResNet18(), (torch.randn(2, 3, 32, 32),), {}),
    "gpt": lambda: (GPT(), (ids(),), {"targets": ids()}),
    "lstm": lambda: (LSTMClassifier(), (ids(),), {}),
    "data dependent": lambda: (DataDependent(), (torch.randn(3, 6),), {}),
    "two inputs": lambda: (
        TwoInputs(),
        ({"x": torch.randn(2, 6)}, (torch.randint(0, 10, (2, 4)), torch.rand(2, 16))),
        {},
    ),
    "functional": lambda: (Functional(), (torch.randn(3, 8),), {}),
    "encoder": lambda: (Encoder(), (torch.randn(2, 5, 16),), {}),
}


def build(name):
    torch.manual_seed(0)
    model, args, kwargs = CASES[name]()
    return model.train(), args, kwargs


def loss_of(output):
    return sum(t.square().mean() for _, t in flatten(output) if t.requires_grad)


def gradients(model, forward):
    torch.manual_seed(1)
    loss_of(forward(model)).backward()
    return [p.grad for p in model.parameters()]


def identical(these, those):
    return all(a is b is None or torch.equal(a, b) for a, b in zip(these, those, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_recording_leaves_the_gradients_bit_identical(name):
    model, args, kwargs = build(name)
    bare = gradients(copy.deepcopy(model), lambda m: m(*args, **kwargs))
    recorded = gradients(copy.deepcopy(model), lambda m: run(m, args, kwargs).output)
    assert identical(bare, recorded)


@pytest.mark.parametrize("name", CASES)
def test_the_graph_is_well_formed_and_nothing_is_unknown(name):
    model, args, kwargs = build(name)
    graph, _ = capture(model, args, kwargs)
    assert verify(graph) == []
    assert graph.coverage.unknown == ()
    assert all(op.span is not None and op.span.path == __file__ for op in graph.ops)


@pytest.mark.parametrize("name", CASES)
def test_exactly_the_parameters_that_get_a_gradient_reach_the_output(name):
    model, args, kwargs = build(name)
    recording = run(model, args, kwargs)
    graph = to_graph(recording)
    loss_of(recording.output).backward()
    reached = {path for op in reaches_output(graph) for path in graph.ops[op].params}
    assert reached == {path for path, p in recording.names.params.items() if p.grad is not None}


@pytest.mark.parametrize("name", CASES)
def test_a_replay_gives_the_same_numbers(name):
    model, args, kwargs = build(name)

    class Shapes:
        def __init__(self):
            self.seen = []

        def on_output(self, index, outputs):
            self.seen.append((index, [tuple(t.shape) for t in outputs]))

    first, second = Shapes(), Shapes()
    torch.manual_seed(3)
    graph = to_graph(run(copy.deepcopy(model), args, kwargs, observer=first))
    torch.manual_seed(3)
    replay = run(copy.deepcopy(model), args, kwargs, record=False, observer=second)
    assert first.seen == second.seen
    assert replay.calls == len(graph.ops)
    assert replay.graph is None
    for op, (index, shapes) in zip(graph.ops, first.seen, strict=True):
        assert op.index == index
        assert [graph.values[value].shape for value in op.outputs][: len(shapes)] == shapes


def test_capture_leaves_the_model_and_the_random_state_as_they_were():
    model, args, _ = build("resnet18")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    capture(model, args)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_resnet18_has_its_layers_skips_and_depth():
    model, args, _ = build("resnet18")
    graph, _ = capture(model, args)
    kinds = [op.kind for op in graph.ops if op.kind in ("conv", "norm", "activation", "pool", "linear")]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "conv": 20,
        "norm": 20,
        "activation": 17,
        "pool": 2,
        "linear": 1,
    }
    assert len(residuals(graph)) == 8
    assert depth(graph) == 18
    weights = [graph.ops[op].module_path for op in series_ops(graph) if is_weighted(graph.ops[op])]
    assert weights == ["stem.0", "fc"]


def test_gpt_is_known_by_path_tying_and_shape():
    model, args, kwargs = build("gpt")
    graph, _ = capture(model, args, kwargs)
    assert graph.params["wte.weight"].shared_by == ("head.weight",)
    head = next(op for op in graph.ops if op.module_path == "head")
    assert (head.kind, head.params) == ("linear", ("wte.weight",))
    assert graph.output_names == ("logits", "loss")
    attention = [op for op in graph.ops if op.kind == "attention"]
    assert [op.module_path for op in attention] == ["blocks.0", "blocks.1", "blocks.2"]
    assert attention[0].attrs["causal"] is True
    assert attention[0].attrs["scale"] == pytest.approx(1 / math.sqrt(4))
    assert len(residuals(graph)) == 6


def test_an_lstm_is_one_op_with_named_weights():
    model, args, _ = build("lstm")
    graph, _ = capture(model, args)
    (lstm,) = [op for op in graph.ops if op.kind == "recurrent"]
    assert lstm.roles[:5] == ("input", "hidden", "cell", "weight_ih_l0", "weight_hh_l0")
    assert lstm.roles[-1] == "bias_hh_l1_reverse"
    assert lstm.attrs == lstm.attrs | {"function": "lstm", "hidden": 6, "layers": 2, "bidirectional": True, "inputs": 8}
    assert len(lstm.outputs) == 3


def test_a_function_is_captured_as_a_model_without_parameters():
    weight = torch.randn(3, 3, requires_grad=True)
    graph, _ = capture(lambda x: torch.tanh(x @ weight), (torch.randn(2, 3),))
    assert [op.kind for op in graph.ops] == ["linear", "activation"]
    (constant,) = [value for value in graph.values if value.origin == "constant"]
    assert constant.requires_grad
    assert graph.params == {}


def transformers_models():
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"input_ids": ids()}
    yield transformers.BertModel(transformers.BertConfig(**small, intermediate_size=32)), tokens
    llama = transformers.LlamaConfig(**small, intermediate_size=32, use_cache=False)
    yield transformers.LlamaForCausalLM(llama), tokens | {"labels": ids()}
    t5 = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, use_cache=False, decoder_start_token_id=0
    )
    yield transformers.T5ForConditionalGeneration(t5), tokens | {"labels": ids()}


def test_transformers_models_are_captured(monkeypatch):
    # torchvision beside a torch that it was not built for fails to import, and transformers imports it
    monkeypatch.setitem(sys.modules, "torchvision._meta_registrations", types.ModuleType("stub"))
    for model, kwargs in transformers_models():
        model.train()
        graph, _ = capture(model, (), kwargs)
        assert verify(graph) == []
        assert graph.coverage.unknown == ()
        assert sum(op.kind == "attention" for op in graph.ops) in (2, 6)
        bare = gradients(copy.deepcopy(model), lambda m, k=kwargs: m(**k))
        assert identical(bare, gradients(copy.deepcopy(model), lambda m, k=kwargs: run(m, (), k).output))
