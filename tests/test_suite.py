"""eval.py --suite and --by-position: oracles score all, guesses score chance, figures by hand."""

import csv
import json
import math
import random

import numpy as np
import pytest
import torch
from conftest import TOY, make_text
from test_skills import solve

import eval as script
import train
from data.prepare import prepared
from data.skills import SKILLS, compose, held_out
from data.store import open_dataset
from data.stories import compose as compose_stories
from model import GPTConfig, TinyGPT, generate
from tok import CharTokenizer
from utils.device import pick_device
from utils.suite import repeat
from utils.suite import stories as stories_module
from utils.suite.command import check_kind
from utils.suite.curve import untrained
from utils.suite.position import (
    Span,
    by_doubling,
    by_position,
    context_used,
    doublings,
    overall,
    token_losses,
)
from utils.suite.rows import average, rate, wilson
from utils.suite.skills import Quiz, answers, asked, skills_in
from utils.suite.stories import ALL, Pairs, Stories, opening, whole_stories
from utils.suite.suite import Subject, Suite
from utils.training.evaluate import evaluate
from utils.training.models import load_model
from utils.training.objective import next_token

CPU = pick_device("cpu", "float32")
TASKS = compose(30_000)
CHARS = CharTokenizer.train([TASKS])


class Writer:
    """A model that answers the last line's question by a function of it, and is sure of it."""

    def __init__(self, answer, config=None):
        self.answer = answer
        self.config = config
        self.head = lambda x: x

    def eval(self):
        return self

    def hidden_states(self, idx):
        """Logits (B,T,V): 30 nats for the character that the answer has next."""
        x = torch.zeros(*idx.shape, CHARS.vocab_size)
        for row, out in zip(idx.tolist(), x, strict=True):
            text = CHARS.decode(row)
            for t in range(text.find("="), len(text)):
                question, equals, begun = text[: t + 1].rpartition("\n")[2].partition("=")
                if equals:
                    whole = self.answer(question + "=") + "\n"
                    out[t, CHARS.encode(whole[len(begun) : len(begun) + 1] or "\n")[0]] = 30
        return x


def guess(question):
    """An answer of the right form, drawn by the question's hash."""
    rng, right = random.Random(question), solve(question)
    word, _, body = question[:-1].partition(" ")
    if word == "after":
        return rng.choice(body.split(" ")[0][1:])
    if word == "add":
        n = len(body.split("+")[0])
        least, most = 10 ** (n - 1) * (n > 1), 10**n - 1
        return str(rng.randint(2 * least, 2 * most))[::-1]
    letters = {"copy": "abcdefghijklmnopqrstuvwxyz", "close": ")]}", "find": "0123456789"}[word]
    return "".join(rng.choices(letters, k=len(right)))


def quiz(num=60, shots=0, skills=SKILLS):
    made = Quiz(list(skills), num, shots, seed=0)
    assert made.encode(CHARS, None, 1000) == []
    return made


def test_wilsons_interval_by_hand():
    """Of 10 tries: center (p + 0.19207) / 1.38415. The interval is not empty at 0 and 10."""
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0, 0.27754), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((1 - 0.27754, 1), abs=1e-4)
    row = rate("exact", "copying", 4, "model", [True] * 3 + [False])
    assert (row.value, row.n) == (0.75, 4)
    row = average("nats", "copying", 4, "model", [1.0, 3.0])  # sd 1.414, standard error 1
    assert (row.value, row.low, row.high) == pytest.approx((2, 0.04, 3.96))


def test_wilsons_interval_holds_the_rate_as_often_as_it_says():
    """Summed over the binomial: at p = 0.3, n = 20 in 90 to 99 % of all draws."""
    p, n = 0.3, 20
    held = sum(
        math.comb(n, k) * p**k * (1 - p) ** (n - k)
        for k in range(n + 1)
        if wilson(k, n)[0] <= p <= wilson(k, n)[1]
    )
    assert 0.9 < held < 0.99


