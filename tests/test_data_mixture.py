"""data/mixture.py: several texts under one tokenizer."""

import csv
import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TOY, make_text

import train
from data.mixture import open_mixture, parse_mixture
from data.sampler import BatchSampler
from utils.config import settings_from
from utils.training.checkpoint import TrainState, load_checkpoint

MIX = ["--mixture", "one.txt=2 two.txt=1", "--accum", "2", "--eval_every", "2", "--dropout", "0.1"]
MIX += ["--phases", "until=3 block_size=8 one=1; one=2 two=1", *TOY]


@pytest.fixture
def two_texts(tmp_path):
    (tmp_path / "one.txt").write_text(make_text(), encoding="utf-8")
    (tmp_path / "two.txt").write_text(make_text()[::-1], encoding="utf-8")


def test_a_mixture_by_phase_resumes_to_the_bit(two_texts, monkeypatch):
    """Stopped at step 4, in the second phase and in the middle of an epoch of both sources.

    The one that is stopped and resumed draws ahead in a thread, as with a GPU.
    """
    assert train.main([*MIX, "--steps", "8", "--run", "whole"]) == 0
    drawn_here = []

    real = BatchSampler.__post_init__

    def ahead(sampler):
        drawn_here.append(not sampler.prefetch)
        sampler.prefetch = True
        real(sampler)

    monkeypatch.setattr(BatchSampler, "__post_init__", ahead)
    saved = TrainState.save

    def stop_at_4(state, path, *rest):
        saved(state, path, *rest)
        if state.step == 4 and path.name == "last.pt":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "save", stop_at_4)
        with pytest.raises(KeyboardInterrupt):
            train.main([*MIX, "--steps", "8", "--run", "cut"])
    assert load_checkpoint(Path("runs/cut/last.pt"))["step"] == 4
    assert train.main(["--run", "cut", "--resume"]) == 0
    assert drawn_here == [True, True]  # what train.py asks for on a CPU
    a, b = (load_checkpoint(Path("runs") / n / "last.pt") for n in ("whole", "cut"))
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    assert a["step"] == b["step"] == 8
    with open("runs/cut/metrics.csv", encoding="utf-8", newline="") as f:
        scored = [r for r in csv.DictReader(f) if r["val_loss"]]
    assert [r["step"] for r in scored] == ["2", "4", "6", "8"]
    tokens = {n: s.meta["val_tokens"] - 1 for n, s in open_mixture("", **shapes()).datasets.items()}
    for row in scored:  # the total weighs tokens
        nats = sum(float(row[f"val_loss_{n}"]) * k for n, k in tokens.items())
        assert float(row["val_loss"]) == pytest.approx(nats / sum(tokens.values()))


def shapes():
    return {"vocab": 280, "mixture": "one.txt=2 two.txt=1"}


def test_sources_share_a_tokenizer_and_keep_their_own_validation(two_texts):
    one, two = open_mixture("", **shapes()).datasets.values()
    assert one.meta["tokenizer_sha256"] == two.meta["tokenizer_sha256"]
    assert make_text().endswith(one.tokenizer.decode(one.val))
    assert make_text()[::-1].endswith(two.tokenizer.decode(two.val))


def test_sources_prepared_apart_must_agree(two_texts):
    a = open_mixture("one.txt", vocab=270).datasets["one"].path
    b = open_mixture("two.txt", vocab=280).datasets["two"].path
    with pytest.raises(ValueError, match="have different tokenizers"):
        open_mixture("", mixture=f"{a}=1 {b}=1")
    assert (
        len(open_mixture("", mixture=f"{a}=1 two.txt=1").datasets) == 2
    )  # the text takes a's tokenizer


def test_a_source_without_validation_is_refused_at_once(two_texts, error_of):
    """Its loss, 0 nats over 0 tokens, ended the run with a traceback at the first evaluation."""
    Path("two.txt").write_text("abcdefghij", encoding="utf-8")
    said = error_of(train.main, *MIX[:2], *TOY, "--block_size", "2")
    assert re.search(r"two\.txt: the validation text has 1 tokens; give a longer text", said)
    assert not Path("runs").exists()


def test_a_tokenizer_of_several_texts_is_whole_or_not_there(two_texts, monkeypatch):
    """Killed before it is put in its place, it is not taken for one; then it is made again."""

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            open_mixture("", **shapes())
    assert not list(Path("cache").glob("tokenizer-*.json"))
    assert len(open_mixture("", **shapes()).datasets) == 2
    assert len(list(Path("cache").glob("tokenizer-*.json"))) == 1


def test_a_damaged_tokenizer_of_the_cache_is_made_again(two_texts):
    open_mixture("", **shapes())
    path = next(Path("cache").glob("tokenizer-*.json"))
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert len(open_mixture("", **shapes()).datasets) == 2
    assert path.read_bytes() == good


def test_twins_are_refused():
    with pytest.raises(ValueError, match="two sources of one name"):
        parse_mixture("", "a/x.txt=1 b/x.txt=1")


def test_mixtures_in_yaml_are_the_flags_text():
    text = """
    mixture: {one.txt: 3, two.txt: 1}
    phases:
      - {until: 100, block_size: 16}
      - {one: 1, two: 1}
    """
    data = settings_from(yaml.safe_load(text)).data
    assert data.mixture == "one.txt=3 two.txt=1"
    assert data.phases == "until=100 block_size=16; one=1 two=1"
