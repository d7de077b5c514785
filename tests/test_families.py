"""python -m utils.families: gaps and their scores by hand, equal compute, the whole at toy size."""

import json
import math
from pathlib import Path

import pytest
import torch

from tok import BPETokenizer, load
from tok.base import END_OF_TEXT
from tok.special import BERT_TOKENS
from utils.config import flat
from utils.families import __main__ as command
from utils.families.gaps import Gaps, ask_bert, ask_gpt, gaps
from utils.families.plan import FAMILIES, B, Plan, T, settings

SPECIAL = {"<|endoftext|>": 4, "[CLS]": 5, "[SEP]": 6, "[MASK]": 7}
V = 8
P = torch.full((V, V), 0.01)  # what follows a token: 1 after 0, 2 after 1, 3 after 2, 0 after 3
for i in range(4):
    P[i, (i + 1) % 4] = 0.5
P[4, 0], P[4, 1] = 0.2, 0.7
P /= P.sum(1, keepdim=True)


def bigram(x):
    """A GPT that sees one token back."""
    return P.log()[x], None


def between(x):
    """A BERT that says the token before a masked one, plus one, and is sure by 0.5."""
    before = x.roll(1, 1)
    return P.log()[before], None


def test_a_gpt_is_asked_by_hand():
    """At the first position the truth 0 is less likely than 1, until what follows is scored.

    From the left p(0) = 0.2 and p(1) = 0.7; then p(1|0) = 0.5 against p(1|1) = 0.01.
    """
    row = torch.tensor([[0, 1, 2, 3]])
    asked = Gaps(row, torch.tensor([[0, 0], [0, 2]]), torch.tensor([[0, 1], [2, 3]]))
    found = ask_gpt(bigram, asked, SPECIAL)
    assert found["left"] == 0.5  # the second gap is right from the left alone
    assert found["both"] == 1.0
    want = [P[4, 0], P[0, 1], P[1, 2], P[2, 3]]
    assert found["perplexity"] == pytest.approx(math.prod(map(float, want)) ** (-1 / 4))


def test_a_bert_is_asked_by_hand():
    """One pass a gap, and a pass for each token of a text, masked by itself."""
    rows = torch.tensor([[1, 2, 3, 0], [0, 2, 3, 0]])
    at = torch.tensor([[0, 1], [0, 2], [1, 1]])
    asked = Gaps(rows, at, torch.tensor([[2, 0], [3, 1], [2, 1]]))
    found = ask_bert(between, asked, SPECIAL)
    assert found["one_pass"] == pytest.approx(2 / 3)  # after 0 it expects 1, and the truth is 2
    want = [P[5, 1], P[1, 2], P[2, 3], P[3, 0], P[5, 0], P[0, 2], P[2, 3], P[3, 0]]
    assert found["perplexity"] == pytest.approx(math.prod(map(float, want)) ** (-1 / 8))


def test_gaps_have_both_sides_and_candidates_no_token_twice():
    rows = [list(range(i, i + 30)) for i in (0, 100)]
    made = gaps(rows, list(range(500)), each=5, K=8, seed=1)
    assert made.at.shape == (10, 2)
    assert made.candidates.shape == (10, 8)
    for (b, t), chosen in zip(made.at.tolist(), made.candidates.tolist(), strict=True):
        assert 8 <= t < 22
        assert chosen[0] == rows[b][t]
        assert len(set(chosen)) == 8
    assert len({tuple(x) for x in made.at.tolist()}) == 10  # no gap twice
    again = gaps(rows, list(range(500)), each=5, K=8, seed=1)
    assert torch.equal(made.candidates, again.candidates)
    other = gaps(rows, list(range(500)), each=5, K=8, seed=2)
    assert not torch.equal(made.candidates, other.candidates)
    drawn = gaps(rows, [7] * 900 + list(range(100)), each=14, K=2, seed=1).candidates[:, 1]
    assert (drawn == 7).float().mean() > 0.7  # as often as it occurs


def test_texts_too_short_and_pools_too_small_are_refused():
    with pytest.raises(ValueError, match="0 texts for 4 gaps; give some of 20 tokens"):
        gaps([], [1, 2, 3], each=4, K=2, seed=0)
    with pytest.raises(ValueError, match="1 texts for 4 gaps"):
        gaps([[1] * 19], [1, 2, 3], each=4, K=2, seed=0)
    with pytest.raises(ValueError, match="3 different tokens to draw 3 candidates"):
        gaps([[1] * 20], [1, 2, 3], each=4, K=3, seed=0)


