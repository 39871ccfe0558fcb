"""Two processes that share a model by FSDP2 measure what one process with the whole of it does."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

SCRIPT = """
    import os
    from types import SimpleNamespace

    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    import gradlint
    from gradlint.probe import ParamEdit, measure
    from gradlint.probe.health import judge

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))


    def net():
        torch.manual_seed(0)
        blocks = [nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Tanh()) for _ in range(3)]
        return nn.Sequential(*blocks, nn.Linear(16, 5))


    def probe(model, **options):
        loaded = dict(model=model, args=(x,), kwargs={}, loss="ce", loss_hint=None, rebuild=None, draw=None)
        return measure(SimpleNamespace(**loaded), **options)


    def close(a, b):
        return a == b or abs(a - b) < 1e-4


    def layers(graph, table):
        return [table[op.outputs[0]] for op in graph.ops if op.kind in ("linear", "norm", "activation")]


    whole, spread = net(), net().eval()
    for block in spread[:3]:
        fully_shard(block, mesh=mesh)
    fully_shard(spread, mesh=mesh)
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    spread[0][0].weight.grad = torch.ones_like(spread[0][0].weight)
    mean = spread[0][1].running_mean.clone()
    (one, known), (two, found) = probe(whole), probe(spread)

    assert two.params.keys() == one.params.keys()
    for path, param in known.params.items():
        other = found.params[path]
        assert other.status == param.status == "ok"
        assert close(other.grad, param.grad) and close(other.weight, param.weight), path
        assert close(two.params[path].std, one.params[path].std), path
    for table in ("activation", "gradient"):
        pair = layers(one, getattr(known.profile, table)), layers(two, getattr(found.profile, table))
        assert all(map(close, *pair)) and len(pair[0]) == len(pair[1]), table
    assert close(judge(one, known).m, judge(two, found).m)

    assert not spread.training and torch.equal(spread[0][1].running_mean, mean)
    assert torch.equal(spread[0][0].weight.grad.full_tensor(), torch.ones(16, 16))
    before = spread[3].weight.full_tensor()
    doubled = (ParamEdit("3.weight", lambda weight: 2 * weight),)
    pair = [probe(model, graph=graph, edits=doubled)[1] for model, graph in ((whole, one), (spread, two))]
    assert all(close(pair[0].params[path].grad, pair[1].params[path].grad) for path in pair[0].params)
    assert not close(pair[1].params["3.weight"].weight, found.params["3.weight"].weight)
    assert torch.equal(spread[3].weight.full_tensor(), before)


    def zero_head():
        model = net()
        nn.init.zeros_(model[3].weight)
        return model


    def deep():
        torch.manual_seed(0)
        layers = [layer for _ in range(12) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
        return nn.Sequential(*layers, nn.Linear(16, 5))


    def shared(model):
        for part in model:
            if any(True for _ in part.parameters()):
                fully_shard(part, mesh=mesh)
        return fully_shard(model, mesh=mesh)


    def said(report):
        target = report.targets[0]
        losses = target.trace.losses if target.trace else ()
        rules = [(f.rule, f.verdict, [fix.title for fix in f.fixes]) for f in report.findings]
        return target.target, rules, [round(loss, 4) for loss in losses]


    for make in (zero_head, deep):
        for options in ({}, {"probe": False}, {"steps": 3}, {"dtype": "bf16"}):
            alone, spread = make(), shared(make())
            reports = [gradlint.check(model, x, loss="ce", **options) for model in (alone, spread)]
            assert said(reports[0]) == said(reports[1]), (make, options, *map(str, reports))
            assert reports[1].targets[0].probe.ran or not options.get("probe", True)
            same = zip(alone.parameters(), spread.parameters(), strict=True)
            assert all(torch.equal(a, b.full_tensor()) and b.grad is None for a, b in same), options
    print(f"the same in process {dist.get_rank()}\\n", end="", flush=True)  # one write: two processes share the pipe
    dist.barrier()
    os._exit(0)  # going down in order, FSDP2 over gloo ends in "terminate called" one time in four, with any script
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_processes_measure_what_one_does(tmp_path):
    (tmp_path / "shared.py").write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "shared.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the same in process 0" in done.stdout
    assert "the same in process 1" in done.stdout
