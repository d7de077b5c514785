"""train.py --objective masked: a BERT from the first step to eval.py, by the same loop."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TOY, make_text

import eval as eval_script
import sample
import sweep
import train
from data.masked import Pairs
from data.masking import vocabulary
from data.mixture import open_mixture
from data.rows import room
from model import BertConfig, TinyBERT
from tok import BPETokenizer
from tok.special import BERT_TOKENS
from utils.compare import main as compare
from utils.config import read_yaml, recorded_settings, settings_from
from utils.device import pick_device
from utils.doctor.__main__ import report
from utils.embed import embed, nearest
from utils.embed import main as embed_main
from utils.plot import main as plot
from utils.tasks.table import task_of
from utils.training.checkpoint import load_checkpoint
from utils.training.distill import MaskedDistillation
from utils.training.masked import masked_tokens, score_masked
from utils.training.masked_baselines import bag_of_words, masked_baselines
from utils.training.models import load_model
from utils.training.score import Score

BERT = [*TOY, "--objective", "masked", "--block_size", "24", "--doc_sep", "\n", "--vocab", "290"]
BERT += ["--pos", "learned", "--norm_at", "post", "--bias", "true", "--warmup", "2"]
BERT += ["--next_sentence", "false"]  # unless a test asks for it


def bert(text_file, *more, run="bert", steps=6):
    """Train a toy BERT; its directory."""
    own = ["--data", str(text_file), "--run", run, "--steps", str(steps), "--eval_every", "3"]
    assert train.main([*BERT, *own, "--lr", "3e-3", *more]) == 0
    return Path("runs") / run


@pytest.fixture
def bert_run(text_file):
    """A toy BERT with next sentences."""
    return bert(text_file, "--next_sentence")


def rows_of(run):
    with open(run / "metrics.csv", encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def test_a_run_and_what_reads_it(bert_run, capsys):
    """metrics.csv has accuracies, and no bits per byte; so have eval.py, its JSON, and the plot."""
    scored = [row for row in rows_of(bert_run) if row["val_loss"]]
    assert [row["step"] for row in scored] == ["3", "6"]
    for row in scored:
        assert row["val_bits_per_byte"] == ""
        assert 0 <= float(row["val_accuracy"]) <= 1
        assert 0 <= float(row["val_next_accuracy"]) <= 1
    summary = json.loads((bert_run / "summary.json").read_text("utf-8"))
    assert summary["best_val_loss"] == float(scored[-1]["val_loss"])
    assert load_checkpoint(bert_run / "best.pt")["kind"] == "bert"
    capsys.readouterr()
    eval_script.main(["--run", "bert"])
    out = capsys.readouterr().out
    assert "bits" not in out
    for word in ("accuracy", "next", "neighbours", "unigram", "uniform", "bag of words"):
        assert word in out
    kept = json.loads((bert_run / "eval.json").read_text("utf-8"))
    assert kept["model"]["val_loss"] == pytest.approx(summary["best_val_loss"], abs=1e-5)
    assert "bits_per_byte" not in kept["model"]
    plot(["bert", "--out", "p.png"])
    assert Path("p.png").stat().st_size > 10_000


def test_a_resumed_run_is_equal_to_the_bit(text_file):
    """Dropout, masks, pairs: all follow from seed and step."""
    same = ["--next_sentence", "--dropout", "0.1", "--schedule", "trapezoid", "--cooldown", "0"]
    bert(text_file, *same, run="whole")
    bert(text_file, *same, run="halves", steps=3)
    assert train.main(["--run", "halves", "--resume", "--steps", "6"]) == 0
    whole, halves = (load_checkpoint(Path(f"runs/{n}/last.pt")) for n in ("whole", "halves"))
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, halves["model"][name]), name
    ours, theirs = (rows_of(Path(f"runs/{n}")) for n in ("whole", "halves"))
    ours, theirs = ([r["val_loss"] for r in rows if r["val_loss"]] for rows in (ours, theirs))
    assert ours == theirs


def test_the_loss_is_bert_own():
    """nats / count is transformers' sum of two means, here from the full logits."""
    torch.manual_seed(0)
    model = TinyBERT(BertConfig(vocab_size=20, block_size=8, n_layer=1, n_head=2, d_model=16))
    x, types = torch.randint(4, 20, (3, 8)), torch.tensor([[0] * 4 + [1] * 4] * 3)
    y = torch.full((3, 8), -1)
    y[0, 2], y[1, 3], y[1, 4], y[2, 6] = 5, 6, 7, 8
    padding = torch.ones(3, 8, dtype=torch.bool)
    padding[2, 7] = False
    which = torch.tensor([0, 1, 1])
    nats, count = masked_tokens(model, (x, y, types, padding, which))
    logits, loss = model(x, y, token_types=types, padding=padding, is_next=which)
    assert int(count) == 4
    assert nats.item() / 4 == pytest.approx(loss.item(), rel=1e-5)
    states = model.hidden_states(x, types, padding)
    words = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=-1)
    pair = torch.nn.functional.cross_entropy(model.next_sentence(model.pooler(states)), which)
    assert loss.item() == pytest.approx((words + pair).item(), rel=1e-5)


