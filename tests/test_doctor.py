"""python -m utils.doctor: each diagnosis finds its fault, and none finds one in a healthy run."""

import copy
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from data.sampler import BatchSampler
from tok.cli import cores
from utils.config import settings_from
from utils.doctor import __main__ as doctor
from utils.doctor import curves, inside, machine, text
from utils.doctor.record import binned, read
from utils.training.budget import Clock

TINY = Path(__file__).parent.parent / "data" / "tiny.txt"
STORIES = TINY.read_text(encoding="utf-8")
SMALL = {"tokenizer": "char", "n_layer": 2, "n_head": 4, "d_model": 64, "block_size": 64}
SMALL |= {"batch_size": 12, "lr": 0.01, "min_lr": 0.001, "warmup": 10, "mlp": "relu"}
SMALL |= {"steps": 160, "eval_every": 40, "sample": 0, "device": "cpu", "dtype": "float32"}


def trained(characters="", **values):
    """A run of SMALL settings and others, on a text in my.txt, as the doctor reads it."""
    Path("my.txt").write_text(characters or STORIES, encoding="utf-8")
    settings = {**SMALL, "data": str(Path("my.txt").resolve()), "run": "my", **values}
    train.run(settings_from(settings))
    return read(Path("runs") / settings["run"])


def titles(record):
    return [finding.title for finding in doctor.examine(record)]


CPU_SECONDS = (*Clock.__init__.__defaults__[:2], time.process_time)


@pytest.fixture(autouse=True)
def own_clock(monkeypatch):
    """Seconds of this process: whatever else the machine does, a run's times are its own."""
    monkeypatch.setattr(Clock.__init__, "__defaults__", CPU_SECONDS)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A healthy run, which the tests put faults into."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("sound")
        patch.setattr("data.hashes.CACHE", folder / "cache")
        patch.chdir(folder)
        patch.setattr(Clock.__init__, "__defaults__", CPU_SECONDS)
        yield trained()


def test_a_healthy_run_has_nothing(sound):
    assert doctor.examine(sound) == []
    assert sound.steps == 160
    assert min(loss for _, loss in sound.curves["val_loss"]) < sound.bigram < sound.uniform


def test_a_curve_in_bins_by_hand():
    curve = [(10, 4.0), (20, 2.0), (30, 1.0), (40, 3.0), (50, 5.0)]
    assert binned(curve, 2) == [pytest.approx(7 / 3), 4]
    assert binned(curve) == [4, 2, 1, 3, 5]
    assert binned([]) == []


# The learning rate


def test_a_learning_rate_that_is_too_high():
    found = curves.too_high(trained(lr=0.3, min_lr=0.03, steps=100))
    assert found.severity == "serious"
    assert "lr=0.3" in found.seen
    assert "--lr 0.1" in found.cure


def test_a_training_that_diverged_before_it_saved_anything():
    found = trained(lr=1e30, warmup=0, grad_clip=0.0, steps=20)
    assert found.missing == ["layers: there is no checkpoint"]
    (diverged,) = doctor.examine(found)
    assert "training diverged" in diverged.title
    assert "--grad_clip 1" in diverged.cure


def test_spikes_and_a_rise(sound):
    many = replace(sound, spikes=7)
    assert "7 loss spikes in 160 steps" in curves.too_high(many).seen
    losses = [(s, loss + (2 if s > 120 else 0)) for s, loss in sound.curves["train_loss"]]
    risen = replace(sound, curves={**sound.curves, "train_loss": losses})
    assert "rose by" in curves.too_high(risen).seen


def test_a_loss_that_lies_still_until_lr_falls(sound):
    """Seen at lr=0.3: 4.73 from step 40 to 60, and down to 4.32 as lr went to 0. By hand: ln V is
    3.95, lr is near its highest in rows 1 to 6, and from row 4 on nothing comes of it."""
    lr = [0.3] * 6 + [0.2, 0.1]
    losses = [3.5, 3.0, 2.9, 2.90, 2.90, 2.89, 2.7, 2.6]
    rows = {"train_loss": losses, "lr": lr}
    shown = {name: list(enumerate(values, 1)) for name, values in rows.items()}
    still = replace(sound, curves={**sound.curves, **shown})
    assert curves.stuck(still) == 2.89
    assert "lay still at 2.89" in curves.too_high(still).seen
    falls = {**still.curves, "train_loss": list(enumerate([*losses[:5], 2.8, 2.7, 2.6], 1))}
    assert curves.too_high(replace(still, curves=falls)) is None
    assert curves.too_high(replace(still, bigram=2.7)) is None  # it has learnt enough


