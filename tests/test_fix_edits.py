"""Edits of every kind of site, on the files under tests/edits: `NAME.py` before, `NAME.after.py` afterwards."""

import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from gradlint.error import UsageError
from gradlint.finding import Change
from gradlint.fix.edits import edits
from gradlint.fix.edits.text import NoEditError, read, write
from gradlint.graph.ir import Span

FOLDER = Path(__file__).parent / "edits"


def at(path, mark):
    """The 1-based line that holds a text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if mark in line)


def swap(mark, name="", new="relu", old="sigmoid", place=0, of=1):
    return lambda path: Change("activation", new, old, name, Span(str(path), at(path, mark)), place, of)


def draw(module, scheme="kaiming_normal", gain=2**0.5, bias="zeros", kind="Linear", root="Net"):
    return lambda path: Change("init", scheme, module=module, types=(kind, root), gain=gain, bias=bias)


def keep(module, kind="Linear"):
    return lambda path: Change("untouched", module=module, types=(kind, "Net"))


def norm(mark, new, size, old="Linear", place=0, of=1, gain=1.0):
    return lambda path: Change(
        "norm", new, old, span=Span(str(path), at(path, mark)), place=place, of=of, gain=gain, size=size
    )


def around(mark, end, last="Tanh", of=1, place=0, partial=False, stride=0, old="Linear"):
    """A skip around members of a Sequential."""
    return lambda path: Change(
        "skip",
        old=old,
        stride=stride,
        span=Span(str(path), at(path, mark)),
        end=Span(str(path), at(path, end)),
        last=last,
        place=place,
        of=of,
        partial=partial,
    )


def later(change, module, *items):
    """A norm, or a skip, of the members at these positions of a list."""
    return lambda path: replace(change(path), module=module, items=items, types=(change(path).old, "Net"))


def added(mark, end, size=2, partial=False, stride=0, place=0, of=1):
    """A skip around calls in a forward."""
    return lambda path: Change(
        "skip",
        stride=stride,
        place=place,
        of=of,
        name="torch.nn.functional.linear",
        span=Span(str(path), at(path, mark)),
        end=Span(str(path), at(path, end)),
        size=size,
        partial=partial,
    )


def before(mark, old=""):
    """A norm that goes before the branch, in a forward or in a layer of torch's."""
    return lambda path: Change("prenorm", old=old, span=Span(str(path), at(path, mark)))


def final(mark, owner, old="", module="", new="LayerNorm"):
    """The final norm after a stack."""
    return lambda path: Change(
        "final-norm", new, old, span=Span(str(path), at(path, mark)), module=module, types=("", owner), size=4
    )


def guard(mark, old, name, gain=1e-6, place=0, of=1):
    return lambda path: Change("guard", "", old, name, Span(str(path), at(path, mark)), place, of, gain=gain)


def fuse(mark, new, old="log", last="softmax", place=0, of=1, axis=1):
    return lambda path: Change(
        "fuse", new, old, f"torch.{old}", Span(str(path), at(path, mark)), place, of, axis=axis, last=last
    )


def soft(mark, end, name):
    return lambda path: Change("soften", name=name, span=Span(str(path), at(path, mark)), end=Span("", at(path, end)))


def call(mark, old, new="identity"):
    return lambda path: Change("call", new, old, span=Span(str(path), at(path, mark)))


def one(module, scheme, gain=1.0, size=4, fans=(4, 4), rank=2):
    """One parameter drawn."""
    return lambda path: Change(
        "draw", scheme, module=module, types=("LSTM", "Net"), gain=gain, size=size, fans=fans, of=rank
    )


def parameter(name, scheme="", gain=1.0):
    """One of many parameters: drawn, or left as it is without a scheme."""
    if not scheme:
        return lambda path: Change("untouched", old=name)
    owner, _, last = name.rpartition(".")
    module = f"self.{owner}[{last}]" if last.isdigit() else f"self.{name}"
    return lambda path: replace(one(module, scheme, gain)(path), old=name, types=("", "Net"))


