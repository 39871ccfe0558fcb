"""Two processes that share a model by FSDP2 measure what one process with the whole of it does."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

SCRIPT = """
    from types import SimpleNamespace

    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    import gradlint
    from gradlint.error import ProbeError
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
    try:
        probe(spread, graph=two, edits=(ParamEdit("3.weight", torch.zeros_like),))
        raise SystemExit("a shared parameter was edited")
    except ProbeError:
        pass
    report = gradlint.check(spread, x, loss="ce")
    assert report.targets[0].probe.ran and not report.count("error"), report
    print("the same in process", dist.get_rank())
    dist.destroy_process_group()
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