def test_a_learning_rate_that_is_too_low():
    record = trained(lr=1e-5, min_lr=1e-6, steps=100)
    found = curves.too_low(record)
    assert "lr=1e-05" in found.seen
    assert "--lr 3e-05" in found.cure
    assert curves.too_high(record) is None


def test_one_diagnosis_of_the_learning_rate_at_most(sound):
    """A loss that comes down like a line from where it had jumped: too high, not too low, too.

    By hand: a line from ln V = 3.95 has brought half of its fall at row 4 of 8.
    """
    rows = {"train_loss": [6.0, 5.0, 4.5, 4.0, 3.9, 3.7, 3.6, 3.5], "lr": [0.01] * 8}
    shown = {name: list(enumerate(values, 1)) for name, values in rows.items()}
    jumped = replace(sound, curves={**sound.curves, **shown})
    assert "above ln V" in curves.too_high(jumped).seen
    assert curves.too_low(jumped) is None
    points = [(i, 3.95 - 0.1 * i) for i in range(1, 9)]
    line = replace(jumped, curves={**jumped.curves, "train_loss": points})
    assert curves.too_high(line) is None
    assert "brought 50% of what was learnt" in curves.too_low(line).seen


def test_a_warmup_that_never_ends(sound):
    slow = replace(sound.settings.optim, warmup=200)
    found = curves.too_low(replace(sound, settings=replace(sound.settings, optim=slow)))
    assert "warmup=200: lr=0.01 was never reached" in found.seen


def test_a_start_worse_than_knowing_nothing():
    """A tied embedding from N(0, 1), the lesson `tied` of utils/failures."""
    record = trained(emb_std=1.0, steps=40)
    assert "--emb_std 0.02" in curves.start(record).cure
    assert curves.too_high(record) is None  # lowering that would not help


# The text


def test_a_text_learnt_by_heart():
    record = trained(STORIES[:2000], steps=240, eval_every=20)
    found = curves.overfitting(record)
    step = int(found.title.removeprefix("overfitting since step "))
    assert 0 < step < 240
    assert dict(record.curves["val_loss"])[step] == min(x for _, x in record.curves["val_loss"])
    assert "--patience 2" in found.cure
    assert "seen 102 times" in text.passes(record).title  # 240 steps of 768 tokens, of 1800


def test_validation_text_in_training():
    """The last tenth of a text, which validates, is a copy of its beginning."""
    half = STORIES[:20000]
    leaky = trained(half + half[:2300], steps=20)
    assert leaky.meta["val_overlap"] > 0.9
    found = text.leak(leaky)
    assert found.severity == "serious"
    assert "also stand in training" in found.seen
    clean = trained(STORIES[:22300], steps=20, run="clean")
    assert clean.meta["val_overlap"] > 0.1  # stories that repeat themselves are no leak
    assert text.leak(clean) is None


def test_a_vocabulary_that_is_too_large():
    record = trained(STORIES[:9000], tokenizer="bpe", vocab=900, steps=12)
    found = text.vocabulary(record)
    ids = set(range(256, record.vocab_size)) - set(record.data.tokenizer.special_tokens.values())
    assert f"{len(ids - set(record.data.train.tolist())):,} never" in found.seen
    assert int(found.cure.split()[-1]) < 900
    assert "loss above the bigram baseline" in titles(record)  # after 12 steps


def test_a_loss_that_pairs_beat(sound):
    found = text.above_bigram(replace(sound, bigram=1.0))
    assert "frequencies of pairs 1.000" in found.seen


# The layers


def with_model(record, change):
    """The same run with another model."""
    model = copy.deepcopy(record.model)
    with torch.no_grad():
        change(model)
    return replace(record, model=model)


def test_dead_units(sound):
    broken = with_model(sound, lambda model: model.blocks[1].mlp.up.bias.fill_(-99.0))
    (found,) = doctor.examine(broken)
    assert found.title == "dead layer: block 2"
    assert "100% of the MLP's units" in found.seen
    assert "--mlp gelu" in found.cure


def test_a_layer_that_explodes(sound):
    broken = with_model(sound, lambda model: model.blocks[1].mlp.down.weight.mul_(1e7))
    assert "exploding layer: block 2" in titles(broken)
    assert "exploding layer: block 1" not in titles(broken)


def test_layers_without_a_gradient():
    rows = {"block 1": {"grad_norm": 1e-5}, "block 2": {"grad_norm": 0.5}, "block 3": {}}
    assert "no gradient reaches block 1" in inside.gradients(rows, "post").title
    assert inside.gradients(rows, "post").cure == "--norm_at pre"
    assert inside.gradients({**rows, "block 1": {"grad_norm": 0.1}}, "pre") is None


def test_weights_that_are_no_numbers(sound):
    broken = with_model(sound, lambda model: model.blocks[0].mlp.up.weight[0].fill_(np.nan))
    (found,) = doctor.examine(broken)
    assert "blocks.0.mlp.up.weight" in found.seen


