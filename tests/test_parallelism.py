"""Two processes share a model out in five ways, as docs/parallelism.md says; bytes counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_ranks import free_port

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "parallelism.md").read_text(encoding="utf-8")
N, BLOCKS = 915_584, 787_456  # parameters of configs/tiny_adamw.yaml, and those in its blocks
STREAM = 6 * 192 * 128 * 4  # bytes of B T C in float32
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo"),
    pytest.mark.skipif(
        not hasattr(torch.cpu.Stream, "record_event"), reason="no FSDP on the CPU in this torch"
    ),
]


@pytest.fixture(scope="module")
def ranks():
    """What each of two ranks prints."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    env["PYTHONPATH"] = str(ROOT)
    processes = [
        subprocess.Popen(
            [sys.executable, ROOT / "tests" / "two_ranks_parallel.py"],
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for rank in range(2)
    ]
    done = [p.communicate(timeout=200) for p in processes]
    assert not any(p.returncode for p in processes), done
    return [json.loads(out) for out, _ in done]


def test_every_way_computes_what_one_process_does(ranks):
    for found in ranks:
        assert found.keys() == {"ddp", "fsdp", "tensor", "pipeline", "sequence"}
        for way, values in found.items():
            assert values["error"] <= 1e-6, way


def test_the_bytes_are_those_of_the_page(ranks):
    """Counted at each call, and equal to the formulas; the page has the same figures."""
    for rank, found in enumerate(ranks):
        sent = {way: values["sent"] for way, values in found.items()}
        assert sent["ddp"] == {"allreduce_": 4 * N}
        assert sent["fsdp"].pop("allgather_") < 100  # the message of the ranks, some numbers
        assert sent["fsdp"] == {
            "_allgather_base_": 4 * (N + BLOCKS),
            "_reduce_scatter_base_": 4 * N,
        }
        assert sent["tensor"] == {"allreduce_": STREAM}
        assert sent["pipeline"] == {"recv_" if rank else "send": STREAM}
        assert sent["sequence"] == {"allgather_": 2 * STREAM}
        assert found["ddp"]["held"] == 2 * found["fsdp"]["held"] == 16 * N
    for figure in (4 * N, 4 * (N + BLOCKS), STREAM, 2 * STREAM, 16 * N, 8 * N):
        assert f"{figure:,}" in PAGE