@pytest.mark.parametrize("shots", [0, 2])
def test_an_oracle_is_right_everywhere(shots):
    rows = quiz(20, shots).measure(Writer(solve), CHARS.vocab_size, CPU)
    assert len(rows) == 2 * 15
    for row in rows:
        assert row.value == pytest.approx(1 if row.measure == "exact" else 0, abs=1e-6), row


def test_guesses_score_at_chance():
    """A guess of the right form is right about as often as `chance` says: 15 intervals of 95 %."""
    made = quiz(80)
    chance = {(r.name, r.level): r.value for r in made.chance() if r.measure == "exact"}
    found = made.measure(Writer(guess), CHARS.vocab_size, CPU)
    for row in found:
        if row.measure == "exact":
            wide = 0.02  # one lucky passkey among 80
            assert row.low - wide <= chance[row.name, row.level] <= row.high + wide, row
    assert chance["induction", 4] == 1 / 4
    assert chance["brackets", 2] == pytest.approx(1 / 9)


def test_one_wrong_token_is_a_wrong_answer():
    """The last bracket, or a digit too many: not half right."""
    for spoil in (lambda s: s[:-1] + ("(" if s[-1] != "(" else "["), lambda s: s + "1"):
        rows = quiz(20).measure(Writer(lambda q, f=spoil: f(solve(q))), CHARS.vocab_size, CPU)
        assert {row.value for row in rows if row.measure == "exact"} == {0}


def test_answers_are_what_greedy_decoding_writes():
    """In one padded pass, against `generate` a token at a time and a sum by hand."""
    torch.manual_seed(0)
    shape = {"vocab_size": 20, "block_size": 32, "n_layer": 2, "n_head": 2, "d_model": 16}
    model = TinyGPT(GPTConfig(**shape, pos="rope", emb_conv=2, emb_std=1.0)).eval()
    prompts = [[1, 2, 3], [4] * 9, [7, 0]]
    written = [list(map(int, generate(model, [p], 5, temperature=0, vocab_size=18)))
               for p in prompts]  # fmt: skip
    wrong = [[*w[:4], (w[4] + 1) % 18] for w in written]
    tasks = list(zip(prompts * 2, written + wrong, strict=True))
    got = list(answers(model, tasks, 18, CPU))
    assert [right for right, _ in got] == [True] * 3 + [False] * 3
    for (prompt, answer), (_, nats) in zip(tasks, got, strict=True):
        logp = model(torch.tensor([prompt + answer]))[0][0, :, :18].log_softmax(-1)
        by_hand = -sum(logp[len(prompt) - 1 + i, a].item() for i, a in enumerate(answer))
        assert nats == pytest.approx(by_hand, rel=1e-4)


def test_a_task_is_read_as_a_line_of_the_training_text():
    """After a newline, after solved tasks, or at the start of a document."""
    task = held_out("addition", 1, 3)[0]
    shown = held_out("addition", 1, 3)[1:]
    before, answer = asked(CHARS, task, [], None)
    assert CHARS.decode(before + answer) == f"\n{task.line}\n"
    before, _ = asked(CHARS, task, shown, None)
    assert CHARS.decode(before) == f"\n{shown[0].line}\n{shown[1].line}\n{task.question}"
    ended = CharTokenizer(CHARS.chars, ["<|endoftext|>"])
    before, _ = asked(ended, task, [], len(CHARS.chars))
    assert ended.decode(before) == "<|endoftext|>" + task.question


def test_skills_are_known_by_the_training_text():
    assert skills_in(TASKS) == list(SKILLS)
    assert skills_in("add 1+2=3\n") == ["addition"]
    assert skills_in(make_text() + "\nand so add a = b\nfind me\nclose the door") == []


def test_tasks_that_do_not_fit_are_said(text_file):
    made = Quiz(["passkey", "addition"], 10, 0, 0)
    notes = made.encode(CHARS, None, 40)
    assert [note[:27] for note in notes] == [
        "passkey 32: not applicable:",
        "passkey 64: not applicable:",
    ]
    assert "the context has 40" in notes[0]
    assert set(made.asked) == {("passkey", 16), *(("addition", n) for n in (1, 2, 3))}
    few = CharTokenizer("abc\n=")
    assert "not applicable" in Quiz(["addition"], 10, 0, 0).encode(few, None, 100)[0]


