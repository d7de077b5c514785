"""train.py --init: going on from a model that is there, whole or by adapters."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TOY, make_text

import eval as eval_script
import sample
import train
from utils.training.checkpoint import load_checkpoint
from utils.training.models import load_model, weights_sha256

FREE = ["--device", "cpu", "--dtype", "float32", "--sample", "0", "--batch_size", "4"]
FREE += ["--eval_every", "3", "--warmup", "0", "--lr", "3e-3"]


@pytest.fixture
def other_text(tmp_path):
    path = tmp_path / "other.txt"
    path.write_text(make_text(9000)[3000:].upper().lower().replace("cat", "cow"), encoding="utf-8")
    return path


@pytest.fixture
def tune(toy_run, other_text):
    """Train from the toy run on another text; gives the run's directory."""

    def call(*flags, init="my", run="tuned", steps=6):
        own = ["--data", str(other_text), "--init", init, "--run", run, "--steps", str(steps)]
        assert train.main([*own, *FREE, *flags]) == 0
        return Path("runs") / run

    return call


def logits(run, which="best"):
    model, tokenizer, _ = load_model(run, which)
    ids = torch.tensor(
        [tokenizer.encode("the old dog")[:8], tokenizer.encode("a red barn")[:8]][:1]
    )
    return model.eval()(ids)[0]


def test_the_first_step_starts_from_the_weights_of_the_run(tune, toy_run):
    run = tune("--lr", "1e-12", steps=1)
    torch.testing.assert_close(logits(run, "last"), logits(toy_run), atol=1e-6, rtol=0)
    assert (run / "tokenizer.json").read_text() == (toy_run / "tokenizer.json").read_text()
    assert load_checkpoint(run / "last.pt")["base"] is None


def test_model_and_tokenizer_are_those_of_the_source(tune, text_file):
    own = ["--data", str(text_file), "--run", "gpt2", "--steps", "1", "--pos", "learned"]
    assert train.main([*own, *TOY]) == 0
    for flags in ([], ["--lora", "2"]):
        run = tune("--block_size", "12", *flags, init="gpt2")
        settings = load_checkpoint(run / "last.pt")["settings"]
        assert (settings["d_model"], settings["block_size"]) == (16, 12)
        assert settings["tokenizer"] == "runs/gpt2/tokenizer.json"
        assert load_model(run)[0].pos_emb.weight.shape == (12, 16)  # of 16 learned positions


def test_another_shape_is_refused(tune, error_of, other_text):
    flags = ["--data", other_text, "--init", "my", "--n_layer", "3"]
    assert "n_layer=3, but runs/my has n_layer=1" in error_of(train.main, *flags)


def test_adapters_alone_are_saved_and_stand_on_their_base(tune, toy_run):
    run = tune("--lora", "2")
    checkpoint = load_checkpoint(run / "last.pt")
    assert checkpoint["model"]
    assert all(".lora_" in name for name in checkpoint["model"])
    assert checkpoint["base"]["sha256"] == weights_sha256(toy_run / "best.pt")
    assert checkpoint["base"]["run"] == "runs/my"
    assert not torch.equal(logits(run), logits(toy_run))


def test_without_a_step_adapters_change_nothing(tune, toy_run):
    run = tune("--lora", "2", "--lr", "1e-12", steps=1)
    torch.testing.assert_close(logits(run, "last"), logits(toy_run), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--lora", "3", "--lora_dropout", "0.2"],
        ["--lora", "3", "--dtype", "bfloat16"],
        ["--dtype", "bfloat16"],
    ],
)
def test_a_resumed_run_is_equal_to_the_bit(tune, flags):
    own = [*flags, "--cooldown", "0", "--schedule", "trapezoid"]  # the same rate whatever the end
    whole = load_checkpoint(tune(*own, run="whole") / "last.pt")
    tune(*own, run="halves", steps=3)
    assert train.main(["--run", "halves", "--resume", "--steps", "6"]) == 0
    halves = load_checkpoint(Path("runs/halves/last.pt"))
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, halves["model"][name]), name


def test_a_wrong_base_is_refused_by_its_hash(tune, toy_run, error_of):
    run = tune("--lora", "2")
    path = toy_run / "best.pt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["model"]["norm.weight"] += 1
    torch.save(checkpoint, path)
    assert "other weights than this run began with" in error_of(
        sample.main, "--run", str(run), "--prompt", "the"
    )
    error = error_of(train.main, "--run", "tuned", "--resume", "--steps", "9")
    assert "other weights than this run began with" in error