def test_a_model_that_looks_ahead(sound):
    def unmask(model):
        for block in model.blocks:
            block.attn.causal = False

    assert "the model looks ahead" in titles(with_model(sound, unmask))


# The machine


def test_slow_data(monkeypatch):
    monkeypatch.setattr(Clock.__init__, "__defaults__", (*CPU_SECONDS[:2], time.perf_counter))
    batches = BatchSampler.batches

    def slow(self, step):
        time.sleep(0.03)
        return batches(self, step)

    monkeypatch.setattr(BatchSampler, "batches", slow)
    assert "s for batches" in machine.slow_data(trained(steps=20)).seen


def test_more_time_beside_training(sound):
    seconds = {"steps": 9.0, "data": 1.0, "evaluation": 30.0, "saving": 1.0}
    found = machine.outside(replace(sound, seconds_in=seconds))
    assert "most in evaluation (30)" in found.seen
    assert "--eval_every" in found.cure
    assert machine.outside(replace(sound, seconds_in={**seconds, "steps": 60.0})) is None


def test_emulated_precision(sound, monkeypatch):
    settings = replace(sound.settings, train=replace(sound.settings.train, dtype="bfloat16"))
    record = replace(sound, settings=settings)
    monkeypatch.setattr("utils.device.bfloat16_gain", lambda: 0.05)
    assert "20 x as long as float32" in machine.emulated(record).seen
    monkeypatch.setattr("utils.device.bfloat16_gain", lambda: 3.0)
    assert machine.emulated(record) is None


def test_threads_that_fight():
    threads = torch.get_num_threads()
    torch.set_num_threads(cores() + 3)
    try:
        record = trained(STORIES[:3000], steps=2, eval_every=2)
    finally:
        torch.set_num_threads(threads)
    found = machine.threads(record)
    assert found.seen == f"{cores() + 3} threads on {cores()} cores"
    assert f"OMP_NUM_THREADS={cores()}" in found.cure
    ranks = {"machine": {"threads": "2", "cores": "4"}, "ranks": 3}
    assert "OMP_NUM_THREADS=1" in machine.threads(replace(record, summary=ranks)).cure
    assert machine.threads(replace(record, summary={**ranks, "ranks": 2})) is None


def test_overflows(sound):
    found = machine.overflows(replace(sound, summary={**sound.summary, "overflows": 20}))
    assert found.seen == "20 of 160 steps were skipped"


# The command


def test_what_is_said(text_file, toy_run, capfd, error_of):
    doctor.main(["my"])
    out = capfd.readouterr().out.split("runs/my: ")[-1]
    assert out.startswith("6 steps (steps), validation loss 5.6")
    assert "\n\nserious  loss above the bigram baseline\n    seen lowest" in out
    assert "\n     try " in out
    text_file.unlink()
    (toy_run / "summary.json").unlink()
    doctor.main([])
    out = capfd.readouterr().out
    assert "6 steps (not finished)" in out
    assert "not looked at: the text: " in out
    assert "no runs/none/metrics.csv" in error_of(doctor.main, "none")


LLAMA = {"pos": "rope", "norm": "rmsnorm", "mlp": "swiglu", "n_kv_head": 2, "bias": False}
SPEEDRUN = {"pos": "rope", "qk_norm": True, "zero_init": True, "emb_std": 0.1, "mlp": "relu2"}
SPEEDRUN |= {"tie_weights": False, "optimizer": "muon", "lr": 0.015, "schedule": "trapezoid"}
HEALTHY = {
    "gpt2": {"mlp": "gelu", "lr": 0.005, "steps": 300},
    "llama": {**LLAMA, "steps": 250},
    "bpe": {**SPEEDRUN, "tokenizer": "bpe", "vocab": 400, "warmup": 0, "steps": 120},
    "window": {"pos": "none", "window": 24, "emb_conv": 3, "mlp": "geglu", "steps": 250},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found_in_healthy_runs(name):
    assert doctor.examine(trained(**HEALTHY[name])) == []


@pytest.mark.slow
def test_nothing_is_found_in_a_run_that_starts_from_another():
    assert doctor.examine(trained(steps=250, run="base")) == []
    assert doctor.examine(trained(init="base", run="tuned", steps=60, lr=1e-3)) == []


@pytest.mark.slow
def test_post_norm_without_a_gradient():
    """The lesson `postnorm` of utils/failures: it never leaves the frequencies of characters."""
    record = trained(n_layer=6, norm_at="post", warmup=30, steps=120, mlp="gelu")
    found = titles(record)
    assert "learning rate too high" in found
    assert "no gradient reaches block 1" in found