class Repeater:
    """Predicts what followed the same token before; without one, nothing is likelier."""

    def __init__(self, V, sure=30.0):
        self.V, self.sure = V, sure

    def __call__(self, idx):
        x = torch.zeros(*idx.shape, self.V)
        for row, out in zip(idx.tolist(), x, strict=True):
            for t, token in enumerate(row):
                if token in row[:t]:
                    out[t, row[row.index(token) + 1]] = self.sure
        return x, None


def test_random_tokens_twice():
    """A model that copies pays for the first copy alone; one that knows nothing, ln V for both."""
    pool = np.arange(3, 40)
    idx = repeat.twice(pool, 10, 8, seed=0)
    assert idx.shape == (10, 16)
    assert torch.equal(idx[:, :8], idx[:, 8:])
    assert all(len(set(row)) == 8 for row in idx[:, :8].tolist())
    assert idx.min() >= 3
    assert len({tuple(row) for row in idx.tolist()}) == 10
    first, second, again = repeat.measure(Repeater(40), idx, CPU)
    assert first.value == pytest.approx(math.log(40), abs=1e-4)
    assert second.value == pytest.approx(0, abs=1e-4)
    assert again.value == 1
    first, second, _ = repeat.measure(Repeater(40, 0.0), idx, CPU)
    assert first.value == second.value == pytest.approx(math.log(40), abs=1e-4)
    assert [row.value for row in repeat.chance(pool)] == pytest.approx(
        [math.log(37), math.log(37), 1 / 37]
    )