def member(owner, place, name, scheme, gain=1.0):
    """A parameter of a member of a list."""
    drawn = one(f"self.{owner}[{place}].{name}", scheme, gain, rank=2 - (name == "bias"))
    return lambda path: replace(drawn(path), old=f"{owner}.{place}.{name}", types=("", "Net"))


def replaced(change, **more):
    return lambda path: replace(change(path), **more)


def made(change, mark, kind="Sequential"):
    """The change for a model that a line makes and no class of the file."""
    return lambda path: replace(change(path), types=(change(path).types[0], kind), span=Span(str(path), at(path, mark)))


# The name of the file → the changes.
CASES = {
    "construction": [swap("self.act = nn.Sigmoid()")],
    "construction_imported": [swap("self.act = Sigmoid()", new="leaky_relu")],
    "functional": [
        swap("first", "torch.sigmoid", new="elu"),
        swap("second", "torch.nn.functional.sigmoid", new="elu"),
        swap("third", "torch.nn.functional.softmax", old="softmax"),
    ],
    "method": [swap("first", "torch.Tensor.sigmoid"), swap("second", "torch.Tensor.tanh", old="tanh", new="gelu")],
    "sequential": [swap("nn.Sequential", place=0, of=2)],
    "sequential_output": [swap("nn.Sigmoid", new="identity")],
    "list": [swap("in pair", of=1)],
    "comprehension": [swap("for _ in range", place=p, of=3) for p in range(3)],
    "factory": [swap("act_layer()", place=p, of=2, new="gelu") for p in range(2)],
    "string_dict": [swap("ACTS[activation]()")],
    "string_branch": [swap("return nn.Sigmoid()")],
    "string_getattr": [swap("self.act(self.fc(x))", "torch.sigmoid")],
    "loop_last": [swap("relu()", "torch.Tensor.relu", "identity", "relu", 1, 2)],
    "loop_rest": [swap("torch.sigmoid", "torch.sigmoid", place=0, of=2)],
    "output_call": [swap("return", "torch.sigmoid", new="identity")],
    "init_call": [draw("self.a"), draw("self.b")],
    "init_offset": [replaced(draw("self.a"), offset=True), replaced(draw("self.b"), offset=True)],
    "init_data": [draw("self.a", "orthogonal", 1.0), draw("self.b", "orthogonal", 1.0)],
    "init_by_name": [draw("self.main[0]", kind="Conv1d"), draw("self.main[-1]", kind="Conv1d")],
    "init_reset": [draw("self.seq[0]", bias=""), draw("self.seq[-1]", bias="")],
    "init_every_rank": [draw("self.a"), draw("self.b")],
    "init_each_by_name": [draw("self.a"), draw("self.b", "xavier_normal", 1.0)],
    "init_one_of_two": [draw("self.a"), draw("self.b")],
    "init_generated": [
        draw("self.conv1", kind="Conv2d"),
        draw("self.conv2", kind="Conv2d"),
        draw("self.fc1", bias="zeros"),
        keep("self.head"),
    ],
    "init_two_schemes": [draw("self.a"), draw("self.b"), draw("self.head", "xavier_normal", 1.0)],
    "init_parameter": [
        one("self.weight", "normal", 2**0.5),
        one("self.rnn.weight_ih_l0", "orthogonal", 1.0, 16),
        one("self.rnn.weight_hh_l0", "orthogonal_gates", 1.0, 16),
        one("self.rnn.bias_ih_l0", "forget_bias", 1.0, 16, (1, 1), 1),
        one("self.rnn.bias_hh_l0", "zeros", 1.0, 16, (1, 1), 1),
    ],
    "init_endings": [
        *(parameter(f"block{i}.proj.weight", "scale", 1 / 3) for i in range(9)),
        *(parameter(f"block{i}.{end}") for i in range(9) for end in ("inner.weight", "inner.bias", "proj.bias")),
    ],
    "init_parameter_list": [
        *(parameter(f"weights.{i}", "xavier_normal", 5 / 3) for i in range(3)),
        *(parameter(f"head.{end}") for end in ("weight", "bias")),
    ],
    "init_lists": [
        *(replaced(draw(f"self.up[{i}]"), old=f"up.{i}") for i in range(9)),
        *(replaced(draw(f"self.down[{i}][0]", "xavier_normal", 1.0), old=f"down.{i}.0") for i in range(9)),
        *(replaced(draw(f"self.down[{i}][-1]", "xavier_normal", 1.0, ""), old=f"down.{i}.1") for i in range(9)),
        replaced(draw("self.first", "xavier_normal", 1.0), old="first"),
        replaced(keep("self.head"), old="head"),
    ],
    "init_packed": [
        *(
            member("encoder.layers", i, name, "xavier_normal")
            for i in range(5)
            for name in ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
        ),
        parameter("first.weight", "xavier_normal"),
        parameter("head.weight"),
    ],
    "init_stranger": [draw("self.a"), draw("self.b")],
    "init_members": [
        member("body", 0, "kernel", "siren", 1.0),
        *(member("body", i, "kernel", "siren", 3.0) for i in range(1, 11)),
        *(member("body", i, "bias", "zeros") for i in range(11)),
        *(parameter(f"head.{end}") for end in ("kernel", "bias")),
    ],
    "init_gains": [
        *(
            lambda path, i=i: replace(
                draw(f"self.layers[{i}]", "orthogonal", 1 + i / 30, "zeros" * (i > 0))(path), place=i
            )
            for i in reversed(range(10))
        ),
        keep("self.head"),
    ],
    "init_each_gain": [draw(f"self.{name}", "orthogonal", gain) for name, gain in (("a", 1.1), ("b", 1.3), ("c", 2))],
    "init_own_method": [draw("self.a", "default", 1.0)],
    "init_module_level": [made(draw("self[0]", root="Sequential"), "the model"), made(keep("self[2]"), "the model")],
    "init_returned": [made(draw("self[0]", root="Sequential"), "return")],
    "norm_sequential": [norm("# first", "BatchNorm1d", 4), norm("in_features", "LayerNorm", 8)],
    "norm_list": [norm("rows += ", "BatchNorm1d", 4, place=p, of=3) for p in range(3)],
    "norm_append": [norm("# appended", "RMSNorm", 4, place=p, of=3) for p in range(3)],
    "norm_attribute": [norm("# attribute", "GroupNorm", 8, "Conv2d", gain=4)],
    "norm_comprehension": [norm("ModuleList", "LayerNorm", 4, place=p, of=3) for p in range(3)],
    "norm_variable": [norm("layer = ", "BatchNorm1d", 4, place=p, of=3) for p in range(3)],
    "norm_factory": [norm("return nn.Linear", "BatchNorm1d", w, place=p, of=2) for p, w in enumerate((8, 4))],
    "skip_sequential": [around("self.net = ", "self.net = ", of=2)],
    "skip_factory": [around("return nn.Sequential", "return nn.Sequential", partial=True)],
    "skip_projected": [
        around("# first", "# first", stride=1),
        around("# same", "# same"),
        around("# strided", "# strided", "ReLU", stride=2, old="Conv2d"),
    ],
    "skip_projected_factory": [around("return nn.Seq", "return nn.Seq", of=2, place=p, stride=1 - p) for p in (0, 1)],
    "skip_list": [around("rows += ", "rows += ", place=p, of=3) for p in range(3)],
    "skip_append": [around("rows.append(nn.Linear", "rows.append(nn.Tanh", place=p, of=3) for p in range(3)],
    "skip_call": [added("# nested", "# nested"), added("# inside", "# inside")],
    "skip_statements": [added("h = self.a", "h = F.relu")],
    "skip_loop": [added("torch.tanh", "torch.tanh", partial=True)],
    "skip_every_pass": [added("torch.tanh", "torch.tanh", place=p, of=3) for p in range(3)],
    "skip_tested": [added("x = layer", "torch.tanh", partial=True)],
    "skip_projected_call": [
        *(added("# several", "# several", stride=1 - p, place=p, of=2) for p in range(2)),
        added("# nested", "# nested", stride=2),
        added("# kept", "# added", stride=1),
        added("# method", "# method", stride=1),
    ],
    "later_comprehension": [
        change
        for p in range(3)
        for change in (
            later(norm("nn.Sequential", "BatchNorm1d", 4, place=p, of=4), "self.net", 2 * p, 2 * p, 7),
            later(around("nn.Sequential", "nn.Sequential", place=p, of=4), "self.net", 2 * p, 2 * p + 1, 7),
            swap("nn.Sequential", "", "relu", "tanh", p, 3),
            draw(f"self.net[{2 * p}]", "kaiming_normal"),
        )
    ]
    + [keep("self.net[-1]")],
    "later_named": [
        later(norm("rows = ", "LayerNorm", 8, place=1, of=2), "self.body", 1, 1, 4),
        later(around("rows = ", "rows = ", place=1, of=2), "self.body", 1, 2, 4),
    ],
    "later_own": [
        later(norm("self.first = ", "RMSNorm", 4, "Dense"), "self.first"),
        *(
            later(norm("self.rows = ", "RMSNorm", w, "Dense", p, 4), "self.rows", p, p, 4)
            for p, w in enumerate((8, 8, 6))
        ),
    ],
    "norm_skip": [
        change
        for p in range(3)
        for change in (
            norm("rows.append(nn.Linear", "BatchNorm1d", 4, place=p, of=3),
            around("rows.append(nn.Linear", "rows.append(nn.Sigmoid", "Sigmoid", place=p, of=3),
            swap("rows.append(nn.Sigmoid", place=p, of=3),
        )
    ],
    "prenorm_block": [
        *(before(mark) for mark in ("# first", "# second", "# third")),
        final("# third", "Net", "blocks", "self.blocks[-1].norm3"),
    ],
    "prenorm_sequential": [
        before("return self.norm"),
        final("return self.norm", "Net", "body", "self.body[-1].norm", "RMSNorm"),
    ],
    "prenorm_own": [before("# in the loop"), before("# last"), final("# last", "Net", module="self.norm")],
    "prenorm_torch": [
        before("nn.TransformerEncoderLayer(", "TransformerEncoderLayer"),
        before("nn.TransformerDecoderLayer(", "TransformerDecoderLayer"),
        before("self.both", "TransformerEncoderLayer"),
        before("self.both", "TransformerDecoderLayer"),
        final("nn.TransformerEncoder(", "TransformerEncoder"),
        final("nn.TransformerDecoder(", "TransformerDecoder"),
    ],
    "guard_call": [
        guard("# function", "log", "torch.log"),
        guard("# function", "acos", "torch.acos", 1e-3),
        guard("# method", "sqrt", "torch.Tensor.sqrt"),
    ],
    "guard_both": [guard("torch.cat", "log", "torch.log", of=1)],
    "guard_operator": [
        guard("# power", "pow", "torch.Tensor.__pow__"),
        guard("# quotient", "div", "torch.Tensor.div"),
    ],
    "fuse_log": [
        fuse("# inline", "log_softmax"),
        fuse("# several", "log_softmax", place=0, of=5),
        fuse("# several", "log_softmax", place=1, of=5),
        fuse("# several", "logsigmoid", last="sigmoid", place=2, of=5),
        fuse("# several", "negative_logsigmoid", last="sigmoid", place=3, of=5),
        fuse("# several", "negative_logsigmoid", last="sigmoid", place=4, of=5),
    ],
    "fuse_exp": [fuse("share = ", "softmax", "div", "exp"), fuse("log(total)", "logsumexp", last="exp")],
    "soften": [soft("# first", "# which", "table"), soft("# second", "# second", "other")],
    "loss_class": [lambda path: Change("loss", "bce_logits")],
    "loss_function": [lambda path: Change("loss", "ce")],
    "register": [
        lambda path, old=old, new=new: Change("register", new, old=old, types=("", "Net"))
        for old, new in (("blocks", "ModuleList"), ("heads", "ModuleList"), ("gain", "Parameter"))
    ],
    "shared_call": [call("# last", "relu")],
    "shared_factory": [
        lambda path: Change(
            "activation", "identity", "relu", "", Span(str(path), 5), 1, 2, module="self.b[-1]", types=("", "Net")
        )
    ],
    "both": [swap("nn.Sigmoid", place=p, of=2) for p in range(2)] + [draw("self.net[0]"), draw("self.net[2]")],
}