def test_a_base_that_moved_along_is_found_and_a_missing_one_named(tune, toy_run, error_of):
    run = tune("--lora", "2")
    before = logits(run)
    home = Path("elsewhere")
    home.mkdir()
    run.rename(home / "tuned")
    toy_run.rename(home / "my")
    assert torch.equal(logits(home / "tuned"), before)
    (home / "my").rename("gone")  # neither where it was, nor beside the adapters
    assert "which is not there" in error_of(sample.main, "--run", str(home / "tuned"))


def test_eval_puts_the_base_beside_the_model(tune, capsys):
    for flags in ([], ["--lora", "2"]):
        run = tune(*flags, run="t" + str(len(flags)))
        capsys.readouterr()
        eval_script.main(["--run", str(run), "--device", "cpu"])
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[-5:]] == [
            "model",
            "base",
            "bigram",
            "unigram",
            "uniform",
        ]
        scores = json.loads((run / "eval.json").read_text())
        assert scores["model"]["val_loss"] < scores["base"]["val_loss"]
        alone = {}
        eval_script.main(["--run", "my", "--data", "other.txt", "--device", "cpu"])
        alone = json.loads(Path("runs/my/eval-other.json").read_text())
        assert scores["base"]["val_loss"] == pytest.approx(alone["model"]["val_loss"], abs=1e-6)


def test_what_adapters_need_is_said(tune, error_of, other_text, toy_run):
    data = ["--data", str(other_text)]
    assert "lora=2 has nothing to adapt" in error_of(train.main, *data, "--lora", "2")
    tuned = [*data, "--init", "my", "--lora", "2"]
    assert "use --optimizer adamw" in error_of(train.main, *tuned, "--optimizer", "muon")
    assert "another run than runs/my" in error_of(train.main, *tuned, "--run", "my")
    run = tune("--lora", "2")
    error = error_of(train.main, "--run", str(run), "--resume", "--lora", "4", "--steps", "9")
    assert "lora=4, but the run has 2; leave it out" in error
    error = error_of(train.main, *data, "--init", str(run), "--lora", "2")
    assert "has adapters itself" in error


def test_a_run_with_adapters_can_be_trained_further_as_a_whole(tune):
    run = tune("--lora", "2")
    own = ["--data", "other.txt", "--init", str(run), "--run", "whole", "--steps", "1"]
    assert train.main([*own, *FREE, "--lr", "1e-12"]) == 0
    torch.testing.assert_close(logits(Path("runs/whole"), "last"), logits(run), atol=1e-6, rtol=0)


def test_another_tokenizer_is_refused(tune, error_of, other_text, toy_run):
    flags = ["--data", other_text, "--init", "my", "--tokenizer", "char"]
    assert "another tokenizer than runs/my" in error_of(train.main, *flags)


def test_a_dry_run_counts_the_adapters_memory(tune, capsys, other_text, toy_run):
    own = ["--data", str(other_text), "--init", "my", "--dry-run", *FREE]
    train.main(own)
    whole = capsys.readouterr().out
    train.main([*own, "--lora", "1"])
    adapters = capsys.readouterr().out
    tensors = [float(out.split(" of them tensors")[0].split(", ")[-1]) for out in (whole, adapters)]
    assert tensors[1] < tensors[0] or tensors == [0, 0]
    assert "evaluation" in whole
    assert not Path("runs/other-my").exists()


def test_the_run_is_named_by_text_and_source(toy_run, other_text):
    own = ["--data", str(other_text), "--init", "my", "--steps", "1", *FREE]
    assert train.main(own) == 0
    assert Path("runs/other-my/last.pt").exists()


def test_sample_writes_with_and_without_the_adapters(tune, capfd, error_of, monkeypatch):
    run = tune("--lora", "4", "--lr", "0.3")

    def told(*flags):
        capfd.readouterr()
        assert not sample.main(["--prompt", "the", "--seed", "1", "--temp", "0", *flags])
        return capfd.readouterr().out

    base, with_them = told("--run", "my"), told("--run", str(run))
    assert base != with_them
    assert told("--run", str(run), "--lora", "off") == base
    assert told("--run", str(run), "--lora", "on") == with_them
    both = f"=== adapters on\n{with_them}=== adapters off\n{base}"
    assert told("--run", str(run), "--lora", "on", "off") == both
    monkeypatch.setattr(sample, "note", lambda text: None)  # on stderr, too
    assert "no adapters; leave out --lora" in error_of(sample.main, "--run", "my", "--lora", "off")
    several = ["--run", str(run), "--interactive", "--lora", "on", "off"]
    assert "a conversation has one model" in error_of(sample.main, *several)
