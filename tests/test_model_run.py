"""The model's flags in a run: configs/llama_tiny.yaml, recompute, older checkpoints."""

import csv
from pathlib import Path

import pytest
import torch
from conftest import TOY

import train
from model import TinyGPT
from model.convert import config_to_hf
from utils.config import read_yaml, settings_from
from utils.training.checkpoint import load_checkpoint
from utils.training.models import load_model
from utils.training.step import TrainStep

ROOT = Path(__file__).parents[1]
LLAMA = ["--pos", "rope", "--norm", "rmsnorm", "--mlp", "swiglu", "--bias", "false"]
LLAMA += ["--n_kv_head", "1", "--tie_weights", "false", "--window", "5", "--qk_norm"]


def losses(run):
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as f:
        return [(row["step"], row["train_loss"]) for row in csv.DictReader(f) if row["train_loss"]]


def test_llama_tiny_is_a_llama():
    """By transformers' own account: its config.json can be written, with grouped heads, untied."""
    config = settings_from(read_yaml(ROOT / "configs" / "llama_tiny.yaml")).model
    theirs = config_to_hf(config)
    assert theirs["model_type"] == "llama"
    assert theirs["hidden_act"] == "silu"
    assert theirs["num_key_value_heads"] == 2 < theirs["num_attention_heads"]
    assert not theirs["tie_word_embeddings"]
    assert not theirs["attention_bias"]
    names = set(TinyGPT(config).state_dict())
    assert not any(name.endswith("bias") for name in names)
    assert {"blocks.0.mlp.gate.weight", "head.weight"} <= names


def test_recompute_changes_nothing_but_the_memory(text_file, capfd):
    """The same losses to the bit, dropout included, and it is not part of the model."""
    args = ["--data", str(text_file), "--steps", "4", "--log_every", "1", "--dropout", "0.2"]
    for name in ("kept", "again"):
        more = ["--recompute"] if name == "again" else []
        assert train.main([*args, *TOY, *LLAMA, "--run", name, *more]) == 0
    runs = text_file.parent / "runs"
    assert losses(runs / "kept") == losses(runs / "again")
    assert len(losses(runs / "kept")) == 4
    a, b = (load_model(runs / name, "last")[0] for name in ("kept", "again"))
    assert a.config == b.config
    assert a.config.window == 5
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert "attention by sdpa" in capfd.readouterr().out


def test_recompute_reaches_the_model(text_file, monkeypatch):
    found = []

    def step(self, batches, message):
        found.append(self.model.activation_checkpointing)
        return 1, 1, [message()]

    monkeypatch.setattr(TrainStep, "__call__", step)
    for flags in ([], ["--recompute"]):
        train.main(["--data", str(text_file), "--steps", "1", *TOY, *flags])
    assert found == [False, True]


@pytest.mark.parametrize("attn", ["naive", "sdpa"])
def test_the_road_is_said(text_file, capfd, attn):
    train.main(["--data", str(text_file), "--steps", "1", *TOY, "--attn", attn])
    assert f"attention by {attn}\n" in capfd.readouterr().out


def test_a_checkpoint_from_before_a_flag_existed_goes_on(toy_run, error_of):
    """What it does not name is at its default: resumed as the model that it is, or refused."""
    path = toy_run / "last.pt"
    checkpoint = load_checkpoint(path)
    for name in ("norm", "norm_at", "mlp", "window", "n_kv_head", "qk_norm", "norm_eps"):
        del checkpoint["model_config"][name]
    torch.save(checkpoint, path)
    resume = ["--run", "my", "--resume", "--steps", "8"]
    said = error_of(train.main, *resume, "--norm", "rmsnorm")
    assert "of another model: norm layernorm there, rmsnorm here" in said
    assert train.main(resume) == 0
    assert load_checkpoint(path)["step"] == 8
    assert load_checkpoint(path)["model_config"]["norm"] == "layernorm"
