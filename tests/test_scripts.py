"""sample.py, eval.py, sweep.py and utils/plot.py, called as a person calls them."""

import csv
import json
import math
import os
from pathlib import Path

import pytest
import torch
from conftest import TOY, make_text

import eval as eval_script
import sample
import sweep
import train
from data import prepare
from data.store import end_id
from tok import BPETokenizer
from tok.bpe import __main__ as tok_commands
from utils import plot
from utils.training.models import load_model
from utils.writing.text import start_ids, write_text

ROOT = Path(__file__).parent.parent


def said(capfd, main, *args):
    """What a script prints on stdout."""
    capfd.readouterr()
    assert not main(list(args))
    return capfd.readouterr().out


def test_sample_goes_on_from_the_prompt_and_repeats_by_seed(toy_run, capfd):
    flags = ["--prompt", "the cat", "--steps", "30"]
    one, again, other = (said(capfd, sample.main, *flags, "--seed", s) for s in "112")
    assert one == again != other
    assert one.startswith("the cat")
    assert len(one) > len("the cat\n")


def test_sample_takes_the_newest_run(toy_run, text_file, capfd):
    train.main(["--data", str(text_file), "--steps", "1", "--run", "newer", *TOY])
    os.utime(toy_run / "best.pt", (1, 1))
    os.utime(toy_run / "last.pt", (1, 1))
    capfd.readouterr()
    sample.main(["--steps", "1"])
    assert "runs/newer/best.pt" in capfd.readouterr().err


def test_temperature_0_takes_the_likeliest(toy_run, capfd):
    flags = ["--prompt", "a", "--temp", "0", "--steps", "5"]
    out = said(capfd, sample.main, *flags)
    model, tokenizer, _ = load_model(toy_run)
    ids = tokenizer.encode("a")
    for _ in range(5):
        ids.append(int(model.eval()(torch.tensor([ids]))[0][0, -1].argmax()))
    assert out == tokenizer.decode(ids) + "\n"


def test_notes_say_what_was_adapted(toy_run, capfd):
    sample.main(["--prompt", "the dog " * 40, "--top_k", "100000", "--steps", "2"])
    err = capfd.readouterr().err
    assert "the model sees the last 16" in err
    assert "all 280 tokens stay" in err


def test_empty_prompt_starts_anew(toy_run, capfd):
    assert said(capfd, sample.main, "--prompt", "", "--steps", "3", "--seed", "1") != "\n"


def test_a_model_of_documents_starts_and_ends_them(text_file, capfd):
    """With documents the start is <|endoftext|>, and drawing it ends the text unseen."""
    train.main(["--data", str(text_file), "--doc_sep", "\n", "--steps", "60", "--lr", "1e-2", *TOY])
    model, tokenizer, checkpoint = load_model(Path("runs/my"))
    end = end_id(checkpoint["data"], tokenizer)
    assert end == tokenizer.special_tokens["<|endoftext|>"]
    assert start_ids(tokenizer, "a", end) == [end, *tokenizer.encode("a")]
    assert start_ids(tokenizer, "", None) == tokenizer.encode("\n")
    model.head.weight.data[end] = 100.0
    model.norm.bias = torch.nn.Parameter(torch.full((16,), 100.0))  # wants nothing but the end
    assert write_text(model, tokenizer, "a", 50, end=end, temperature=0) == ""


