"""What a training starts from: found, checked and imported before anything is trained."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TOY, make_text
from hub_models import make_run

import eval as eval_script
import sample
import sweep
import train
from utils.hub.exporter import export
from utils.hub.importer import as_run
from utils.hub.pretrained import read_pretrained
from utils.training.checkpoint import load_checkpoint
from utils.training.models import load_model

FREE = ["--device", "cpu", "--dtype", "float32", "--sample", "0", "--batch_size", "4"]


@pytest.fixture
def tuned(toy_run, text_file):
    """Train from a run; gives the new run's directory."""

    def call(*flags, init="my", run="tuned", steps=2):
        own = ["--data", str(text_file), "--init", init, "--run", run, "--steps", str(steps)]
        assert train.main([*own, *FREE, *flags]) == 0
        return Path("runs") / run

    return call


@pytest.fixture
def theirs(text_file):
    """A Hugging Face directory, of which no run has been made."""
    make_run("runs/source", "llama")
    export(Path("runs/source"), "hf", "theirs")
    return Path("theirs")


@pytest.fixture
def refused(error_of, text_file):
    """The one line of a training that starts from `theirs`, and imports nothing for it."""

    def call(*flags):
        error = error_of(train.main, "--data", text_file, "--init", "theirs", *FREE, *flags)
        assert not Path("runs/theirs").exists()
        return error

    return call


def test_more_positions_than_were_learned_are_one_line(tuned, text_file, error_of):
    """It was torch's complaint about two shapes, with a traceback."""
    own = ["--data", str(text_file), "--run", "gpt2", "--steps", "1", "--pos", "learned"]
    assert train.main([*own, *TOY]) == 0
    for more in ([], ["--lora", "2"]):
        flags = ["--data", text_file, "--init", "gpt2", "--run", "more", "--block_size", "32"]
        error = error_of(train.main, *flags, *more)
        assert "block_size=32, but 16 positions were learned; lower it to 16" in error
        assert not Path("runs/more").exists()


def test_another_shape_at_resume_is_one_line(tuned, error_of):
    for flags in ([], ["--lora", "2"]):
        tuned(*flags)
        error = error_of(train.main, "--run", "tuned", "--resume", "--d_model", "32")
        assert "of another model: d_model 16 there, 32 here" in error


def test_a_base_that_has_become_another_model_is_refused_at_resume(tuned, text_file, error_of):
    """Its shape was met before its hash was looked at: a traceback."""
    tuned("--lora", "2")
    Path("runs/my").rename("moved")  # where nobody looks
    own = ["--data", str(text_file), "--run", "my", "--steps", "1"]
    assert train.main([*own, *TOY, "--d_model", "32"]) == 0
    error = error_of(train.main, "--run", "tuned", "--resume", "--steps", "3")
    assert "runs/my has other weights than this run began with" in error


@pytest.mark.parametrize("lora", [[], ["--lora", "2"]])
def test_a_run_needs_its_source_no_more(tuned, lora, capsys):
    """Its own tokenizer.json counts, and adapters find their base by its hash."""
    run = tuned(*lora)
    Path("runs/my").rename("runs/renamed")
    eval_script.main(["--run", "tuned", "--device", "cpu"])
    assert "base" in json.loads((run / "eval.json").read_text())
    assert train.main(["--run", "tuned", "--resume", "--steps", "3"]) == 0
    assert load_checkpoint(run / "last.pt")["step"] == 3
    assert sample.main(["--run", "tuned", "--steps", "3", "--novelty"]) is None
    if not lora:
        Path("some").mkdir()
        run.rename("some/elsewhere")
        for path in Path("runs/renamed").iterdir():
            path.unlink()
        capsys.readouterr()
        eval_script.main(["--run", "some/elsewhere", "--device", "cpu"])
        assert "note: no scores of the base" in capsys.readouterr().err
        assert train.main(["--run", "some/elsewhere", "--resume", "--steps", "4"]) == 0


@pytest.mark.parametrize("way", ["flag", "yaml", "sweep"])
def test_a_source_is_imported_whoever_names_it(way, theirs, text_file):
    """A config's, and a sweep's, was taken for a run that is not there."""
    flags = ["--data", str(text_file), "--steps", "1", *FREE]
    if way == "flag":
        assert train.main([*flags, "--init", "theirs"]) == 0
    if way == "yaml":
        Path("my.yaml").write_text("init: theirs\n", encoding="utf-8")
        assert train.main([*flags, "--config", "my.yaml"]) == 0
        assert Path("runs/my-theirs/last.pt").exists()
    if way == "sweep":
        sweep.main(
            [*flags, "--init", "theirs", "--lr", "1e-4", "1e-3", "--name", "s", "--jobs", "0"]
        )
        assert len(Path("runs/sweep-s/results.csv").read_text().splitlines()) == 3
    assert read_pretrained(Path("runs/theirs")).source == "theirs"


