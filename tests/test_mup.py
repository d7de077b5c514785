"""muP: scales by hand, the same model at the base width, the coordinate check, and resuming."""

import pytest
import torch
from conftest import TOY

import train
from model import GPTConfig, TinyGPT
from utils.config import OptimConfig, settings_from
from utils.training.checkpoint import TrainState, load_checkpoint
from utils.training.mup import optimizer_for, scale_init
from utils.transfer.coordinates import growth

FREE = [*TOY, "--tie_weights", "false"]


def model_of(width, **kwargs):
    torch.manual_seed(0)
    shape = {
        "vocab_size": 30,
        "block_size": 8,
        "n_layer": 2,
        "d_model": width,
        "n_head": width // 16,
    }
    return TinyGPT(GPTConfig(**{**shape, "tie_weights": False, "emb_conv": 2, **kwargs}))


def scales(model, optimizer):
    """{name of a parameter: what its learning rate is multiplied by}"""
    names = {id(p): name for name, p in model.named_parameters()}
    groups = optimizer.param_groups
    return {names[id(p)]: g.get("lr_scale", 1) for g in groups for p in g["params"]}


@pytest.mark.parametrize(("optimizer", "matrix"), [("adamw", 1 / 4), ("muon", 1 / 2)])
def test_scales_by_hand(optimizer, matrix):
    """Four times the base width: AdamW's matrices at 1/4, Muon's at 1/2, the head at 1/4."""
    model = model_of(64)
    config = OptimConfig(optimizer=optimizer, mup_width=16, weight_decay=0.3)
    made = optimizer_for(model, config, torch.float32)
    found = scales(model, made)
    assert len(found) == len(list(model.parameters()))
    assert sum(len(g["params"]) for g in made.param_groups) == len(found)  # each once
    for name, scale in found.items():
        kind = name.split(".")[-2] if "." in name else name
        if kind in ("qkv", "proj", "up", "down") and name.endswith("weight"):
            assert scale == matrix, name
        elif kind == "head":
            assert scale == 1 / 4
        else:  # embeddings, their convolution, biases, gains
            assert scale == 1, name
    decays = {g["weight_decay"] for g in made.param_groups if g["params"][0].ndim < 2}
    assert decays == {0.0}
    plain = optimizer_for(model, OptimConfig(optimizer=optimizer), torch.float32)
    assert all("lr_scale" not in g for g in plain.param_groups)


def test_initial_weights_by_hand():
    """Matrices over sqrt(4), the head over 4, the rest as it was drawn."""
    before, after = model_of(64), scale_init(model_of(64), OptimConfig(mup_width=16))
    old = before.state_dict()
    for name, new in after.state_dict().items():
        by = 2 if "blocks" in name and new.ndim == 2 else 4 if name == "head.weight" else 1
        torch.testing.assert_close(new * by, old[name], rtol=1e-6, atol=0)
    same = scale_init(model_of(64), OptimConfig())
    assert all(torch.equal(v, old[k]) for k, v in same.state_dict().items())


def run_of(text, name, *flags):
    argv = ["--data", str(text), "--run", name, "--steps", "6", "--eval_every", "3", *FREE, *flags]
    assert train.main(argv) == 0
    return load_checkpoint(text.parent / "runs" / name / "last.pt")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_at_the_base_width_nothing_changes(text_file, optimizer):
    """To the bit: so a study trains the base width once."""
    how = ["--optimizer", optimizer]
    plain, mup = (run_of(text_file, f"m{w}", "--mup_width", w, *how) for w in ("0", "16"))
    for name, weight in plain["model"].items():
        assert torch.equal(weight, mup["model"][name]), name


def test_the_loop_multiplies_each_group_and_a_resumed_run_goes_on(text_file, monkeypatch):
    """The run that was stopped is the one that was not; another base width is refused."""
    whole = run_of(text_file, "whole", "--mup_width", "4", "--optimizer", "muon")
    groups = whole["optimizer"]["param_groups"]
    lrs = {g.get("lr_scale", 1): g["lr"] for g in groups}
    assert set(lrs) == {1, 1 / 4, 1 / 2}
    assert lrs[1 / 4] == pytest.approx(lrs[1] / 4)
    assert lrs[1 / 2] == pytest.approx(lrs[1] / 2)
    plain = run_of(text_file, "plain", "--optimizer", "muon")
    assert not torch.equal(whole["model"]["head.weight"], plain["model"]["head.weight"])

    class Stopped(Exception):
        """Raised in place of a kill."""

    save = TrainState.save

    def stop(state, path, log, *rest):
        save(state, path, log, *rest)
        if state.step == 3 and path.name == "last.pt":
            raise Stopped

    monkeypatch.setattr("utils.training.checkpoint.TrainState.save", stop)
    flags = ["--mup_width", "4", "--optimizer", "muon"]
    with pytest.raises(Stopped):
        run_of(text_file, "part", *flags)
    monkeypatch.undo()
    monkeypatch.chdir(text_file.parent)
    with pytest.raises(ValueError, match="mup_width=8, but the run has 4; leave it out"):
        train.main(["--run", "part", "--resume", "--mup_width", "8"])
    assert train.main(["--run", "part", "--resume"]) == 0
    part = load_checkpoint(text_file.parent / "runs" / "part" / "last.pt")
    for name, weight in whole["model"].items():
        assert torch.equal(weight, part["model"][name]), name


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "add --tie_weights false"),
        ({"tie_weights": False, "lora": 2, "init": "a"}, "leave it out with --lora"),
        ({"tie_weights": False, "parallel": "fsdp", "sample": 0}, "use --parallel ddp"),
        ({"tie_weights": False, "mup_width": -1}, "must be 0 or more"),
    ],
)
def test_what_it_does_not_go_with(values, why):
    with pytest.raises(ValueError, match=why):
        settings_from({"mup_width": 64, **values})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_coordinate_check(optimizer):
    """From 32 to 128 wide no activation moves further with muP; the standard way most do."""
    mup, standard = (
        growth(
            OptimConfig(optimizer=optimizer, lr=0.01, mup_width=width, weight_decay=0),
            (32, 128),
            seeds=(1, 2),
        )
        for width in (32, 0)
    )
    assert max(mup.values()) < 0.25
    for name in ("attention", "mlp", "logits"):
        assert standard[name] > 0.5


@pytest.mark.parametrize("kind", ["matrices", "head"])
def test_the_coordinate_check_sees_a_scale_that_is_missing(kind):
    """Without one of the learning rates' scales, activations grow."""

    def wrong(model, config, dtype):
        optimizer = optimizer_for(model, config, dtype)
        head = id(model.head.weight)
        groups = optimizer.param_groups
        for group in groups:  # the head goes with AdamW's group of Muon, and apart
            if any((id(p) == head) == (kind == "head") for p in group["params"]):
                group.pop("lr_scale", None)
        return optimizer

    optim = OptimConfig(optimizer="muon", lr=0.01, mup_width=32, weight_decay=0)
    found = growth(optim, (32, 128), seeds=(1,), make=wrong)
    assert found["logits" if kind == "head" else "mlp"] > 0.4