def test_sample_refuses(toy_run, error_of, capfd):
    for args, words in [
        (["--temp", "-1"], "temperature=-1.0 must be 0"),
        (["--temp", "nan"], "temperature=nan"),
        (["--top_k", "-1"], "top_k=-1 must be 0 (every token) or more"),
        (["--top_p", "1.5"], "top_p=1.5 must be in (0, 1]"),
        (["--steps", "-3"], "steps=-3"),
        (["--steps", "few"], "--steps"),
        (["--run", "none"], "no run runs/none"),
        (["--promt", "x"], "did you mean --prompt?"),
        (["--device", "tpu"], "device='tpu' is unknown"),
    ]:
        assert words in error_of(sample.main, *args)
    BPETokenizer.train([make_text()[::-1]], 280).save(toy_run / "tokenizer.json")
    assert "is not the one that the model learnt with" in error_of(sample.main)
    (toy_run / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in error_of(sample.main)
    (toy_run / "best.pt").unlink()
    (toy_run / "last.pt").unlink()
    assert "no run with a checkpoint" in error_of(sample.main)
    assert "no checkpoint runs/my/best.pt" in error_of(sample.main, "--run", "my")


def test_a_character_that_the_tokenizer_lacks_is_named(text_file, error_of):
    train.main(["--data", str(text_file), *TOY, "--tokenizer", "char", "--steps", "1"])
    assert "'€'" in error_of(sample.main, "--prompt", "the €")


def test_eval_prints_and_keeps_the_scores(toy_run, capfd):
    out = said(capfd, eval_script.main, "--run", "my", "--ckpt", "last")
    table = {w[0]: w[1:] for line in out.splitlines() if len(w := line.split()) in (3, 4)}
    assert table["val_loss"] == ["ppl", "bits/byte"]
    kept = json.loads((toy_run / "eval.json").read_text(encoding="utf-8"))
    with open(toy_run / "metrics.csv", encoding="utf-8") as f:
        last = [r for r in csv.DictReader(f) if r["val_loss"]][-1]
    assert kept["model"]["val_loss"] == pytest.approx(float(last["val_loss"]), rel=1e-6)
    for name in ("model", "bigram", "unigram", "uniform"):
        assert float(table[name][0]) == pytest.approx(kept[name]["val_loss"], abs=1e-4)
        assert kept[name]["ppl"] == pytest.approx(math.exp(kept[name]["val_loss"]))
    assert kept["uniform"]["val_loss"] == pytest.approx(math.log(280))
    assert kept["bigram"]["val_loss"] < kept["unigram"]["val_loss"] < kept["uniform"]["val_loss"]


def test_eval_twice_is_the_same(toy_run, capfd):
    assert said(capfd, eval_script.main) == said(capfd, eval_script.main)


def test_eval_on_another_text(toy_run, capfd, error_of):
    Path("other.txt").write_text("the dog sat by the red barn " * 99, encoding="utf-8")
    assert "on other.txt" in said(capfd, eval_script.main, "--data", "other.txt")
    train.main(["--data", "other.txt", "--run", "b", "--steps", "1", *TOY])
    theirs = json.loads(Path("runs/b/summary.json").read_text(encoding="utf-8"))["data"]
    assert theirs["name"] == "other.txt"
    assert "none.txt" in error_of(eval_script.main, "--data", "none.txt")
    assert "batch_size=0" in error_of(eval_script.main, "--batch_size", "0")
    Path("other.txt").write_text("the cat sat by the red barn " * 99, encoding="utf-8")
    assert "other.txt has changed since" in error_of(eval_script.main, "--run", "b")


def test_plot_draws_one_run_or_several(toy_run, text_file, capfd, error_of):
    train.main(["--data", str(text_file), "--run", "b", "--steps", "3", "--log_every", "1", *TOY])
    for args, out in ([], "runs/plot.png"), (["my", "b", "--out", "two.png"], "two.png"):
        assert said(capfd, plot.main, *args).strip() == out
        assert Path(out).read_bytes().startswith(b"\x89PNG")
    curves = plot.read_metrics(Path("runs/b"))
    assert [step for step, _ in curves["train"]] == [1, 2, 3]
    assert [step for step, _ in curves["val"]] == [3]
    assert "no runs/none/metrics.csv" in error_of(plot.main, "none")


def test_sweep_ranks_and_goes_on_where_it_stopped(text_file, capfd, error_of, monkeypatch):
    base = ["--data", str(text_file), "--steps", "8", "--eval_every", "8", *TOY]
    flags = [
        *base[:-4],
        "--vocab",
        "280",
        "--name",
        "t",
        "--lr",
        "1e-4",
        "1e-2",
        "--jobs",
        "0",
        "--seed",
        "1",
        "2",
    ]
    out = said(capfd, sweep.main, *flags)
    assert "best by validation loss: " in out
    assert "lr=0.01" in out.split("best by validation loss: ")[1]
    with open("runs/sweep-t/results.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert [r["lr"] for r in rows] == ["0.01", "0.0001"]
    assert all(r["seeds"] == "2" and float(r["val_loss_sd"]) > 0 for r in rows)

    trained = []
    monkeypatch.setattr(train, "run", lambda settings, **_: trained.append(settings))
    assert said(capfd, sweep.main, *flags)  # all there: nothing is trained again
    assert trained == []
    summary = {"stopped_by": "diverged", "params": 1, "seconds": 1.0}
    monkeypatch.setattr(train, "run", lambda settings, **_: summary)
    flags[flags.index("--steps") + 1] = "9"  # other steps: not the same runs; and diverged
    said(capfd, sweep.main, *flags)
    with open("runs/sweep-t/results.csv", encoding="utf-8") as f:
        assert {(r["val_loss"], r["status"]) for r in csv.DictReader(f)} == {("inf", "diverged")}
    assert "try d_model" in error_of(
        sweep.main, *flags[:-3], "--n_head", "2", "3"
    )  # before training
    assert "nothing to compare" in error_of(sweep.main, "--lr", "1e-3")
    assert "lr='x' is not a finite number" in error_of(sweep.main, "--lr", "x", "1")


def gpt2_files(text):
    """vocab.json and merges.txt in GPT-2's form, of a small vocabulary."""
    BPETokenizer.train([text], 300).save_hf("hf.json")
    model = json.loads(Path("hf.json").read_text(encoding="utf-8"))["model"]
    Path("vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, model["merges"])]
    Path("merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_config_of_gpt2_can_be_followed(text_file):
    """No command made its tokenizer. The commands of its header, and ten steps of a small model."""
    config = ROOT / "configs" / "gpt2_124m.yaml"
    header = config.read_text(encoding="utf-8")
    gpt2_files(text_file.read_text(encoding="utf-8"))
    tokenizer = ["import", "vocab.json", "merges.txt", "--out", "tok/gpt2.json"]
    data = ["my.txt", "--tokenizer", "tok/gpt2.json", "--out", "data/openwebtext"]
    assert f"python -m tok.bpe {' '.join(tokenizer)}" in header
    assert f"python -m data.prepare {' '.join(data)}" in header
    Path("tok").mkdir()
    assert tok_commands.main(tokenizer) == 0
    assert not prepare.main(data)
    small = ["--n_layer", "2", "--n_head", "2", "--d_model", "16", "--block_size", "32"]
    small += ["--steps", "10", "--eval_every", "10", "--accum", "2", "--batch_size", "2"]
    assert train.main(["--config", str(config), *small, "--compile", "false"]) == 0
    model, tokenizer, _ = load_model(Path("runs/gpt2_124m"))
    assert model.config.vocab_size == tokenizer.vocab_size > 257