def test_resume_takes_the_source_that_the_run_had(theirs, text_file, error_of):
    """Also by the path that was imported from; another one was silently left out."""
    flags = ["--data", str(text_file), "--init", "./theirs", "--run", "t", *FREE]
    assert train.main([*flags, "--steps", "1"]) == 0
    assert train.main([*flags, "--steps", "2", "--resume"]) == 0
    error = error_of(train.main, "--run", "t", "--resume", "--init", "source", "--steps", "3")
    assert "init='source', but the run has 'theirs'; leave it out" in error
    error = error_of(train.main, "--run", "none", "--resume", "--init", "other")
    assert "no checkpoint runs/none/last.pt" in error


def test_other_adapters_at_resume_are_refused_and_equal_ones_are_not(tuned, error_of):
    tuned("--lora", "2")
    again = ["--run", "tuned", "--resume", "--steps", "3"]
    for flags, said in (
        (["--lora", "0"], "lora=0, but the run has 2"),
        (["--lora_alpha", "8"], "lora_alpha=8.0, but the run has 0.0"),
        (["--lora_rs"], "lora_rs=True, but the run has False"),
        (["--lora_targets", "qkv"], "lora_targets='qkv', but the run has 'all'"),
    ):
        assert said in error_of(train.main, *again, *flags)
    assert train.main([*again, "--lora_alpha", "4", "--d_ff", "64", "--n_kv_head", "2"]) == 0
    tuned(run="whole")
    error = error_of(train.main, "--run", "whole", "--resume", "--lora", "2", "--steps", "3")
    assert "lora=2, but the run has 0" in error


def test_steps_in_a_config_end_the_training_as_a_flag_does(toy_run, text_file):
    """It kept the recipe's evaluations and patience, which are for the recipe's own steps."""
    Path("my.yaml").write_text(f"data: {text_file}\ninit: my\nsteps: 7\n", encoding="utf-8")
    _, of_yaml = train.parse(["--config", "my.yaml"])
    _, of_flag = train.parse(["--data", str(text_file), "--init", "my", "--steps", "7"])
    for settings in (of_yaml, of_flag):
        assert (settings.train.steps, settings.train.patience) == (7, 0)
        assert settings.train.eval_every == 250
    _, recipe = train.parse(["--data", str(text_file), "--init", "my"])
    assert (recipe.train.patience, recipe.train.eval_every) == (1, 7)


def everything():
    return {path: path.stat().st_mtime_ns for path in Path().rglob("*")}


@pytest.mark.parametrize("lora", [[], ["--lora", "2"]])
def test_a_dry_run_of_a_source_leaves_nothing(lora, theirs, text_file, capsys):
    before = everything()
    flags = ["--data", str(text_file), "--init", "theirs", "--dry-run", *FREE, *lora]
    assert train.main(flags) == 0
    assert "minutes" in capsys.readouterr().out
    assert everything() == before


def test_what_is_wrong_anyway_is_said_before_an_import(theirs, refused, text_file):
    assert "lr=-1.0 must be positive" in refused("--lr", "-1")
    assert "n_layer='x' is not a whole number" in refused("--n_layer", "x")
    assert "no such text" in refused("--data", "none.txt")
    assert "another run than runs/theirs" in refused("--run", "theirs")
    assert "use --optimizer adamw" in refused("--lora", "2", "--optimizer", "muon")
    assert "lora_alpha=8.0 is of adapters, but lora=0" in refused("--lora_alpha", "8")
    Path("bad.yaml").write_text("init: theirs\nlr: -1\n", encoding="utf-8")
    assert "bad.yaml: lr=-1.0" in refused("--config", "bad.yaml")


def test_an_import_is_taken_again_for_the_same_content_only(theirs, text_file):
    """It was compared by the source's name alone."""
    assert as_run("./theirs") == "theirs"
    Path("copy").mkdir()
    theirs.rename("copy/theirs")
    assert as_run("copy/theirs") == "theirs"
    file = Path("copy/theirs/tokenizer_config.json")
    file.write_text(file.read_text() + " ", encoding="utf-8")
    with pytest.raises(ValueError, match="runs/theirs is another run than copy/theirs"):
        as_run("copy/theirs")


def test_a_run_that_was_trained_from_an_import_is_not_taken_for_it(theirs, text_file):
    """A fine-tuned run keeps pretrained.json, too."""
    assert as_run("./theirs") == "theirs"
    flags = ["--data", str(text_file), "--init", "theirs", "--steps", "1", *FREE]
    assert train.main([*flags, "--run", "new"]) == 0
    Path("runs/theirs").rename("runs/away")
    Path("runs/new").rename("runs/theirs")
    with pytest.raises(ValueError, match="another run"):
        as_run("./theirs")