def changed(path, changes):
    source = read(path)
    return source, source.edited(edits(source, [change(path) for change in changes]))


@pytest.mark.parametrize("name", CASES)
def test_the_edit_of_a_site(name, request):
    _, after = changed(FOLDER / f"{name}.py", CASES[name])
    expected = FOLDER / f"{name}.after.py"
    if request.config.getoption("--update"):
        expected.write_bytes(after.raw)
    assert after.raw == expected.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_what_was_edited_builds_and_runs(name):
    import torch

    module = types.ModuleType("edited")
    exec(compile((FOLDER / f"{name}.after.py").read_bytes(), name, "exec"), module.__dict__)
    result = module.Net()(torch.randn(2, *getattr(module, "SHAPE", (4,))))
    assert all(len(each) == 2 for each in (result if isinstance(result, tuple) else (result,)))


OTHERS = ("init", "loop", "both", "norm", "skip", "prenorm", "later", "guard", "shared", "register")
SWAPS = [name for name in CASES if not name.startswith((*OTHERS, "fuse", "soften", "loss"))]


@pytest.mark.parametrize("name", SWAPS)
def test_a_second_time_there_is_nothing_left_to_swap(name):
    path = FOLDER / f"{name}.after.py"
    source = read(path)
    changes = [
        Change("activation", c.new, c.old, c.name, c.span, c.place, c.of)
        for c in (change(FOLDER / f"{name}.py") for change in CASES[name])
    ]
    with pytest.raises(NoEditError):
        edits(source, changes)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("prenorm") and "torch" not in name])
