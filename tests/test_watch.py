"""--watch: what watch.csv says of a model is what the model does, and looking changes nothing."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TOY
from toys import batch, toy

import train
from model.adapt.lora import add_lora
from model.adapt.lora_config import LoRAConfig
from model.inside import walk
from utils import plot
from utils.config import TrainConfig, read_yaml, settings_from
from utils.device import Device
from utils.reporting.events import Evaluation, Step
from utils.reporting.watch import Watch, dead, entropy, layers, measure
from utils.training.checkpoint import load_checkpoint
from utils.training.objective import next_token
from utils.training.score import Score

CPU = Device(torch.device("cpu"), torch.float32)
FLAGS = ["--steps", "5", "--eval_every", "2", "--dropout", "0.1", *TOY[:-4]]


def table(run):
    with open(Path(run) / "watch.csv", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def test_entropy_of_attention_by_hand():
    """Two rows of a batch: one averages all it sees (1), the other looks at one key (0)."""
    even = torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None]
    p = torch.stack((even, torch.eye(4)))[:, None]  # (B,H,T,T)
    assert entropy(p[:1]) == pytest.approx(1)
    assert entropy(p[1:]) == 0
    assert entropy(p) == pytest.approx(0.5)
    two = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]])[None, None]
    assert entropy(two, window=2) == pytest.approx(1)
    assert entropy(two) == pytest.approx((1 + math.log(2) / math.log(3)) / 2)


def test_dead_units_by_hand():
    hidden = torch.zeros(2, 3, 4)
    hidden[0, 1, 0] = hidden[1, 2, 1] = 5.0  # units 2 and 3 do nothing anywhere
    hidden[1, 0, 3] = 1e-6  # and this is nothing, too
    assert dead(hidden) == 0.5
    assert dead(torch.zeros(2, 3, 4)) == 1
    assert dead(torch.ones(2, 3, 4)) == 0


@pytest.mark.parametrize(
    "shape",
    [
        {"mlp": "relu", "bias": True},
        {"pos": "rope", "mlp": "swiglu", "n_kv_head": 1, "window": 3, "tie_weights": False},
        {"norm_at": "post", "pos": "sinusoidal", "emb_conv": 2, "dropout": 0.5},
    ],
    ids=["gpt", "llama", "post"],
)
def test_measured_figures_are_the_models(shape):
    """Gradients against backward(), sizes against `walk`; dropout is off, the mode comes back."""
    model, (x, y) = toy(**shape), batch(1)
    found = measure(model.train(), (x, y), CPU)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert list(found) == ["embedding", "block 1", "block 2", "head"]
    model.eval()
    nats, count = next_token(model, (x, y))
    (nats / count).backward()
    for name, params in layers(model).items():
        grads = [p.grad.square().sum() for p in params]
        if grads:
            assert found[name]["grad_norm"] == pytest.approx(float(sum(grads).sqrt()), rel=1e-5)
    assert sum(len(params) for params in layers(model).values()) == len(list(model.parameters()))
    with torch.no_grad():
        seen = [walk(model, row) for row in x]
    streams = torch.stack([stream for stream, _ in seen])  # (B,L+1,T,C)
    sizes = streams.square().mean((0, 2, 3)).sqrt()
    for name, wanted in zip(["embedding", "block 1", "block 2"], sizes, strict=True):
        assert found[name]["activation"] == pytest.approx(float(wanted), rel=1e-5)
    attention = torch.stack([attention for _, attention in seen], 1)  # (L,B,H,T,T)
    wanted = entropy(attention[1], model.config.window)
    assert found["block 2"]["attention_entropy"] == pytest.approx(wanted, rel=1e-5)


@torch.no_grad()
def test_a_dead_layer_and_a_blind_one_show():
    model = toy(mlp="relu")
    model.blocks[0].mlp.up.bias.fill_(-9.0)
    model.blocks[1].attn.qkv.weight.zero_()  # all scores 0: an average of all keys
    found = measure(model, batch(1), CPU)
    assert found["block 1"]["dead_units"] == 1
    assert found["block 2"]["dead_units"] < 0.5
    assert found["block 2"]["attention_entropy"] == pytest.approx(1)


@torch.no_grad()
def test_update_ratio_is_the_change_of_the_step_before(tmp_path):
    model = toy(tie_weights=False)
    watch = Watch(tmp_path, model, batch(1), CPU, every=2)
    score = Score(3.0, 1, 1)
    for step in range(1, 4):  # the run's last step is evaluated, too
        for p in model.blocks[1].parameters():
            p.mul_(1 + step / 10)
        watch(Step(step, 3, 1.0, 1.0, 1.0))
        if step > 1:
            watch(Evaluation(step, 3, 9, 1.0, score, {}, True))
    watch.close()
    ratios = [r["update_ratio"] for r in table(tmp_path) if r["layer"] == "block 2"]
    assert [float(r) for r in ratios] == pytest.approx([0.2, 0.3])
    assert {r["update_ratio"] for r in table(tmp_path) if r["layer"] == "block 1"} == {"0.0"}


def test_frozen_layers_have_no_gradient_and_no_update():
    model = toy()
    add_lora(model, LoRAConfig(lora=2), generator=torch.Generator().manual_seed(0))
    found = measure(model, batch(1), CPU)
    assert "grad_norm" not in found["embedding"]
    assert found["block 1"]["grad_norm"] > 0
    assert found["embedding"]["activation"] > 0


def test_watching_changes_nothing(text_file):
    """The same weights to the bit, dropout and samples included, and no file when it is off."""
    for name in ("off", "on"):
        flags = ["--watch"] if name == "on" else []
        assert train.main(["--data", str(text_file), "--run", name, *FLAGS, *flags]) == 0
    off, on = (load_checkpoint(Path("runs") / name / "last.pt") for name in ("off", "on"))
    assert all(torch.equal(off["model"][k], on["model"][k]) for k in off["model"])
    assert torch.equal(off["rng"][0]["cpu"], on["rng"][0]["cpu"])
    assert not Path("runs/off/watch.csv").exists()
    rows = table("runs/on")
    assert [r["step"] for r in rows if r["layer"] == "block 1"] == ["2", "4", "5"]
    assert all(0 < float(r["update_ratio"]) < 1 for r in rows if r["layer"] == "block 1")


def test_a_resumed_run_goes_on_with_its_rows(text_file):
    flags = ["--data", str(text_file), "--run", "r", *FLAGS, "--watch"]
    assert train.main(flags) == 0
    assert train.main(["--run", "r", "--resume", "--steps", "8"]) == 0
    steps = [r["step"] for r in table("runs/r") if r["layer"] == "block 1"]
    assert steps == ["2", "4", "5", "6", "8"]


def test_the_picture_of_the_layers(toy_run, text_file, capfd, error_of):
    settings = settings_from({**read_yaml(toy_run / "config.yaml"), "run": "w"})
    train.run(replace(settings, train=replace(settings.train, watch=True)))
    plot.main(["w", "--watch", "--out", "w.png"])
    assert Path("w.png").read_bytes().startswith(b"\x89PNG")
    curves = plot.read_watch(Path("runs/w"))
    assert list(curves) == ["embedding", "block 1", "head"]
    assert [step for step, _ in curves["block 1"]["dead_units"]] == [3, 6]
    assert "train with --watch" in error_of(plot.main, "my", "--watch")
    assert "name one" in error_of(plot.main, "my", "w", "--watch")


def test_shards_cannot_be_watched():
    with pytest.raises(ValueError, match="no whole layers to watch"):
        TrainConfig(parallel="fsdp", sample=0, watch=True)
