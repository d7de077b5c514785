"""What of a text stands in the training text, beside a second, slow way to find it."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sample
import train
from tok import END_OF_TEXT
from utils.training.models import load_model
from utils.writing import novelty as module
from utils.writing.novelty import WINDOW, Words, novelty, sentences, training_text, training_words

WORDS = st.lists(st.sampled_from(["a", "b", "b.", 'c!"', "d?"]), max_size=40)


def stands(run, training):
    """Second implementation: whether a list stands somewhere in another one."""
    return any(training[i : i + len(run)] == run for i in range(len(training) - len(run) + 1))


def slow_lengths(words, training):
    n = len(words)
    runs = [[j - i for j in range(i, n + 1) if stands(words[i:j], training)] for i in range(n)]
    return list(map(max, runs))


@settings(deadline=None)
@given(WORDS, WORDS)
def test_run_lengths_are_those_of_a_search(words, training):
    assert Words(training).run_lengths(words) == slow_lengths(words, training)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=3), WORDS, st.integers(2, 4))
def test_the_figures_are_those_of_a_search(texts, training, window):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW", window)
        found = novelty(map(" ".join, texts), Words(training))
    ended = [words[i:j] for words in texts for i, j in sentences(words)]
    windows = [w[i : i + window] for w in texts for i in range(len(w) - window + 1)]
    assert found.sentences == len(ended)
    assert found.known_sentences == sum(stands(s, training) for s in ended)
    assert found.windows == len(windows)
    assert found.known_windows == sum(stands(w, training) for w in windows)
    runs = [n for words in texts for n in slow_lengths(words, training)]
    assert len(found.longest.split()) == max(runs, default=0)
    assert stands(found.longest.split(), training)


def test_by_hand():
    assert Words("bcabd").run_lengths("abc") == [2, 2, 1]
    assert sentences(['"Go!"', "he", "said.", "The", "end"]) == [(0, 1), (1, 3)]
    text = "Tom had a hat. It was blue. Mina had a cat."
    training = Words(text.split())
    found = novelty(["Mina had a hat. It was blue. The end"], training)
    assert (found.sentences, found.known_sentences) == (2, 1)
    assert found.longest == "had a hat. It was blue."
    assert str(found).splitlines() == [
        "1 of 2 sentences stand in the training text word for word, and 0% of all runs of 12 words",
        "the longest run has 6 words: had a hat. It was blue.",
    ]
    assert "has 0 words" in str(novelty([""], training))
    long = Words(["hat"] * 50).run_lengths(["hat"] * 40)
    assert long == list(range(40, 0, -1))


def test_only_training_counts_and_documents_are_kept_apart(toy_run):
    mixture = training_text(toy_run, load_model(toy_run)[2])
    data = mixture.combined()
    words = training_words([data])
    text = data.tokenizer.decode(data.train.tolist()).split()
    found = novelty([" ".join(text[:30])], words)
    assert found.known_windows == found.windows == 30 - WINDOW + 1
    assert not found.limited
    if END_OF_TEXT in data.tokenizer.special_tokens:
        assert END_OF_TEXT in words.ids


def test_of_a_long_text_only_the_first_tokens_are_read(toy_run, monkeypatch):
    data = training_text(toy_run, load_model(toy_run)[2]).combined()
    monkeypatch.setattr(module, "LIMIT", 50)
    words = training_words([data, data])
    assert words.limited
    assert len(words.text) <= 50 + 4
    assert "(its first 50 tokens)" in str(novelty(["a"], words))


def test_two_hundred_kilobytes_are_quick():
    training = Words(f"{'a' * (i % 7)}{i * i % 997}" for i in range(40_000))
    start = time.perf_counter()
    novelty(["a" * (i % 7) + str(i * i % 991) for i in range(200)], training)
    assert time.perf_counter() - start < 1


def test_sample_says_it_on_stderr(toy_run, capfd):
    args = ["--run", str(toy_run), "--prompt", "the cat", "--seed", "1", "--device", "cpu"]
    sample.main([*args, "--num", "2"])
    plain = capfd.readouterr()
    sample.main([*args, "--num", "2", "--novelty"])
    both = capfd.readouterr()
    assert both.out == plain.out
    assert "stand in the training text" in both.err
    assert "stand in the training text" not in plain.err
    for way in ("--interactive", "--grid", "--show-probs"):
        with pytest.raises(ValueError, match="--novelty"):
            sample.main(["--run", str(toy_run), "--novelty", way])


def test_a_text_that_is_gone_or_changed_is_named(tmp_path, monkeypatch, capfd):
    """Also the end of a training says how new its story is."""
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "my.txt"
    text.write_text("the cat sat on the mat. a dog ran. " * 60, encoding="utf-8")
    shape = ["--n_layer", "1", "--n_head", "1", "--d_model", "16", "--block_size", "16"]
    train.main(["--data", str(text), "--vocab", "260", "--steps", "2", "--sample", "5", *shape])
    assert "stand in the training text" in capfd.readouterr().out
    flags = ["--run", "my", "--steps", "5", "--novelty", "--device", "cpu"]
    sample.main(flags)
    text.write_text("another text. " * 90, encoding="utf-8")
    with pytest.raises(ValueError, match="has changed since the run"):
        sample.main(flags)
    text.unlink()
    with pytest.raises(ValueError, match=r"cannot be read .* leave out --novelty"):
        sample.main(flags)
