"""train.py --objective classify: classes of texts, by a BERT that has read before or not."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TOY
from test_masked_train import bert, rows_of

import eval as eval_script
import train
from data.classes import class_texts
from data.labelled import LabelledBatches, few, texts_of
from data.masking import vocabulary
from data.mixture import open_mixture
from model import BertConfig, TinyBERT
from utils.device import pick_device
from utils.tasks.tfidf import tfidf
from utils.training.checkpoint import load_checkpoint
from utils.training.masked import classes, score_classes

OWN = [*TOY, "--objective", "classify", "--doc_sep", "\n", "--pos", "learned", "--bias", "true"]
OWN += ["--steps", "6", "--eval_every", "3", "--lr", "3e-3", "--warmup", "0"]
TEXTS = {
    "cats": ["the cat sat on a mat", "a cat saw the red cat", "cat and cat", "old cat to sea"],
    "dogs": ["the dog run to the barn", "a dog by the sea", "dog and old dog", "red dog on a mat"],
}


@pytest.fixture
def folder(tmp_path):
    """Two folders of 40 texts each."""
    for name, texts in TEXTS.items():
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(40):
            text = texts[i % 4] + f" and {texts[i // 10 % 4]}"
            (tmp_path / "pets" / name / f"{i}.txt").write_text(text, encoding="utf-8")
    return tmp_path / "pets"


def test_a_folder_each_or_a_file_each(folder, tmp_path):
    """In a folder the files are texts, mixed by their content: names decide nothing."""
    found = class_texts(str(folder), "", "\n", tmp_path / "joined")
    assert [Path(path).stem for path in found] == ["cats", "dogs"]
    assert set(found.values()) == {1}
    joined = Path(next(iter(found))).read_text("utf-8").split("\n")
    assert len(joined) == 40
    assert set(joined) == {p.read_text("utf-8") for p in (folder / "cats").iterdir()}
    files = tmp_path / "files"
    files.mkdir()
    for name in ("a", "b", "c"):
        (files / f"{name}.txt").write_text("x\ny\n", encoding="utf-8")
    assert list(class_texts(str(files), "", "\n")) == [str(files / f"{n}.txt") for n in "abc"]
    for name in ("v1.0", "v1.5"):  # folders: what follows a dot is no ending
        (tmp_path / "dots" / name).mkdir(parents=True)
        (tmp_path / "dots" / name / "1.txt").write_text(name, encoding="utf-8")
    dots = class_texts(str(tmp_path / "dots"), "", "\n")
    assert [Path(path).stem for path in dots] == ["v1.0", "v1.5"]
    named = class_texts("", f"{files}/a.txt=1 {files}/c.txt=1", "\n")
    assert list(named) == [f"{files}/a.txt", f"{files}/c.txt"]


def test_bad_classes_are_named(folder, tmp_path, error_of):
    def said(*flags):
        message = error_of(train.main, *OWN, "--run", "bad", *flags)
        assert not Path("runs/bad").exists()
        return message

    (tmp_path / "one" / "cats").mkdir(parents=True)
    (tmp_path / "one" / "cats" / "1.txt").write_text("the cat", encoding="utf-8")
    assert "one has cats; classes are two or more" in said("--data", tmp_path / "one")
    (tmp_path / "one" / "dogs").mkdir()
    assert "dogs holds no .txt file" in said("--data", tmp_path / "one")
    (tmp_path / "one" / "dogs" / "1.txt").write_text("the dog " * 40, encoding="utf-8")
    (tmp_path / "one" / "cats" / "1.txt").write_text("the cat " * 40, encoding="utf-8")
    assert "the class 'cats' has 1 text, too few" in said("--data", tmp_path / "one")
    assert "1.txt is one text, and classes are several" in said(
        "--data", tmp_path / "one" / "cats" / "1.txt"
    )
    assert "none: no such folder; give one" in said("--data", tmp_path / "none")
    assert "labels=99, but a class has" in said("--data", folder, "--labels", "99")
    taught = ["--teacher", "x", "--tokenizer", "bpe"]
    assert "teaches tokens, not classes" in said("--data", folder, *taught)
    assert "doc_sep is empty" in said("--data", folder, "--doc_sep", "")


def opened(folder):
    text = {"tokenizer": "bpe", "vocab": 280, "doc_sep": "\n", "classes": True}
    return open_mixture(str(folder), **text, specials=("[CLS]", "[SEP]", "[PAD]", "[MASK]"))


def test_texts_are_split_and_chosen(folder):
    mixture = opened(folder)
    for name, data in mixture.datasets.items():
        train_texts, val = (texts_of(data, part, name) for part in (data.train, data.val))
        assert len(train_texts) + len(val) == 40
        assert 2 <= len(val) <= 6
        word = name[:-1]
        for ids in (*train_texts, *val):
            assert word in data.tokenizer.decode(ids.tolist())
        chosen = few(train_texts, 8, 1)
        assert len(chosen) == 8
        again = few(train_texts, 8, 1)
        assert all((a == b).all() for a, b in zip(chosen, again, strict=True))
        assert len(few(train_texts, 0, 1)) == len(train_texts)


def test_batches_hold_every_text_once_per_epoch(folder):
    mixture = opened(folder)
    v = vocabulary(mixture.combined().tokenizer)
    texts = [(np.arange(5 + i, 10 + i), i % 2) for i in range(6)]
    batches = LabelledBatches(texts, v, 16, 3, seed=1)
    x = torch.cat([batches.batch(i)[0] for i in (0, 1)])
    assert x.shape == (6, 16)
    assert sorted(x[:, 1].tolist()) == [5, 6, 7, 8, 9, 10]
    for ids, padding, labels in (batches.batch(i) for i in range(4)):
        assert (padding.sum(1) == 7).all()
        assert ((ids[:, 1] - 5) % 2 == labels).all()
    short = LabelledBatches(texts, v, 5, 3, seed=1).batch(0)
    assert short[0].shape == (3, 5)
    assert short[1].all()


def test_the_table_by_a_second_reckoning():
    torch.manual_seed(0)
    shape = {"vocab_size": 20, "block_size": 6, "n_layer": 1, "n_head": 2, "d_model": 16}
    model = TinyBERT(BertConfig(**shape, classes=3))
    with torch.no_grad():
        model.tok_emb.weight.mul_(30)
        model.classifier.weight.mul_(30)
    model.requires_grad_(False)
    x = torch.randint(20, (7, 6))
    padding = torch.ones(7, 6, dtype=torch.bool)
    padding[3, 4:] = False
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    whole = (x, padding, labels)
    parts = [tuple(t[:2] for t in whole), tuple(t[2:] for t in whole)]
    score, table = score_classes(model, parts, pick_device("cpu", "float32"))
    expected, nats = np.zeros((3, 3), int), 0.0
    for i in range(7):
        n = int(padding[i].sum())
        states = model.hidden_states(x[i : i + 1, :n])
        p = model.classifier(model.pooler(states))[0].log_softmax(-1)
        expected[labels[i], int(p.argmax())] += 1
        nats -= float(p[labels[i]])
    assert table.tolist() == expected.tolist()
    assert score.nats == pytest.approx(nats, rel=1e-4)
    assert score.figures == {"accuracy": pytest.approx(expected.trace() / 7)}
    loss, count = classes(model.eval(), whole)
    assert loss.item() == pytest.approx(nats, rel=1e-4)
    assert int(count) == 7


def test_a_run_from_a_bert_and_from_nothing(folder, text_file, capfd, error_of):
    """The body is the BERT's, the classifier new; eval.py shows the table; resume is exact."""
    bert(text_file, "--next_sentence", "--vocab", "280")
    flags = ["--data", str(folder), "--sample", "8", "--device", "cpu", "--dtype", "float32"]
    own = ["--objective", "classify", "--init", "bert", *flags, "--doc_sep", "\n"]
    own += ["--eval_every", "3", "--schedule", "trapezoid", "--cooldown", "0"]
    assert train.main([*own, "--run", "tiny-lr", "--steps", "1", "--lr", "1e-30"]) == 0
    before, after = (load_checkpoint(Path(f"runs/{n}/best.pt")) for n in ("bert", "tiny-lr"))
    assert after["model_config"]["classes"] == 2
    for name, tensor in before["model"].items():
        torch.testing.assert_close(after["model"][name], tensor)
    assert train.main([*own, "--run", "c", "--steps", "6"]) == 0
    assert train.main([*own, "--run", "d", "--steps", "3"]) == 0
    assert train.main(["--run", "d", "--resume", "--steps", "6"]) == 0
    whole, halves = (load_checkpoint(Path(f"runs/{n}/last.pt"))["model"] for n in "cd")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    capfd.readouterr()
    eval_script.main(["--run", "c"])
    out = capfd.readouterr().out
    for word in ("accuracy", "majority", "chance", "rows: what texts are", "cats", "dogs"):
        assert word in out
    kept = json.loads(Path("runs/c/eval.json").read_text("utf-8"))
    assert kept["chance"] == {"val_loss": pytest.approx(np.log(2)), "accuracy": 0.5}
    assert float(rows_of(Path("runs/c"))[-1]["val_accuracy"]) == kept["model"]["accuracy"]
    summary = json.loads(Path("runs/c/summary.json").read_text("utf-8"))
    assert summary["data"]["sources"] == ["cats", "dogs"]
    assert train.main([*OWN, "--data", str(folder), "--run", "scratch", "--labels", "4"]) == 0
    said = error_of(train.main, "--init", "c", "--objective", "next", "--run", "no", *flags)
    assert "doc_sep" in said or "is a BERT" in said or "meta.json" in said


def test_a_hopeless_task_is_not_solved_and_an_easy_one_is(folder):
    assert train.main([*OWN, "--data", str(folder), "--run", "easy", "--steps", "60"]) == 0
    scored = [r for r in rows_of(Path("runs/easy")) if r["val_loss"]]
    assert float(scored[-1]["val_accuracy"]) == 1.0


def test_bags_of_words_by_scikit_learn():
    pytest.importorskip("sklearn")
    rng = random.Random(1)
    words = [["red", "dog", "sea"], ["cat", "mat", "old"]]
    texts = [(" ".join(rng.choices(words[i % 2], k=6)), i % 2) for i in range(60)]
    train_texts, val = texts[:40], texts[40:]
    found = tfidf(*zip(*train_texts, strict=True), *zip(*val, strict=True))["tf-idf"]
    assert found["accuracy"] == 1.0
    assert 0 < found["val_loss"] < 0.5