def test_a_second_time_no_sum_is_normalised(name):
    path = FOLDER / f"{name}.after.py"
    for line, text in enumerate(path.read_text().splitlines(), 1):
        if "final_norm" not in text:
            with pytest.raises(NoEditError):
                edits(read(path), [Change("prenorm", span=Span(str(path), line))])


def test_a_second_time_no_argmax_is_looked_up():
    path = FOLDER / "soften.after.py"
    for change in CASES["soften"]:
        again = change(FOLDER / "soften.py")
        with pytest.raises(NoEditError):
            edits(read(path), [again])


@pytest.mark.parametrize(
    "reader", ["def total(layer):\n    return layer.weight.sum()\n", ""], ids=["helper", "forward"]
)
def test_finished_layers_whose_weights_are_read_stay_as_they_are(tmp_path, reader):
    text = (FOLDER / "later_comprehension.py").read_text()
    text = text.replace("return self.net(x)", "return self.net(x) + self.net[0].weight.sum()") if not reader else text
    path = tmp_path / "net.py"
    path.write_text(text + reader)
    with pytest.raises(NoEditError):
        changed(path, CASES["later_comprehension"][:8:4])


def test_norm_first_is_given_once():
    path = FOLDER / "prenorm_torch.after.py"
    source = read(path)
    again = [change for change in (change(path) for change in CASES["prenorm_torch"]) if change.kind == "prenorm"]
    assert source.edited(edits(source, again)).raw == source.raw