def test_a_row_without_an_ordinary_token_teaches_nothing():
    """A window of separators alone has nothing to hide: 0 of 0 tokens; it was NaN."""
    torch.manual_seed(1)
    model = TinyBERT(BertConfig(vocab_size=24, block_size=8, n_layer=1, n_head=2, d_model=16))
    nothing = torch.full((1, 8), -1)
    nats, count = masked_tokens(model, (torch.zeros_like(nothing), nothing))
    assert (nats.item(), count.item()) == (0.0, 0)
    nats.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_scores_by_a_second_reckoning():
    """Position by position, and batches of another size give the same."""
    torch.manual_seed(0)
    model = TinyBERT(BertConfig(vocab_size=9, block_size=6, n_layer=1, n_head=2, d_model=16))
    with torch.no_grad():
        model.tok_emb.weight.mul_(20)
    x = torch.randint(4, 9, (4, 6))
    y = torch.where(torch.rand(4, 6) < 0.4, x, -1)
    padding = torch.ones(4, 6, dtype=torch.bool)
    whole = (x, y, torch.zeros_like(x), padding)
    parts = [tuple(t[:1] for t in whole), tuple(t[1:] for t in whole)]
    cpu = pick_device("cpu", "float32")
    one, two = (score_masked(model, batches, cpu, True) for batches in ([whole], parts))
    nats = right = n = 0
    model.requires_grad_(False)
    logits = model.eval()(x, padding=padding)[0].log_softmax(-1)
    for r, t in (y >= 0).nonzero().tolist():
        nats, n = nats - float(logits[r, t, y[r, t]]), n + 1
        right += int(logits[r, t].argmax() == y[r, t])
    verdict = model.next_sentence(model.pooler(model.hidden_states(x))).argmax(-1)
    for score in (one, two):
        assert score.nats == pytest.approx(nats, rel=1e-5)
        assert score.tokens == n
        assert score.figures["accuracy"] == pytest.approx(right / n)
        assert score.shares["next_accuracy"] == (int((verdict == 0).sum()), 4)


def test_pairs_that_go_on_and_pairs_that_do_not_are_asked(bert_run, monkeypatch):
    """Who calls every pair true is right for half of them, and false pairs hold other texts."""
    settings = recorded_settings(read_yaml(bert_run / "config.yaml"))
    task = task_of(settings, open_mixture(**settings.text))
    asked = {}

    def says_yes(model, batches, device, is_next):
        asked[is_next] = [x for x, *_ in batches]
        n = sum(len(x) for x in asked[is_next])
        return Score(1.0, 1, shares={"next_accuracy": (n if is_next else 0, n)})

    monkeypatch.setattr("utils.tasks.masked.score_masked", says_yes)
    score, _ = task.evaluate(None, 4, pick_device("cpu", "float32"))
    assert score.figures["next_accuracy"] == 0.5
    assert score.tokens == 1  # masked tokens are those of the true pairs alone
    assert len(asked[True]) == len(asked[False])
    assert any(a.shape != b.shape or (a != b).any() for a, b in zip(*asked.values(), strict=True))


def test_baselines_by_hand():
    """train a b a b: [MASK] between a and b; the unigram of a is (2 + 1) / (4 + 4)."""
    a, b, mask = 0, 1, 3
    train_ids = np.array([a, b, a, b])
    batch = (torch.tensor([[2, a, mask, mask, b, 2]]), torch.tensor([[-1, -1, b, a, -1, -1]]))
    scores = masked_baselines(train_ids, [batch], 4)
    p_a, p_b = 3 / 8, 3 / 8
    after_a = (2 + 1 * p_b) / (2 + 1)  # b after a, twice of two times
    before_b = (2 + 1 * p_a) / (2 + 1)
    expected = -np.log((after_a + p_b) / 2) - np.log((p_a + before_b) / 2)
    assert scores["neighbours"].nats == pytest.approx(expected)
    assert scores["unigram"].nats == pytest.approx(-np.log(p_a) - np.log(p_b))
    assert scores["uniform"].loss == pytest.approx(np.log(4))