def test_eval_scores_the_base_by_longer_windows_too(tuned):
    """Its own block_size was less: an error instead of a table."""
    run = tuned("--block_size", "32")
    eval_script.main(["--run", "tuned", "--device", "cpu"])
    scores = json.loads((run / "eval.json").read_text())
    assert scores["base"]["val_loss"] != scores["model"]["val_loss"]


def test_eval_does_not_take_another_model_for_the_base(tuned, capsys):
    """A run of the same name that has been trained since; the one moved aside is found."""
    run = tuned("--lr", "3e-2")
    eval_script.main(["--run", "tuned", "--device", "cpu"])
    before = json.loads((run / "eval.json").read_text())["base"]
    path = Path("runs/my/best.pt")
    checkpoint = torch.load(path, weights_only=True)
    Path("runs/my-1").mkdir()
    torch.save(checkpoint, "runs/my-1/best.pt")
    checkpoint["model"]["norm.weight"] += 1
    torch.save(checkpoint, path)
    eval_script.main(["--run", "tuned", "--device", "cpu"])
    assert json.loads((run / "eval.json").read_text())["base"] == before
    Path("runs/my-1").rename("runs/.my.1.tmp")  # as if another process were about to make it
    capsys.readouterr()
    eval_script.main(["--run", "tuned", "--device", "cpu"])
    assert "runs/my has other weights than this run began with" in capsys.readouterr().err
    assert "base" not in json.loads((run / "eval.json").read_text())


def test_what_the_source_decides_is_not_asked_for(toy_run, text_file, error_of):
    flags = ["--data", text_file, "--init", "my"]
    error = error_of(train.main, *flags, "--vocab", "500")
    assert "vocab=500, but runs/my has vocab=280, which --init keeps" in error
    _, settings = train.parse([*map(str, flags), "--vocab", "280", "--d_ff", "64"])
    assert settings.model.hidden == 64


def test_a_config_may_leave_rank_and_source_to_flags(toy_run, text_file):
    Path("my.yaml").write_text(f"data: {text_file}\nlora_alpha: 8\n", encoding="utf-8")
    _, settings = train.parse(["--config", "my.yaml", "--init", "my", "--lora", "2"])
    assert (settings.lora.lora, settings.lora.alpha) == (2, 8)


def test_dropout_is_the_recipes_not_the_sources(text_file):
    own = ["--data", str(text_file), "--run", "wet", "--steps", "1", *TOY, "--dropout", "0.3"]
    assert train.main([*own, "--attn_dropout", "0.2"]) == 0
    flags = ["--data", str(text_file), "--init", "wet"]
    _, settings = train.parse(flags)
    assert (settings.model.dropout, settings.model.attn_dropout) == (0, 0)
    _, settings = train.parse([*flags, "--dropout", "0.1"])
    assert settings.model.dropout == 0.1


def test_windows_of_text_are_longer_than_those_of_attention(tmp_path):
    """The recipe's block_size for a short text was less than the source's window: refused."""
    Path("long.txt").write_text(make_text(9000), encoding="utf-8")
    toy = [*TOY, "--block_size", "64", "--window", "40", "--pos", "rope"]
    assert train.main(["--data", "long.txt", "--run", "slides", "--steps", "1", *toy]) == 0
    Path("short.txt").write_text(make_text(700), encoding="utf-8")
    _, settings = train.parse(["--data", "short.txt", "--init", "slides"])
    assert settings.model.block_size == 41


def test_overfitting_drops_nothing_of_what_adapters_read(toy_run, text_file):
    flags = ["--data", str(text_file), "--init", "my", "--lora", "2", "--lora_dropout", "0.5"]
    _, settings = train.parse([*flags, "--overfit"])
    assert settings.lora.lora_dropout == 0


def test_novelty_and_repeated_adapters_are_refused(tuned, error_of):
    tuned("--lora", "2")
    own = ["--run", "tuned", "--prompt", "the"]
    error = error_of(sample.main, *own, "--lora", "on", "off", "--novelty")
    assert "--novelty judges one model; give on or off" in error
    error = error_of(sample.main, *own, "--lora", "on", "on")
    assert "lora=on on: give on, off, or on off" in error


def test_a_checkpoint_says_what_it_started_from(tuned):
    for flags in ([], ["--lora", "2"]):
        checkpoint = load_checkpoint(tuned(*flags) / "last.pt")
        assert checkpoint["source"]["run"] == "runs/my"
        assert bool(checkpoint["base"]) == bool(flags)
    assert load_model(Path("runs/tuned"))[2]["base"]["sha256"] == checkpoint["source"]["sha256"]