@pytest.fixture
def tokenizer(tmp_path):
    file = tmp_path / "tokenizer.json"
    specials = [END_OF_TEXT, *BERT_TOKENS]
    BPETokenizer.train(["the cat sat on the mat"], 270, special_tokens=specials).save(file)
    return file


def test_equal_compute_by_hand(tokenizer, tmp_path):
    """GPT-2: 2 blocks of 4 x 128^2 + 2 x 128 x 576 weights, a head; 12 L C T for attention."""
    V = load(tokenizer).vocab_size
    gpt = 6 * (2 * (4 * 128**2 + 2 * 128 * 576) + 128 * V) + 12 * 2 * 128 * T
    bert = 6 * (2 * 12 * 128**2 + round(0.4 * (128**2 + 128 * V))) + 12 * 2 * 128 * T
    budget = 100.3 * gpt * B * T
    plans = {
        f.name: Plan(f, "adamw", 1e-3, 1, budget, "x.txt", str(tokenizer), tmp_path)
        for f in FAMILIES
    }
    assert plans["gpt2"].shape[1] == gpt
    assert plans["bert"].shape[1] == bert
    assert plans["gpt2"].steps == 100
    for plan in plans.values():
        spent = plan.steps * plan.shape[1] * B * T
        assert spent == pytest.approx(budget, rel=0.006), plan.name
    sizes = [plan.shape[0] for plan in plans.values()]
    assert max(sizes) < 1.05 * min(sizes)  # one size
    assert len({plan.path for plan in plans.values()}) == 4


def test_families_are_what_they_are_called(tokenizer, tmp_path):
    made = {
        f.name: settings(Plan(f, "muon", 0.01, 1, 1e9, "x", str(tokenizer), tmp_path), 7)
        for f in FAMILIES
    }
    assert [s.objective.kind for s in made.values()] == ["gpt", "gpt", "bert", "bert"]
    bert = made["bert"].model
    assert (bert.norm_at, bert.pos, bert.mlp, bert.norm_eps) == ("post", "learned", "gelu", 1e-12)
    for name in ("llama", "modern"):
        m = made[name].model
        assert (m.norm, m.pos, m.mlp, m.bias) == ("rmsnorm", "rope", "swiglu", False)
    assert {flat(s)["optimizer"] for s in made.values()} == {"muon"}


def test_a_table_leaves_out_what_nobody_has():
    told = command.table({"A": [{"params": 1234, "left": 0.5}, {"params": 1234, "left": 0.7}]})
    assert told.splitlines() == [
        "|  | A |",
        "| --- | --- |",
        "| parameters | 1,234 |",
        "| one gap, 32 candidates: from the left alone | 60.0 ± 14.1 % |",
    ]


def test_wrong_flags_are_said(error_of):
    assert "only=lama; families are gpt2, llama, bert, modern" in error_of(
        command.main, "--only", "lama"
    )
    assert "seeds=0, flops=1.5e+12: give 1 or more" in error_of(command.main, "--seeds", "0")


@pytest.mark.parametrize("text", ["one\n\ntwo", "a b c\n\n" * 30 + "x " * 90])
def test_texts_that_leave_nothing_to_ask_about_are_refused(text):
    with pytest.raises(ValueError, match=r"a text of \d+ documents leaves none to ask about"):
        command.questions(text, None)


@pytest.mark.slow
def test_the_whole_at_toy_size(tmp_path, capsys, monkeypatch):
    """Trains two families with two seeds; a second call trains nothing and says the same."""
    monkeypatch.setattr("utils.families.plan.RATES", {"adamw": (2e-3, 4e-3)})
    data = Path(__file__).parents[1] / "data" / "tiny.txt"
    argv = ["--flops", "2e10", "--seeds", "2", "--only", "llama", "bert", "--data", str(data)]
    command.main(argv)
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if line.startswith("|")]
    assert lines[0] == "|  | LLaMA style | BERT |"
    assert told.count("lr=0.004") == 2
    found = [json.loads(f.read_text("utf-8")) for f in Path("runs").rglob("families.json")]
    assert len(found) == 6
    assert all(0 <= f.get("both", f.get("one_pass")) <= 1 for f in found)
    assert all(f["perplexity"] < 500 for f in found)  # it has 1,000 tokens, and learnt a little
    assert not list(Path("runs").rglob("*.pt"))
    monkeypatch.setattr("utils.sweep.workers.Pool.train", lambda *_: pytest.fail("trains again"))
    command.main(argv)
    again = capsys.readouterr().out
    assert [line for line in again.splitlines() if line.startswith("|")] == lines