def changes_at(path, line):
    """One change of every kind about a line that need not be about it."""
    span = Span(str(path), line)
    for old in ("Linear", "Conv2d", "sigmoid", "relu", "layers"):
        yield Change("activation", "relu", old, "", span, 0, 2, module="self.net[0]", types=("", "Net"))
        yield Change("activation", "identity", old, "torch.Tensor.sigmoid", span, 1, 2)
        yield Change("call", "identity", old, span=span)
        yield Change("norm", "BatchNorm1d", old, span=span, size=4)
        inner = {"module": "self.net", "types": (old, "Net"), "span": span}
        yield Change("norm", "GroupNorm", old, size=4, gain=2, items=(line, line, line + 2), **inner)
        yield Change("skip", old=old, end=span, last="Tanh", items=(0, line, line + 1), **inner)
        yield Change("prenorm", span=span)
        yield Change("prenorm", old=f"Transformer{old}", span=span)
        yield Change("final-norm", "LayerNorm", old, span=span, module="self.a", types=("", "Net"), size=4)
        yield Change("skip", old=old, span=span, end=replace(span, line=line + 1), last="Tanh", stride=1)
        yield Change("skip", name="torch.tanh", span=span, end=span, size=2, partial=line % 2 == 0)
        yield Change("skip", name="torch.tanh", span=span, end=replace(span, line=line + 1), size=2)
        yield Change("guard", "", "log" if line % 2 else "div", "torch.log", span, gain=1e-6)
        yield Change("fuse", "log_softmax", "log", "torch.log", span, line % 2, 1 + line % 2, last=old)
        yield Change("soften", name=old, span=span, end=span)
        yield Change("fuse", "softmax", "div", "torch.div", span, last="exp")
        yield Change("register", "ModuleList", old=old, types=("", "Net"))
        yield Change("draw", "orthogonal_gates", module="self.a", types=(old, "Sequential"), span=span, fans=(4, 4))
        yield Change("init", "default", module="self.a", types=(old, "Net"), span=span)


