"""Each lesson's training fails as it says, and its cure cures it; short here, in full if slow."""

import math
from importlib import import_module

import numpy as np
import pytest
import torch

from model.attention import causal_mask
from utils.failures.__main__ import LESSONS, main
from utils.failures.lab import History, Text, build, read_tiny, train
from utils.failures.outcome import Outcome, Panel, draw, said
from utils.failures.scores import rise as rise_of_val
from utils.failures.scores import see_future
from utils.failures.steps import rise, spoil_from
from utils.failures.units import dead_share, outputs, stream_sizes, unscale
from utils.training.lean import AdamW
from utils.training.objective import next_token

SHORT = {"mask": 60, "relu": 20, "residual": 2, "postnorm": 2, "tied": 2}  # steps


@pytest.fixture(scope="module")
def text():
    tiny = read_tiny()
    return Text(tiny.train, tiny.val[:2000], tiny.V)


def lesson(name):
    return getattr(import_module(f"utils.failures.{LESSONS[name].module}"), LESSONS[name].function)


@pytest.mark.parametrize("name", SHORT)
def test_the_fault_shows_and_the_cure_cures(name, text):
    outcome = lesson(name)(text, SHORT[name])
    assert outcome.shown, str(outcome)


@pytest.mark.parametrize("name", ["lr", "warmup"])
def test_a_step_that_is_too_long_costs_half_a_nat(name, text):
    """After 40 steps; the frequencies of pairs, the bar of the whole lesson, take more."""
    values = lesson(name)(text, 40).values
    assert values["broken"] > values["mended"] + 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", LESSONS)
def test_the_lesson_in_full(name, capsys):
    assert main([name, "--out", "pictures"]) == 0
    assert "the fault shows" in capsys.readouterr().out


def test_the_training_is_train_pys(text, text_file):
    """The same losses as a loop by hand: AdamW, warmup, clipping, nothing else."""
    from data.loader import batch_at
    from utils.failures.lab import FASTER, ROWS, SEED
    from utils.training.optim import lr_at

    history = train(build(text), text, 4, optim=FASTER)
    model = build(text)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0}]
    optimizer = AdamW(groups, betas=(0.9, 0.99))
    for step, loss in enumerate(history.losses):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, 4, FASTER)
        batch = batch_at(text.train, step, block_size=64, batch_size=ROWS, seed=SEED)
        nats, count = next_token(model, batch)
        assert float((nats / count).detach()) == pytest.approx(loss, abs=1e-5)
        optimizer.zero_grad()
        (nats / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def test_a_training_that_breaks_off_says_where(text):
    """A loss that is not finite ends it, and counts as infinite."""

    def poison(step, batch):
        if step == 2:
            with torch.no_grad():
                model.head.weight.fill_(math.nan)
        return batch

    model = build(text)
    history = train(model, text, 4, spoil=poison)
    assert history.ended.startswith("step 2: ")
    assert len(history.losses) == 2
    assert history.last == math.inf


def test_without_the_mask_the_future_is_read(text):
    model = see_future(build(text), True)
    idx = torch.arange(20).view(2, 10)
    other = idx.clone()
    other[:, -1] = 0
    assert not torch.equal(model(idx)[0][:, 0], model(other)[0][:, 0])
    see_future(model, False)
    assert torch.equal(model(idx)[0][:, 0], model(other)[0][:, 0])
    assert not causal_mask(2, 2)[0, 1]


def test_dead_units_are_counted(text):
    """Half of the first layer's units pushed far down, all of the second's: three quarters."""
    model = build(text, mlp="relu")
    assert dead_share(model, text) == 0
    with torch.no_grad():
        model.blocks[0].mlp.up.bias[::2] = -100
        model.blocks[1].mlp.up.bias.fill_(-100)
    assert dead_share(model, text) == 0.75
    assert not any(block._forward_hooks for block in model.blocks[0].modules())


def test_without_scaling_the_stream_grows_as_a_sum_of_independent_terms(text):
    """24 layers: 48 terms add 48 times the variance that they add when each is over sqrt(48)."""
    model = build(text, n_layer=24, d_model=32)
    std = model.config.emb_std
    first = float(outputs(model, [model.tok_emb], text)[0].std() / std) ** 2
    scaled = stream_sizes(model, text)[-1] ** 2 - first
    grown = stream_sizes(unscale(model), text)[-1] ** 2 - first
    assert grown / scaled == pytest.approx(48, rel=0.5)
    assert len(outputs(model, list(model.blocks), text)) == 24


def test_wild_batches_come_in_a_row():
    spoil = spoil_from(3, 7)
    batch = torch.zeros(2, 4), torch.ones(2, 4)
    assert [bool((spoil(step, batch)[0] == 7).all()) for step in range(10)] == [
        *[False] * 3, *[True] * 6, False
    ]  # fmt: skip
    assert spoil(2, batch)[1] is batch[1]
    losses = [2.0] * 10 + [9.0] * 6 + [3.0] * 10
    assert rise(losses, 10) == 1.0
    assert rise_of_val(History(val={0: 3.0, 5: 1.0, 9: 1.5})) == 0.5


def test_a_lesson_says_when_its_fault_does_not_show(tmp_path, monkeypatch, capsys):
    panels = [Panel("a", "x", {"broken": [1.0, 2.0], "mended": {0: 1.0, 5: 2.0}}, log=True)]
    panels.append(Panel("b", "", {"broken": [1.0, 2.0]}, names=("one", "two")))
    good = Outcome("share", {"broken": 2.0, "mended": 1.0}, 1.0, panels)
    bad = Outcome("share", {"broken": 2.0, "mended": 1.1}, 1.0, panels, ["a note"])
    assert good.shown
    assert not bad.shown
    assert str(bad).split("\n")[0].endswith("THE FAULT DOES NOT SHOW")
    assert str(bad).endswith("  a note")
    assert said({"a": 0.5, "b": np.float64(1)}, ".0%") == "a 50%, b 100%"
    draw(good, "title", tmp_path / "new" / "x.png")
    assert (tmp_path / "new" / "x.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("utils.failures.units.tied_head", lambda text, steps: bad)
    assert main(["tied"]) == 1
    assert "DOES NOT SHOW" in capsys.readouterr().out
    assert (tmp_path / "runs" / "failures" / "tied.png").exists()


def test_wrong_input_is_one_line(error_of, capfd):
    assert "did you mean mask?" in error_of(main, "maks")
    assert "steps=3" in error_of(main, "mask", "--steps", "3")
    assert main(["--list"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == len(LESSONS)