def test_pairs_write_what_followed():
    """Of 0 1 2 0 3 and the end 9: after 1 always 2, after 0 as often 1 as 3."""
    train = np.array([0, 1, 2, 0, 3, 9], np.uint16)
    writer = Pairs(train)
    assert writer.write([1], 1, None, seed=0) == [2]
    after = [writer.write([5, 0], 1, None, seed)[0] for seed in range(200)]
    assert 70 < after.count(1) < 130
    assert set(after) == {1, 3}
    assert writer.write([3], 5, 9, seed=0) == []  # the end comes next
    assert writer.write([3], 5, None, seed=0) == [9]  # nothing follows the last
    assert writer.write([7], 5, None, seed=0) == []  # nor what never stood there


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Stories as a prepared text, in characters."""
    path = tmp_path_factory.mktemp("tiny")
    (path / "tiny.txt").write_text(compose_stories(30_000, seed=3), encoding="utf-8")
    return open_dataset(
        prepared(path / "tiny.txt", tokenizer="char", doc_sep="\n\n", scratch=path), keep=False
    )


def test_stories_whole_and_their_openings(tiny):
    stories = whole_stories(tiny)
    text = compose_stories(30_000, seed=3).strip().split("\n\n")
    assert (
        stories == [s + "\n" * (s is text[-1]) for s in text[-len(stories) :]]
        or [s.strip() for s in stories] == text[-len(stories) :]
    )
    assert opening("One day, Tom sat down.") == "One day, Tom"
    assert opening(" \n So it\nwas.") == " \n So it\nwas."
    assert opening("Oh!") == "Oh!"


def test_rules_between_a_ceiling_and_a_floor(tiny, monkeypatch):
    """Validation keeps all rules, pairs of characters hardly one; a model that is right, all."""
    monkeypatch.setattr(stories_module, "STEPS", 900)  # characters
    tested = Stories(tiny, 6, seed=0)
    bounds = {(row.of, row.name): row for row in tested.bounds()}
    assert bounds["validation", ALL].value > 0.7
    assert bounds["validation", "quotes"].value == 1
    assert bounds["bigram", ALL].value == 0
    assert bounds["bigram", "words"].value == 0
    assert bounds["bigram", ALL].n == 6
    text = tested.real[0]
    rows = tested.judged("model", [(text, True), (text, False)])
    assert {row.name: row.value for row in rows if row.value < 1} == {ALL: 0.5, "end": 0.5}
    V = tiny.tokenizer.vocab_size
    torch.manual_seed(0)
    model = TinyGPT(GPTConfig(vocab_size=V, block_size=16, n_layer=1, n_head=1, d_model=8))
    monkeypatch.setattr(stories_module, "STEPS", 12)
    assert {row.n for row in tested.measure(model)} == {6}


def test_other_texts_are_not_judged_as_stories(text_file):
    path = prepared(text_file, tokenizer="char", scratch=text_file.parent / "scratch")
    data = open_dataset(path, keep=False)
    config = GPTConfig(vocab_size=data.tokenizer.vocab_size, block_size=8, n_head=1, d_model=8)
    suite = Suite(Subject(config, data.tokenizer, None, [data]), 4, 0, 0, CPU)
    assert [note.split(":")[0] for note in suite.notes] == ["skills", "stories"]
    assert "of stories like data/tiny.txt" in suite.notes[1]
    assert {row.measure for row in suite.measure(TinyGPT(config))} == {"repeat", "again"}
    unknown = Suite(Subject(config, data.tokenizer, None, []), 4, 0, 0, CPU)
    assert "give --data" in unknown.notes[-1]


class Known:
    """Gives the next token (x + 1) % V the probability p[t] at position t, the others the rest."""

    def __init__(self, p, V):
        self.p, self.V = torch.tensor(p), V

    def eval(self):
        return self

    def __call__(self, x):
        p = self.p[: x.size(1), None]
        rest = ((1 - p) / (self.V - 1)).log().expand(*x.shape, self.V).clone()
        return rest.scatter(-1, (x[..., None] + 1) % self.V, p.log().expand(*x.shape, 1)), None


def test_loss_by_position_by_hand():
    """A model whose loss at each position is known; the last window of three has two targets."""
    p = [0.1, 0.2, 0.5, 0.9]
    tokens = np.arange(4 * 2 + 3) % 7
    losses = token_losses(Known(p, 7), tokens, 4, 2, CPU)
    assert losses.shape == (3, 4)
    assert np.isnan(losses).sum() == 2
    spans = by_position(losses)
    assert [s.loss for s in spans] == pytest.approx([-math.log(x) for x in p], rel=1e-5)
    assert [s.windows for s in spans] == [3, 3, 2, 2]
    assert [s.se for s in spans] == pytest.approx([0] * 4, abs=1e-6)
    assert [(s.first, s.last) for s in by_doubling(losses)] == [(1, 1), (2, 2), (3, 4)]
    assert by_doubling(losses)[-1].loss == pytest.approx(-math.log(0.45) / 2, rel=1e-5)


def test_standard_errors_by_hand():
    """Two windows with means 1 and 3: their mean is 2, its error 1, however many positions."""
    (whole,) = by_doubling(np.array([[1.0], [3.0]]))
    assert (whole.loss, whole.se, whole.windows) == pytest.approx((2, 1, 2))
    last = by_doubling(np.array([[9.0, 9, 1, 1], [9.0, 9, 3, 3]]))[-1]
    assert (last.loss, last.se) == pytest.approx((2, 1))
    assert math.isnan(by_doubling(np.array([[1.0, 2.0]]))[0].se)


def test_the_mean_over_positions_is_the_loss():
    torch.manual_seed(0)
    model = TinyGPT(GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=2, d_model=8))
    tokens = np.random.default_rng(0).integers(0, 11, 51).astype(np.uint16)
    loss = evaluate(model, next_token, tokens, 1, 3, CPU).loss
    assert overall(token_losses(model, tokens, 8, 3, CPU)) == pytest.approx(loss, rel=1e-6)


def test_doublings_and_the_context_that_is_used():
    assert doublings(1) == [(1, 1)]
    assert doublings(12) == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 12)]
    assert doublings(16) == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16)]
    for T in range(1, 70):
        assert [t for a, b in doublings(T) for t in range(a, b + 1)] == list(range(1, T + 1))
    spans = [Span(i, i, loss, 0.1, 9) for i, loss in enumerate((5, 2.2, 3, 2.2, 2.1, 2), 1)]
    assert context_used(spans).first == 4  # 2.2 is within 0.28 of the last; before it stands a 3
    assert context_used(spans[:1]).first == 1


@pytest.fixture
def kept_run(tmp_path):
    """A toy run on tasks, with three checkpoints kept."""
    (tmp_path / "tasks.txt").write_text(TASKS, encoding="utf-8")
    flags = ["--data", "tasks.txt", "--steps", "6", "--eval_every", "2", "--keep", "3"]
    shape = [*TOY, "--tokenizer", "char", "--block_size", "64", "--pos", "rope"]
    assert train.main([*flags, *shape, "--window", "48", "--lr", "3e-3"]) == 0
    return tmp_path / "runs" / "tasks"


def test_a_curve_from_the_first_weights_on(kept_run, capsys):
    script.main(["--suite", "--curve", "--num", "5"])
    out = capsys.readouterr().out
    assert "4 steps" in out
    assert "stories: not applicable" in out
    with open(kept_run / "suite.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    assert list(dict.fromkeys(row["step"] for row in rows)) == ["0", "2", "4", "6"]
    assert {row["name"] for row in rows if row["measure"] == "exact"} == set(SKILLS)
    assert (kept_run / "suite.png").read_bytes()[:4] == b"\x89PNG"
    script.main(["--suite", "--num", "5", "--ckpt", "last"])  # the same figures, one by one
    kept = json.loads((kept_run / "suite.json").read_text(encoding="utf-8"))
    assert kept["step"] == 6
    last = [row for row in rows if row["step"] == "6"]
    assert len(last) == len(kept["figures"]) == 2 * 2 * 15 + 6
    for row, figure in zip(last, kept["figures"], strict=True):
        assert (row["name"], row["of"]) == (figure["name"], figure["of"])
        assert float(row["value"]) == pytest.approx(figure["value"], rel=1e-5)


def test_a_run_begins_with_the_weights_that_step_0_has(text_file):
    """One step that changes nothing: its checkpoint holds what the run began with."""
    flags = ["--data", str(text_file), "--steps", "1", "--lr", "1e-30", "--run", "still"]
    assert train.main([*flags, *TOY, "--seed", "5"]) == 0
    model, _, checkpoint = load_model(text_file.parent / "runs" / "still", "last")
    first = untrained(checkpoint)
    for name, p in first.named_parameters():
        assert torch.allclose(p, model.get_parameter(name), atol=1e-12), name
    assert untrained({**checkpoint, "source": {"run": "other"}}) is None


def test_by_position_of_a_run_that_slides(kept_run, capsys):
    """A window of 64 reads on: positions up to 128, the loss of eval.py as the mean."""
    script.main(["--by-position", "--block_size", "128"])
    out = capsys.readouterr().out
    assert "65-128" in out
    with open(kept_run / "by_position.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [int(row["position"]) for row in rows] == list(range(1, 129))
    assert (kept_run / "by_position.png").read_bytes()[:4] == b"\x89PNG"
    script.main(["--block_size", "128"])
    scores = json.loads((kept_run / "eval.json").read_text(encoding="utf-8"))
    assert f"{scores['model']['val_loss']:.4f} nats a token" in out
    assert float(rows[0]["bigram"]) == pytest.approx(scores["bigram"]["val_loss"])


def test_a_model_that_reads_both_ways_is_refused(tmp_path):
    check_kind(tmp_path, {})  # before 0.2.0 checkpoints named no kind
    check_kind(tmp_path, {"kind": "gpt"})
    with pytest.raises(ValueError, match="writes no text"):
        check_kind(tmp_path, {"kind": "bert"})


def test_errors_name_the_cure(toy_run, error_of):
    assert "give both" in error_of(script.main, "--curve")
    assert "belongs to --suite" in error_of(script.main, "--by-position", "--num", "5")
    assert "not allowed with" in error_of(script.main, "--suite", "--by-position")
    assert "at least 2" in error_of(script.main, "--suite", "--num", "1")
    assert "train with --keep" in error_of(script.main, "--suite", "--curve")
