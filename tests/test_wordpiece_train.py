"""Learning a WordPiece vocabulary against the lines of docs/tokenizers.md, right at sight."""

import re
from pathlib import Path

import pytest
from conftest import make_text
from hypothesis import given
from hypothesis import strategies as st

from tok import END_OF_TEXT, WordPieceTokenizer
from tok.wordpiece.basic import Splitter
from tok.wordpiece.train import alphabet, count_words, learn

BLOCK = re.search(
    r"^## WordPiece in thirty lines.*?```python\n(.*?)```",
    (Path(__file__).parent.parent / "docs" / "tokenizers.md").read_text(encoding="utf-8"),
    re.M | re.S,
)[1]
PAGE = {}
exec(BLOCK, PAGE)
slow = PAGE["learn"]
few = st.dictionaries(st.text("abc", min_size=1, max_size=7), st.integers(1, 9), max_size=12)
guards = st.none() | st.integers(1, 12)


def test_scores_by_hand():
    """(t, ##h) 6 / (6 * 6), (##u, ##o) 2 / (2 * 2), (q, ##u) the same, ##uo first by its name."""
    words = {"the": 5, "thy": 1, "quo": 2}
    assert learn(words, 1, 1) == slow(words, 1, 1) == ["##uo"]
    assert learn(words, 2, 1) == ["##uo", "quo"]  # 2 / (2 * 2), still more than 1 / 6
    assert learn(words, 9, 3) == ["th", "the"]  # 6 / 36, then 5 / (6 * 5): the guard is 3
    assert learn(words, 9) == slow(words, 9) == ["th", "the", "thy", "##uo", "quo"]  # 6, 3, 1


def test_of_equal_scores_the_more_frequent_then_the_first():
    """All of these have the score 1/7 (hug, pun, bun); un occurs 4 times, ug 3."""
    words = {"hug": 3, "pun": 2, "bun": 2}
    assert learn(words, 9, 1) == slow(words, 9, 1) == ["##un", "##ug", "hug", "bun", "pun"]


def test_the_score_is_not_the_count():
    """BPE would join what occurs most."""
    words = {"ab": 5, "ac": 4, "dc": 4, "db": 4, "xy": 2}
    assert learn(words, 1, 2) == ["xy"]


@given(words=few, n=st.integers(0, 15), guard=guards)
def test_learning_is_the_reference_token_for_token(words, n, guard):
    assert learn(words, n, guard) == slow(words, n, guard)


def test_a_repeated_letter():
    """In aaaa the pair overlaps itself: it is joined from the left, and counted as it stands."""
    words = {"baaaa": 3, "aaa": 2, "baaaaa": 1}
    for guard in (None, 1, 2):
        assert learn(words, 9, guard) == slow(words, 9, guard)


@pytest.mark.parametrize("guard", [None, 1, 5])
def test_learning_a_text_is_the_reference_token_for_token(guard):
    words = count_words([make_text(1500) + " İx naïve 中文 don't-stop"], Splitter())
    assert learn(words, 60, guard) == slow(words, 60, guard)


def test_the_order_of_words_does_not_matter():
    words = count_words([make_text(2000)], Splitter())
    backward = dict(reversed(words.items()))
    assert learn(words, 50) == learn(backward, 50)


def test_step_is_told_how_far_it_is():
    done = []
    learn({"abc": 1}, 9, 1, done.append)
    assert done == [1, 2]


def test_alphabet():
    assert alphabet(["ba", "c", "bd"]) == ["a", "b", "c", "d", "##a", "##d"]


def test_the_vocabulary():
    t = WordPieceTokenizer.train(["low lower lowest, low"], 30)
    first = [t.vocab[i] for i in range(6)]
    assert first == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", END_OF_TEXT]
    rest = [t.vocab[i] for i in range(6, t.vocab_size)]
    assert rest[:8] == [",", "e", "l", "o", "r", "s", "t", "w"]
    assert rest[8:14] == [f"##{c}" for c in "eorstw"]
    assert rest[14:] == ["##ow", "low", "lowe", "##st", "lower", "lowest"]  # 4/16, 4/16, 2/8 ...
    assert t.vocab_size == 26 < 30  # no pair is left
    assert [t.vocab[i] for i in t.encode("lower, lowest")] == ["lower", ",", "lowest"]


def test_workers_and_chunks_give_the_same_file(monkeypatch):
    monkeypatch.setattr("tok.common.BLOCK", 500)
    text = make_text(3000) + END_OF_TEXT + "Unwanted É"
    made = []
    for texts, workers in (([text], 1), ([text], 2), ([[text[:99], text[99:]]], 1)):
        WordPieceTokenizer.train(texts, 90, workers=workers).save("t.json")
        made.append(Path("t.json").read_bytes())
    assert made[0] == made[1] == made[2]


def test_special_tokens_are_no_words():
    t = WordPieceTokenizer.train(["ab<x>ab [MASK]c"], 40, special_tokens=["<x>"])
    assert t.special_tokens["<x>"] == 5
    assert [t.vocab[i] for i in range(6, t.vocab_size)] == ["a", "b", "c", "##b", "ab"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: WordPieceTokenizer.train(["abc"], 8), "vocab_size=8 is smaller .* at least 11"),
        (lambda: WordPieceTokenizer.train("abc", 99), "texts='abc' is one string"),
        (lambda: WordPieceTokenizer.train(["a"], 9, min_frequency=0), "min_frequency=0; give 1"),
        (
            lambda: WordPieceTokenizer.train(["Ab"], 20, special_tokens=["a"]),
            "special token 'a' is an ordinary token too",
        ),
        (lambda: WordPieceTokenizer.train(["a\ud83d"], 20), "half of a surrogate pair"),
    ],
)
def test_mistakes(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_words_that_encoding_gives_up_teach_nothing():
    """Of more than 100 characters: each of their letters would cost two ids."""
    t = WordPieceTokenizer.train(["ab " + "z" * 101], 40)
    assert "z" not in t.vocab.values()
    assert t.encode("z" * 101) == [1]


def test_cased():
    text = "Él él É"
    assert "É" in WordPieceTokenizer.train([text], 40, lowercase=False).vocab.values()
    lower = WordPieceTokenizer.train([text], 40)
    assert lower.encode("Él") == lower.encode("el")
