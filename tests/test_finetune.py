"""train.py --init: going on from a model that is there, whole or by adapters."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TOY, make_text

import eval as eval_script
import sample
import sweep
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
    assert "other weights than the adapters learnt on" in error_of(
        sample.main, "--run", str(run), "--prompt", "the"
    )
    error = error_of(train.main, "--run", "tuned", "--resume", "--steps", "9")
    assert "other weights" in error


def test_a_base_that_moved_along_is_found_and_a_missing_one_named(tune, toy_run, error_of):
    run = tune("--lora", "2")
    before = logits(run)
    home = Path("elsewhere")
    home.mkdir()
    run.rename(home / "tuned")
    toy_run.rename(home / "my")
    assert torch.equal(logits(home / "tuned"), before)
    (home / "my").rename(home / "gone")
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
    assert "the checkpoint has lora=2, not 4; resume with that" in error
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


def test_a_whole_run_stands_alone_once_it_is_trained(tune, capfd):
    """Its own copy of the tokenizer counts: the run that it started from may be renamed."""
    run = tune()
    Path("runs/my").rename("runs/gone")
    assert train.main(["--run", str(run), "--resume", "--steps", "8"]) == 0
    eval_script.main(["--run", str(run), "--device", "cpu"])
    shown = capfd.readouterr()
    assert "model" in shown.out
    assert "no scores of the base: no run runs/my" in shown.err
    assert sample.main(["--run", str(run), "--novelty", "--steps", "3"]) in (0, None)


def test_adapters_go_on_when_both_runs_are_moved(tune, tmp_path):
    run = tune("--lora", "2")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path("runs/my").rename(elsewhere / "my")
    run.rename(elsewhere / "tuned")
    moved = str(elsewhere / "tuned")
    assert train.main(["--run", moved, "--resume", "--steps", "8"]) == 0
    eval_script.main(["--run", moved, "--device", "cpu"])
    assert "base" in json.loads((elsewhere / "tuned" / "eval.json").read_text())


def test_learned_positions_end_where_they_were_learnt(tune, error_of, other_text, text_file):
    own = ["--data", str(text_file), "--run", "gpt2", "--steps", "1", "--pos", "learned"]
    assert train.main([*own, *TOY]) == 0
    flags = ["--data", str(other_text), "--init", "gpt2", "--block_size", "64", *FREE]
    for more in [], ["--lora", "2"]:
        assert "block_size=64 is more than the 16 positions" in error_of(train.main, *flags, *more)


def test_a_base_of_another_shape_is_one_line(tune, error_of, text_file):
    run = tune("--lora", "2")
    Path("runs/my").rename("runs/old")
    own = ["--data", str(text_file), "--run", "my", "--steps", "1", "--d_ff", "40"]
    assert train.main([*own, *TOY]) == 0
    resume = ["--run", str(run), "--resume", "--steps", "9"]
    assert "the weights are not what the config says" in error_of(train.main, *resume)


@pytest.mark.parametrize(("flags", "said"), [
    (["--lora_alpha", "3"], "lora_alpha=0.0, not 3.0"),
    (["--lora_rs"], "lora_rs=False, not True"),
    (["--lora_targets", "qkv"], "lora_targets=all, not qkv"),
    (["--lora", "0"], "lora=2, not 0"),
])  # fmt: skip
def test_what_adapters_are_stays_when_a_run_goes_on(tune, error_of, flags, said):
    run = tune("--lora", "2")
    resume = ["--run", str(run), "--resume", "--steps", "9", *flags]
    assert said in error_of(train.main, *resume)


def test_init_in_a_config_is_imported_like_the_flag(toy_run, other_text, monkeypatch):
    """A config, and a sweep: what is no run yet becomes one."""
    taken = []
    monkeypatch.setattr("utils.hub.importer.as_run", lambda source: taken.append(source) or "my")
    config = Path("own.yaml")
    config.write_text(f"data: {other_text}\ninit: elsewhere\nsteps: 2\n", encoding="utf-8")
    assert train.main(["--config", str(config), *FREE]) == 0
    assert load_checkpoint(Path("runs/own-my/last.pt"))["settings"]["init"] == "my"
    flags = ["--device", "cpu", "--batch_size", "2", "--lr", "1e-3", "2e-3"]
    sweep.main(["--config", str(config), *flags])
    assert taken == ["elsewhere"] * 2
    assert len(list(Path("runs/sweep-own").glob("*/summary.json"))) == 2


def test_steps_of_a_config_have_no_patience(toy_run, other_text):
    config = Path("own.yaml")
    config.write_text(f"data: {other_text}\ninit: my\nsteps: 2\n", encoding="utf-8")
    settings = train.parse(["--config", str(config)])[1]
    assert (settings.train.steps, settings.train.patience) == (2, 0)
    assert train.parse(["--data", str(other_text), "--init", "my"])[1].train.patience == 1


def test_dropout_is_the_recipes(tune, text_file, other_text):
    own = ["--data", str(text_file), "--run", "dry", "--steps", "1", "--dropout", "0.3"]
    assert train.main([*own, *TOY]) == 0
    flags = ["--data", str(other_text), "--init", "dry"]
    assert train.parse(flags)[1].model.dropout == 0
    assert train.parse([*flags, "--dropout", "0.1"])[1].model.dropout == 0.1


@pytest.mark.parametrize(("flags", "said"), [
    (["--vocab", "50"], "--init keeps the tokenizer"),
    (["--lora_alpha", "8"], "give --lora a rank"),
    (["--lr", "much"], "lr='much' is not a finite number"),
])  # fmt: skip
def test_flags_that_would_be_ignored_are_refused(toy_run, other_text, error_of, flags, said):
    assert said in error_of(train.main, "--data", str(other_text), "--init", "my", *flags)


def test_a_wrong_flag_is_told_before_anything_is_imported(other_text, error_of, monkeypatch):
    monkeypatch.setattr("utils.hub.importer.as_run", lambda source: pytest.fail("imported"))
    flags = ["--data", str(other_text), "--init", "smollm2", "--steps", "many"]
    assert "steps='many'" in error_of(train.main, *flags)


def test_one_batch_by_heart_has_no_dropout_of_adapters(toy_run, other_text):
    flags = ["--data", str(other_text), "--init", "my", "--lora", "2", "--lora_dropout", "0.5"]
    assert train.parse([*flags, "--overfit"])[1].lora.lora_dropout == 0


def test_flags_of_two_ways_with_adapters(error_of):
    assert "--novelty judges" in error_of(sample.main, "--novelty", "--lora", "on", "off")
    assert "give each once" in error_of(sample.main, "--lora", "on", "on")
