"""Two processes, as torchrun starts them, learn what one learns alone; DDP, FSDP, checkpoints."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TOY, make_text

import train
from utils.distributed import SINGLE, apply_fsdp, wrap_ddp
from utils.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def train_on_two(runs, line, number):
    """Train by two processes, and signal one when that line is said: [(stdout, stderr, status)]."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    env["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, ROOT / "tests" / "two_ranks.py", json.dumps(runs)]
    ranks = [
        subprocess.Popen(
            command,
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for rank in range(2)
    ]
    said = []
    for text in ranks[0].stdout:
        said.append(text)
        if text.startswith(line):
            ranks[1].send_signal(number)  # one alone: the other must learn of it
    return [(*rank.communicate(timeout=100), rank.returncode) for rank in ranks], "".join(said)


def train_rows(run):
    with open(Path("runs") / run / "metrics.csv", encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def train_losses(run):
    return [float(row["train_loss"] or row["val_loss"]) for row in train_rows(run)]


FLAGS = [*TOY, "--sample", "0", "--log_every", "1", "--eval_every", "4", "--n_layer", "2"]
FLAGS += ["--lr", "3e-3", "--min_lr", "3e-3", "--warmup", "0"]  # the same, however long the run
FLAGS += ["--dropout", "0"]  # which ranks draw differently


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
@pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="no FSDP on the CPU in this torch"
)
def test_two_ranks_are_one_with_twice_the_accumulation(text_file):
    """DDP and FSDP; saved by two and resumed by one, and the other way.

    A mixture: every rank but 0 died at the first evaluation, whose columns it did not know. Last a
    signal to one rank, which stops both at the same step, with a random state each.
    """
    flags = ["--data", str(text_file), *FLAGS]
    assert train.main([*flags, "--run", "one", "--accum", "4", "--steps", "8"]) == 0
    assert train.main([*flags, "--run", "early", "--accum", "4", "--steps", "4"]) == 0
    two = [*flags, "--accum", "2"]
    other = text_file.with_name("other.txt")
    other.write_text(make_text(5000)[::-1], encoding="utf-8")
    mixture = ["--mixture", f"{text_file}=2 {other}=1", *FLAGS, "--run", "mix", "--steps", "4"]
    forever = ["--steps", "1000000", "--eval_every", "1000000", "--dropout", "0.1"]
    done, said = train_on_two(
        [
            [*two, "--run", "ddp", "--steps", "8"],
            [*two, "--run", "fsdp", "--steps", "4", "--parallel", "fsdp"],
            ["--run", "fsdp", "--resume", "--steps", "8"],
            ["--run", "early", "--resume", "--steps", "8", "--accum", "2", "--parallel", "fsdp"],
            [*two, "--run", "late", "--steps", "4", "--parallel", "fsdp"],
            mixture,
            [*flags, "--run", "cut", *forever],
        ],
        "step 1/1000000",
        signal.SIGTERM,
    )
    for _, err, status in done:
        assert status == 143, err
        assert "error" not in err
    assert "ranks   2, by ddp" in said
    assert "ranks   2, by fsdp" in said
    assert "go on: torchrun --nproc_per_node=2 -- train.py --run runs/cut --resume" in said
    assert done[1][0] == ""  # only rank 0 is heard
    checkpoint = load_checkpoint(Path("runs/cut/last.pt"))
    assert int(train_rows("cut")[-1]["step"]) == checkpoint["step"]
    assert not torch.equal(*(state["cpu"] for state in checkpoint["rng"]))
    scored = train_rows("mix")[-1]
    assert float(scored["val_loss_my"]) > 0 < float(scored["val_loss_other"])
    assert train.main(["--run", "late", "--resume", "--steps", "8", "--accum", "4"]) == 0
    for run in ("ddp", "fsdp", "early", "late"):
        assert len(train_losses(run)) == 10
        assert train_losses(run) == pytest.approx(train_losses("one"), abs=1e-6), run
    one, two = (load_checkpoint(Path(f"runs/{r}/last.pt"))["optimizer"] for r in ("late", "fsdp"))
    assert one["state"].keys() == two["state"].keys()
    assert one["state"][0]["exp_avg"].shape == two["state"][0]["exp_avg"].shape
    assert json.loads(Path("runs/ddp/summary.json").read_text("utf-8"))["ranks"] == 2


def test_alone_nothing_is_asked():
    assert SINGLE.all_gather([1.0, 2.0]) == [[1.0, 2.0]]
    assert SINGLE.broadcast([3]) == [3]
    assert SINGLE.gather_objects("x") == ["x"]
    model = torch.nn.Linear(2, 2)
    assert wrap_ddp(model, SINGLE, "ddp") is model
    assert apply_fsdp(model, None, SINGLE) is model
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_two_ranks_fine_tune_as_one_with_twice_the_accumulation(text_file):
    """From a model that is there, all of it, by adapters, by a teacher, or to be rounded.

    Saved by two, resumed by one.
    """
    assert train.main(["--data", str(text_file), *TOY, "--run", "base", "--steps", "4"]) == 0
    flags = ["--data", str(text_file), "--init", "base", "--sample", "0", "--log_every", "1"]
    flags += ["--device", "cpu", "--dtype", "float32", "--eval_every", "3", "--lr", "3e-3"]
    flags += ["--min_lr", "3e-3", "--warmup", "0", "--batch_size", "2"]
    ways = {"": [], "-lora": ["--lora", "2"], "-int8": ["--quantize", "int8"]}
    ways["-taught"] = ["--teacher", "base", "--distill_alpha", "0.8"]
    for name, own in ways.items():
        one = [*flags, *own, "--run", f"one{name}", "--accum", "4", "--steps", "6"]
        assert train.main(one) == 0
    two = [*flags, "--accum", "2"]
    done, _ = train_on_two(
        [
            [*two, "--run", "two", "--steps", "6"],
            [*two, *ways["-lora"], "--run", "two-lora", "--steps", "3"],
            [*two, *ways["-int8"], "--run", "two-int8", "--steps", "6"],
            [*two, *ways["-taught"], "--run", "two-taught", "--steps", "3", "--parallel", "fsdp"],
            [*two, *ways["-taught"], "--run", "ddp-taught", "--steps", "6"],
            [*flags, "--run", "cut", "--steps", "1000000", "--eval_every", "1000000"],
        ],
        "step 1/1000000",
        signal.SIGTERM,
    )
    for _, err, status in done:
        assert status == 143, err
    for run in ("two-lora", "two-taught"):
        assert train.main(["--run", run, "--resume", "--steps", "6", "--accum", "4"]) == 0
    for run in ways:
        assert train_losses("two" + run) == pytest.approx(train_losses("one" + run), abs=1e-6), run
    assert train_losses("ddp-taught") == pytest.approx(train_losses("one-taught"), abs=1e-6)
    assert train_losses("one") != pytest.approx(train_losses("one-lora"), abs=1e-4)
