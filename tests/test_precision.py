"""In which precision a run computes: asked for, or found by trial, and kept from then on."""

from pathlib import Path

import pytest
import torch
from conftest import TOY
from test_bench import NANO, TOYS

import train
from utils import device as devices
from utils.bench.peers import NanoGPT
from utils.chaos import equal
from utils.config import read_yaml
from utils.device import Device, bfloat16_gain, fastest, pick_device
from utils.distributed import Distributed
from utils.session import Session
from utils.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent
AUTO = [*TOY, "--dtype", "auto", "--sample", "0"]


def of_gain(monkeypatch, gain):
    """Let this CPU multiply so many times as fast in bfloat16."""
    for module in ("device", "session"):
        monkeypatch.setattr(f"utils.{module}.bfloat16_gain", lambda: gain)


@pytest.mark.parametrize(
    ("half", "gain", "products"), [(30.0, 1 / 30, 12), (0.5, 2.0, 24), (4.0, 0.25, 24)]
)
def test_the_trial_by_hand(monkeypatch, half, gain, products):
    """A product takes 1 s in float32; what emulates bfloat16 is not asked for larger ones."""
    now, calls = [0.0], []

    def product(x, y):
        calls.append((len(x), x.dtype))
        now[0] += 1.0 if x.dtype == torch.float32 else half
        now[0] += 9.0 * (len(calls) == 1)  # the first is slower, whatever it is
        return x

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    monkeypatch.setattr(devices.time, "perf_counter", lambda: now[0])
    before = torch.get_rng_state()
    assert bfloat16_gain.__wrapped__() == pytest.approx(gain)
    assert len(calls) == products
    assert calls[-1] == (128 if gain < 0.2 else 512, torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), before)  # a trial must not change what is drawn


@pytest.mark.parametrize(("gain", "dtype"), [(0.03, "float32"), (1.4, "float32"), (2, "bfloat16")])
def test_a_cpu_trains_in_what_is_faster(gain, dtype):
    assert fastest(pick_device("cpu"), lambda: gain).precision == dtype
    other = Device(torch.device("cuda"), torch.float16)
    assert fastest(other, lambda: 1 / 0) is other


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_no_config_forces_a_precision(path):
    """One forced bfloat16: 246 s instead of 15 on a CPU that emulates it."""
    assert read_yaml(path).get("dtype", "auto") == "auto"


def test_an_emulation_says_what_it_costs(text_file, monkeypatch, capfd):
    of_gain(monkeypatch, 1 / 12)
    said = "bfloat16 is emulated on this CPU: products take 12 x as long as float32"
    flags = ["--data", str(text_file), *AUTO, "--steps", "1"]
    for more, times in ((["--dtype", "bfloat16"], 1), ([], 0)):
        for way in ([], ["--dry-run"]):
            assert train.main([*flags, *more, *way]) == 0
            assert capfd.readouterr().out.count(said) == times
    of_gain(monkeypatch, 2.0)
    assert pick_device("cpu", "bfloat16").cost() == ""


def test_a_run_keeps_the_precision_it_began_with(text_file, monkeypatch):
    """To the bit, on a machine that would choose another, too; config.yaml still says auto."""
    of_gain(monkeypatch, 2.0)
    flags = ["--data", str(text_file), *AUTO, "--eval_every", "3"]
    for run, steps in (("whole", "6"), ("cut", "3")):
        assert train.main([*flags, "--run", run, "--steps", steps, "--schedule", "trapezoid",
                           "--cooldown", "0", "--warmup", "0"]) == 0  # fmt: skip
    assert read_yaml("runs/cut/config.yaml")["dtype"] == "auto"
    of_gain(monkeypatch, 0.1)
    assert train.main(["--run", "cut", "--resume", "--steps", "6"]) == 0
    whole, cut = (load_checkpoint(Path(f"runs/{name}/last.pt")) for name in ("whole", "cut"))
    assert cut["settings"]["dtype"] == "bfloat16"
    assert equal(whole["model"], cut["model"])
    assert train.main(["--run", "cut", "--resume", "--steps", "7", "--dtype", "float32"]) == 0
    assert load_checkpoint(Path("runs/cut/last.pt"))["settings"]["dtype"] == "float32"


def test_a_run_from_before_the_trial_goes_on_in_float32(text_file, monkeypatch):
    """Its checkpoint says auto, which on a CPU was float32."""
    assert train.main(["--data", str(text_file), *AUTO, "--run", "old", "--steps", "2"]) == 0
    checkpoint = load_checkpoint(Path("runs/old/last.pt"))
    checkpoint["settings"]["dtype"] = "auto"
    torch.save(checkpoint, "runs/old/last.pt")
    of_gain(monkeypatch, 2.0)
    assert train.main(["--run", "old", "--resume", "--steps", "3"]) == 0
    assert load_checkpoint(Path("runs/old/last.pt"))["settings"]["dtype"] == "float32"


def test_ranks_compute_in_the_precision_of_the_first(text_file, monkeypatch):
    _, settings = train.parse(["--data", str(text_file), *AUTO])
    of_gain(monkeypatch, 0.1)
    monkeypatch.setattr(Distributed, "broadcast", lambda self, values: [2.0])
    session = Session(settings, pick_device("cpu"), Distributed())
    assert session.device.dtype == torch.bfloat16


def test_nanogpt_trains_in_float32_on_a_cpu(tmp_path, monkeypatch):
    """As its own loop does; beside a step in bfloat16 it was measured in bfloat16, too."""
    (tmp_path / "model.py").write_text(NANO, encoding="utf-8")
    nano = NanoGPT(str(tmp_path), TOYS, Device(torch.device("cpu"), torch.bfloat16))
    seen = []
    real = nano.model.forward
    monkeypatch.setattr(
        nano.model,
        "forward",
        lambda *args: seen.append(torch.is_autocast_enabled("cpu")) or real(*args),
    )
    nano.step()
    assert seen == [False]