def settings_of_text(path, **more):
    yaml = read_yaml(Path(__file__).parent.parent / "configs" / "bert_tiny.yaml")
    return settings_from({**yaml, "data": str(path), **more})


def test_a_bag_of_words_sees_topics(tmp_path):
    """Documents of words that no other has: it is nearly always right; at chance if not."""

    def maker(documents):
        path = tmp_path / f"{len(documents[0])}.txt"
        path.write_text("\n\n".join(documents), encoding="utf-8")
        s = settings_of_text(path, tokenizer="char", doc_sep="\n\n")
        data = open_mixture(**s.text).combined()
        v = vocabulary(data.tokenizer)
        return Pairs([data], (1,), 1, room(32, 2), v), data.tokenizer.vocab_size

    letters = "abcdefghijklmnopqrstuvw"
    own = [f"{c * 5}. {c * 5}." for c in letters]
    for documents, low, high in ((own, 0.9, 1.0), (["abcab. abcab. "] * 20, 0.3, 0.7)):
        pairs, V = maker(documents)
        rows = [pairs.row(i) for i in range(5000, 5200)]
        is_next = np.array([which == 0 for _, which in rows])
        assert low <= bag_of_words(pairs, [s for s, _ in rows], is_next, V) <= high


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--mask_rate", "0"], "mask_rate=0.0 must be between 0 and 1; BERT has 0.15"),
        (["--mask_rate", "1"], "mask_rate=1.0 must be between 0 and 1"),
        (["--mask_random", "0.6", "--mask_keep", "0.6"], "sum to more than 1"),
        (["--objective", "next", "--mask_rate", "0.3"], "mask_rate=0.3 is of --objective masked"),
        (["--labels", "4"], "labels=4 is of --objective classify"),
        (["--lora", "4", "--init", "x"], "lora=4 is for GPTs"),
        (["--quantize", "int8"], "quantize=8 is for GPTs"),
        (["--watch"], "watch=True is for GPTs"),
        (["--parallel", "fsdp", "--sample", "0"], "parallel=fsdp is for GPTs"),
        (["--phases", "until=3 my=1; my=1"], "phases=until=3"),
        (["--doc_sep", "#", "--next_sentence"], "has 1; set doc_sep to what divides it"),
        (["--block_size", "6", "--next_sentence"], "block_size=6 has no room for [CLS]"),
        (["--block_size", "30000"], "too short for rows of 29998"),
        (["--emb_conv", "2"], "emb_conv=2 looks back only"),
    ],
)
def test_bad_input_is_named(text_file, error_of, flags, said):
    own = ["--data", str(text_file), "--run", "bad", "--steps", "1"]
    assert said in error_of(train.main, *BERT, *own, *flags)
    assert not Path("runs/bad").exists()


def test_a_tokenizer_without_mask_is_refused(text_file, error_of):
    BPETokenizer.train([make_text()], 300).save("plain.json")
    said = error_of(train.main, *BERT, "--data", text_file, "--tokenizer", "plain.json")
    assert "the tokenizer has no [CLS] [SEP] [PAD] [MASK]; leave --tokenizer FILE out" in said


def test_a_text_without_documents_needs_no_more_flags(text_file):
    """The defaults are those of configs/bert_tiny.yaml, which asks for next sentences of its text.

    Of any other text `train.py --objective masked --data my.txt` failed by that.
    """
    shape = ["--n_layer", "1", "--d_model", "16", "--n_head", "2", "--steps", "2", "--run", "plain"]
    own = ["--objective", "masked", "--data", str(text_file), "--vocab", "290", "--sample", "0"]
    assert train.main([*own, *shape, "--device", "cpu", "--dtype", "float32"]) == 0
    found = read_yaml(Path("runs/plain/config.yaml"))
    assert (found["next_sentence"], found["mask_rate"]) == (False, 0.3)


def test_characters_and_windows(text_file):
    run = bert(text_file, "--tokenizer", "char", "--whole_words", run="chars")
    _, tokenizer, _ = load_model(run, kind="bert")
    assert set(BERT_TOKENS) <= tokenizer.special_tokens.keys()
    assert "val_next_accuracy" not in rows_of(run)[0]


def test_masks_may_be_of_other_shares(text_file):
    """mask-all at 25 % as Cramming; what is scored stays the same."""
    run = bert(text_file, "--mask_rate", "0.25", "--mask_random", "0", "--mask_keep", "0")
    config = read_yaml(run / "config.yaml")
    assert (config["mask_rate"], config["mask_random"], config["mask_keep"]) == (0.25, 0.0, 0.0)