@pytest.mark.parametrize("name", CASES)
def test_a_change_that_is_about_nothing_here_is_refused_or_leaves_a_file_that_parses(name):
    path = FOLDER / f"{name}.py"
    source = read(path)
    for line in range(1, len(source.text.splitlines()) + 1):
        for change in changes_at(path, line):
            try:
                after = source.edited(edits(source, [change]))
            except NoEditError:
                continue
            compile(after.raw, name, "exec")


def test_bytes_outside_the_edit_are_kept(tmp_path):
    raw = (
        b"\xef\xbb\xbf# -*- coding: utf-8 -*-\r\n# \xce\xa3 caf\xc3\xa9 \xe6\xbc\xa2\r\nfrom torch import nn\r\n\r\n"
        b"class Net(nn.Module):\r\n\tdef __init__(self):  # type: () -> None\r\n\t\tsuper().__init__()\r\n"
        b"\t\tself.act\t=  nn.Sigmoid( )   # \xcf\x83 \r\n\x0c\r\n"
    )
    path = tmp_path / "net.py"
    path.write_bytes(raw)
    _, after = changed(path, [swap("nn.Sigmoid")])
    assert after.raw == raw.replace(b"Sigmoid", b"ReLU")


def test_generated_lines_take_the_file_s_line_ends_and_indentation(tmp_path):
    path = tmp_path / "net.py"
    path.write_bytes(
        b"from torch import nn\r\nclass Net(nn.Module):\r\n\tdef __init__(self):\r\n\t\tsuper().__init__()\r\n"
        b"\t\tself.a = nn.Linear(4, 4)  # last"
    )
    _, after = changed(path, [draw("self.a")])
    assert after.raw.count(b"\n") == after.raw.count(b"\r\n")
    assert b"# last\r\n\t\tself._init_weights()\r\n\r\n\tdef _init_weights(self):\r\n\t\tfor module" in after.raw