def test_a_mixture_is_scored_by_source(text_file):
    other = text_file.with_name("other.txt")
    other.write_text(make_text(5000)[::-1], encoding="utf-8")
    run = bert(text_file, "--mixture", f"{text_file}=2 {other}=1", "--next_sentence", run="mix")
    scored = [row for row in rows_of(run) if row["val_loss"]][-1]
    assert float(scored["val_loss_my"]) > 0 < float(scored["val_loss_other"])


def test_one_batch_is_learnt_by_heart(text_file):
    own = ["--data", str(text_file), "--run", "o", "--overfit", "--steps", "150", "--lr", "1e-2"]
    assert train.main([*BERT, *own, "--next_sentence", "--sample", "0"]) == 0
    rows = [float(r["train_loss"]) for r in rows_of(Path("runs/o-overfit")) if r["train_loss"]]
    assert rows[-1] < 0.3 * rows[0]


def test_a_dry_run_writes_nothing(text_file, capfd):
    own = [*BERT, "--data", str(text_file), "--run", "dry", "--steps", "5", "--next_sentence"]
    assert train.main([*own, "--dry-run"]) == 0
    out = capfd.readouterr().out
    assert "parameters  " in out
    assert "5 steps" in out
    assert not Path("runs").exists()


def test_going_on_from_a_run(bert_run, text_file, error_of):
    """--init keeps model, tokenizer and objective; a GPT and a BERT do not take each other's."""
    flags = ["--data", str(text_file), "--steps", "2", "--device", "cpu", "--sample", "0"]
    flags += ["--doc_sep", "\n"]
    assert train.main(["--init", "bert", "--run", "more", *flags]) == 0
    config = read_yaml("runs/more/config.yaml")
    assert (config["objective"], config["next_sentence"]) == ("masked", True)
    before, after = (load_checkpoint(Path(f"runs/{n}/best.pt"))["model"] for n in ("bert", "more"))
    assert before.keys() == after.keys()
    said = error_of(train.main, "--init", "bert", "--objective", "next", "--run", "no", *flags)
    assert "what --init names is a BERT" in said
    said = error_of(train.main, "--run", "bert", "--resume", "--objective", "classify")
    assert "=True is of --objective masked" in said or "=0.3 is of --objective masked" in said


def test_filling_masks(bert_run, capfd, error_of):
    sample.main(["--run", "bert", "--fill", "the [MASK] sat on a [MASK].", "--top", "3"])
    out = capfd.readouterr().out
    assert out.count("%") == 6
    assert "[MASK] 2" in out
    filled = out.rstrip().splitlines()[-1]
    assert filled.startswith("the")
    assert "[MASK]" not in filled
    assert "no [MASK] in 'the cat'" in error_of(sample.main, "--run", "bert", "--fill", "the cat")
    long = "the [MASK] " * 40
    assert "but the model reads 22" in error_of(sample.main, "--run", "bert", "--fill", long)
    said = error_of(sample.main, "--run", "bert", "--fill", "a [MASK]", "--prompt", "b")
    assert "--fill fills [MASK]s; leave out prompts" in said
    assert "top=0" in error_of(sample.main, "--run", "bert", "--fill", "a [MASK]", "--top", "0")
    assert "is a BERT, which reads and does not write" in error_of(
        sample.main, "--run", "bert", "--prompt", "the"
    )


def test_a_gpt_fills_nothing(toy_run, error_of):
    said = error_of(sample.main, "--run", "my", "--fill", "the [MASK] sat")
    assert "is a GPT, which has no [MASK]: sample.py --prompt" in said


def test_lines_as_vectors(bert_run, capfd, error_of):
    """Whatever lines are beside one, its vector is the same; equal lines are nearest."""
    lines = ["the cat sat", "on a mat and saw the dog", "red barn", "the cat sat"]
    model, tokenizer, _ = load_model(bert_run, kind="bert")
    for pool in ("mean", "cls", "pooler"):
        e = embed(model.eval(), tokenizer, lines, pool)
        assert e.shape == (4, 16)
        assert np.linalg.norm(e, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
        assert embed(model, tokenizer, lines[1:2], pool)[0] == pytest.approx(e[1], abs=1e-5)
        assert nearest(e)[0] == (3, pytest.approx(1.0, abs=1e-5))
    Path("lines.txt").write_text("\n".join(lines), encoding="utf-8")
    embed_main(["bert", "lines.txt", "--out", "e.npy"])
    assert np.load("e.npy") == pytest.approx(embed(model, tokenizer, lines, "mean"), abs=1e-6)
    assert "  1.000  the cat sat" in capfd.readouterr().out
    Path("one.txt").write_text("alone", encoding="utf-8")
    assert "has 1 line; give two or more" in error_of(embed_main, "bert", "one.txt")
    assert "must end in .npy" in error_of(embed_main, "bert", "lines.txt", "--out", "e.txt")
    Path("long.txt").write_text("the cat sat " * 20 + "\nno", encoding="utf-8")
    assert "but the model reads 22; cut it" in error_of(embed_main, "bert", "long.txt")


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_processes_learn_what_one_does(text_file):
    """The losses of one process with twice the accumulation, for every objective of a BERT."""
    from test_ranks import train_losses, train_on_two

    flags = [*BERT, "--data", str(text_file), "--sample", "0", "--log_every", "1", "--lr", "3e-3"]
    flags += ["--eval_every", "3", "--min_lr", "3e-3", "--warmup", "0", "--steps", "4"]
    other = text_file.with_name("other.txt")
    other.write_text(make_text(5000)[::-1], encoding="utf-8")
    classes = ["--objective", "classify", "--mixture", f"{text_file}=1 {other}=1"]
    kinds = {"pairs": ["--next_sentence"], "windows": [], "classes": classes}
    for name, own in kinds.items():
        assert train.main([*flags, *own, "--run", f"{name}-one", "--accum", "4"]) == 0
    runs = [[*flags, *own, "--run", f"{n}-two", "--accum", "2"] for n, own in kinds.items()]
    done, said = train_on_two(runs, "never", 0)
    assert [status for *_, status in done] == [0, 0], done
    assert "ranks   2, by ddp" in said
    for name in kinds:
        assert len(train_losses(f"{name}-two")) == 6
        one, two = (train_losses(f"{name}-{which}") for which in ("one", "two"))
        assert two == pytest.approx(one, abs=1e-6), name


def test_a_student_of_a_bert(bert_run, text_file, error_of):
    """From some of its layers, by its predictions; a GPT does not teach a BERT."""
    own = ["--next_sentence", "--n_layer", "1", "--distill_alpha", "0.9"]
    run = bert(text_file, *own, "--teacher", "bert", run="student", steps=3)
    checkpoint = load_checkpoint(run / "last.pt")
    assert checkpoint["teacher"]["run"] == "runs/bert"
    assert checkpoint["kind"] == "bert"
    plain = ["--data", str(text_file), "--run", "gpt", "--steps", "1", *TOY]
    assert "is a BERT, and its student a GPT" in error_of(train.main, *plain, "--teacher", "bert")


def test_what_a_student_of_a_bert_learns():
    """A second reckoning over masked positions; alone, it is BERT's own loss."""
    torch.manual_seed(1)
    shape = {"vocab_size": 11, "block_size": 8, "n_head": 2, "d_model": 16}
    student, teacher = (TinyBERT(BertConfig(**shape, n_layer=n)).eval() for n in (1, 2))
    with torch.no_grad():
        for model in (student, teacher):
            model.tok_emb.weight.mul_(30)
            model.requires_grad_(False)
    x = torch.randint(4, 11, (2, 8))
    y = torch.where(torch.rand(2, 8) < 0.4, x, -1)
    batch = (x, y, torch.zeros_like(x), torch.ones_like(x, dtype=torch.bool), torch.tensor([0, 1]))
    own = float(masked_tokens(student, batch)[0])
    total, n = 0.0, int((y >= 0).sum())
    for r, t in (y >= 0).nonzero().tolist():
        q, p = (model(x)[0][r, t].div(2).softmax(-1) for model in (student, teacher))
        total += float(4 * (p * (p / q).log()).sum())
    nats, count = MaskedDistillation(teacher, 0.3, 2.0)(student, batch)
    assert int(count) == n
    assert nats.item() == pytest.approx(0.3 * total + 0.7 * own, rel=1e-4)
    assert MaskedDistillation(teacher, 0.0, 2.0)(student, batch)[0].item() == pytest.approx(own)


def test_doctor_compare_and_sweep_read_it(bert_run, text_file, toy_run, capfd, error_of):
    assert "layers: the doctor looks into GPTs only" in report(bert_run)
    bert(text_file, "--next_sentence", "--seed", "2", run="other")
    compare(["bert", "other"])
    assert "validation loss" in capfd.readouterr().out
    assert "they learn different things (masked and next)" in error_of(compare, "bert", "my")
    flags = ["--name", "s", "--config", str(bert_run / "config.yaml"), "--mask_rate", "0.1", "0.3"]
    sweep.main([*flags, "--steps", "2", "--eval_every", "2"])
    assert "mask_rate" in next(Path("runs").glob("*s/results.csv")).read_text("utf-8")