def test_norms_and_skips_keep_the_bytes_around_them(tmp_path):
    head = b"# \xce\xa3 caf\xc3\xa9\r\nfrom torch import nn\r\n\r\n"
    body = (
        b"class Net(nn.Module):\r\n\tdef __init__(self, w):  # type: (int) -> None\r\n\t\tsuper().__init__()\r\n"
        b"\t\tself.a\t=  nn.Linear( 4,w )   # \xcf\x83 \r\n"
        b"\t\tself.b = nn.Sequential(nn.Linear(w , w) ,  nn.Tanh( ))\r\n\r\n"
        b"\tdef forward(self, x):\r\n\t\treturn  self.b( self.a( x ) )\r\n"
    )
    path = tmp_path / "net.py"
    path.write_bytes(head + body)
    _, after = changed(path, [norm("self.a\t", "LayerNorm", 4), around("self.b = ", "self.b = ")])
    assert after.raw.count(b"\n") == after.raw.count(b"\r\n")
    assert after.raw.startswith(head + b"class Residual(nn.Sequential):\r\n\t")
    kept = body.replace(b"nn.Sequential", b"Residual")
    kept = kept.replace(b"\xcf\x83 \r\n", b"\xcf\x83 \r\n\t\tself.a_norm = nn.LayerNorm(w)\r\n")
    assert after.raw.endswith(kept.replace(b"self.a( x )", b"self.a_norm(self.a( x ))"))


def test_an_encoding_other_than_utf8_is_kept(tmp_path):
    raw = b"# coding: latin-1\nfrom torch import nn\nact = nn.Sigmoid()  # caf\xe9\n"
    path = tmp_path / "net.py"
    path.write_bytes(raw)
    source = read(path)
    after = source.edited(edits(source, [Change("activation", "relu", "sigmoid", span=Span(str(path), 3))]))
    assert after.raw == raw.replace(b"Sigmoid", b"ReLU")


def test_some_of_the_activations_that_a_loop_makes_cannot_be_swapped():
    path = FOLDER / "comprehension.py"
    with pytest.raises(NoEditError, match="should stay"):
        changed(path, [swap("for _ in range", place=0, of=3)])


def test_a_file_that_only_may_be_read_is_left_as_it_was(tmp_path):
    path = tmp_path / "net.py"
    path.write_bytes(b"from torch import nn\nact = nn.Sigmoid()\n")
    before, after = changed(path, [swap("nn.Sigmoid")])
    path.chmod(0o444)
    with pytest.raises(UsageError, match="read-only"):
        write(before, after)
    assert path.read_bytes() == before.raw
    assert [each.name for each in tmp_path.iterdir()] == ["net.py"]


def test_a_file_that_was_changed_meanwhile_is_left_as_it_is(tmp_path):
    path = tmp_path / "net.py"
    path.write_bytes(b"from torch import nn\nact = nn.Sigmoid()\n")
    before, after = changed(path, [swap("nn.Sigmoid")])
    path.write_bytes(b"# mine now\n")
    with pytest.raises(UsageError, match="changed meanwhile"):
        write(before, after)
    assert path.read_bytes() == b"# mine now\n"


def test_writing_keeps_the_mode_and_a_link(tmp_path):
    path, link = tmp_path / "net.py", tmp_path / "link.py"
    path.write_bytes(b"from torch import nn\nact = nn.Sigmoid()\n")
    path.chmod(0o750)
    link.symlink_to(path)
    write(*changed(link, [swap("nn.Sigmoid")]))
    assert link.is_symlink()
    assert b"nn.ReLU()" in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o750


def test_the_parent_s_side_never_imports_torch():
    import subprocess

    code = (
        "import sys, gradlint.fix.rounds, gradlint.fix.edits; sys.exit(bool({'torch', 'libcst'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False)
    assert run.returncode == 0
