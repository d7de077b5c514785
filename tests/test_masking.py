"""Which tokens a BERT has to guess: by hand, by frequencies, and as a pure function."""

import numpy as np
import pytest

from data.masked import MaskedBatches, Pairs, Windows, pairs_in_order, scored, windows_in_order
from data.masking import Masking, Vocabulary, chosen, masked, noise, vocabulary
from data.pairs import chunks, cut, pair
from data.rows import laid_out, room
from data.store import TokenDataset
from tok import END_OF_TEXT, BPETokenizer, CharTokenizer
from tok.special import BERT_TOKENS

TEXT = 'The low lower cat sat. It said, "No!" Then it ran (far) away? Yes. '


def words(n=400):
    """A BPE with BERT's tokens, and its Vocabulary."""
    tokenizer = BPETokenizer.train([TEXT * 3], n, special_tokens=(END_OF_TEXT, *BERT_TOKENS))
    return tokenizer, vocabulary(tokenizer)


def dataset(tokenizer, documents, val=("the cat. it sat. ", "no. yes. ")):
    """Documents as a text of ids, each with its end."""
    end = tokenizer.special_tokens[END_OF_TEXT]
    splits = [
        np.array([i for d in part for i in (*tokenizer.encode(d), end)], np.uint16)
        for part in (documents, val)
    ]
    meta = {"documents": len(documents) + len(val), "name": "toy"}
    return TokenDataset(None, *splits, tokenizer, meta)


V = Vocabulary(0, 1, 2, 3, np.arange(20) < 4, *(np.zeros(20, bool) for _ in range(4)))


def test_the_least_numbers_are_chosen():
    """Row 0: 4 real of 5, rate 1/2 -> the two least; row 1: round(0.3) is 0, but at least 1."""
    u = np.array([[0.5, 0.1, 0.9, 0.4, 0.0], [0.3, 0.2, 0.1, 0.0, 0.5]])
    real = np.array([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]], bool)
    expected = [[0, 1, 0, 1, 0], [1, 0, 0, 0, 0]]
    assert chosen(u, real, 0.5).tolist() == np.array(expected, bool).tolist()


def test_a_word_as_long_as_its_row_is_masked_in_part():
    """Or the model would guess from nothing: of 10 tokens of one word 2 are hidden, not all."""
    u = np.arange(10)[None, ::-1] / 10
    real, starts = np.ones((1, 10), bool), np.arange(10)[None] == 0
    assert chosen(u, real, 0.2, starts).sum() == 2
    starts[0, 6] = True  # two words: one of them is hidden in whole
    assert chosen(u, real, 0.2, starts)[0].tolist() == [False] * 6 + [True] * 4


def test_words_are_chosen_in_whole():
    """Words of 2, 1, 3 tokens, 0.9, 0.2, 0.1: for two tokens the last word, all three of it."""
    u = np.array([[0.9, 0.0, 0.2, 0.1, 0.8, 0.9]])
    starts = np.array([[1, 0, 1, 1, 0, 0]], bool)
    real = np.ones((1, 6), bool)
    assert chosen(u, real, 0.3, starts).tolist() == [[False] * 3 + [True] * 3]
    assert chosen(u, real, 0.6, starts).tolist() == [[False] * 2 + [True] * 4]


def test_where_words_start():
    tokenizer, v = words()
    ids = np.array([tokenizer.encode("The lowest cat's (far). It")])
    texts = [tokenizer.decode([i]) for i in ids[0]]
    starts = v.starts(ids)[0]
    found = "".join(("|" if s else "") + t for s, t in zip(starts, texts, strict=True))
    assert found == "|The| lowest| cat|'|s| (|far|)|.| It"
    assert len(texts) > found.count("|")


def test_characters_have_words_too():
    tokenizer = CharTokenizer(sorted(set(TEXT)), BERT_TOKENS)
    ids = np.array([tokenizer.encode("The cat. It")])
    assert vocabulary(tokenizer).starts(ids)[0].tolist() == [1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0]


def test_shares_are_those_asked_for():
    """80/10/10 of 15 %, over 200 rows; a random token may be the true one, once in 16."""
    ids = np.random.default_rng(0).integers(4, 20, (200, 100))
    real = np.ones_like(ids, dtype=bool)
    x, y = masked(ids, real, noise(1, range(200), 100), Masking(), V)
    hidden = y >= 0
    assert (hidden.sum(1) == 15).all()
    assert (y[hidden] == ids[hidden]).all()
    assert (x[~hidden] == ids[~hidden]).all()
    shown = x[hidden]
    same = (shown == ids[hidden]).mean()
    assert (shown == V.mask).mean() == pytest.approx(0.8, abs=0.03)
    assert same == pytest.approx(0.1 + 0.1 / 16, abs=0.02)
    assert not np.isin(shown[shown != V.mask], [0, 1, 2]).any()
    assert len(np.unique(shown)) == 17  # [MASK] and every ordinary token
    assert (np.bincount(np.nonzero(hidden)[1]) > 5).all()  # every position has its turn


def test_all_may_be_masked():
    ids = np.full((2, 10), 7)
    x, y = masked(ids, ids > 0, noise(1, range(2), 10), Masking(0.3, 0.0, 0.0), V)
    assert (x[y >= 0] == V.mask).all()
    assert (y >= 0).sum(1).tolist() == [3, 3]


def test_a_row_is_a_function_of_its_number():
    """Whatever stands beside it, and in whatever batch."""
    one = noise(3, [7], 5)
    assert (noise(3, [2, 7], 5)[:, 1] == one[:, 0]).all()
    assert not (noise(4, [7], 5) == one).any()
    assert not (noise(3, [8], 5) == one).any()


def test_rows_by_hand():
    """[CLS] 5 6 [SEP] 7 [SEP] [PAD]; a special token in a text is not to be guessed."""
    rows = laid_out([(np.array([5, 6]), np.array([7])), (np.array([8, 3, 9]),)], 7, V)
    assert rows.ids.tolist() == [[0, 5, 6, 1, 7, 1, 2], [0, 8, 3, 9, 1, 2, 2]]
    assert rows.types.tolist() == [[0, 0, 0, 0, 1, 1, 0], [0] * 7]
    assert rows.padding.sum(1).tolist() == [6, 5]
    assert rows.text.tolist()[1] == [False, True, False, True, False, False, False]


def test_a_row_needs_room():
    assert room(8) == 6
    assert room(8, 2) == 5
    with pytest.raises(ValueError, match=r"block_size=6 has no room for .* 7 has"):
        room(6, 2)


def test_documents_in_pieces():
    """Documents of 7, 1, 3 tokens and 2 without an end, 4 a piece: 3 4 | - | 3 | 2."""
    tokens = np.array([5] * 7 + [9] + [6] + [9] + [7] * 3 + [9] + [8] * 2)
    of = chunks(tokens, 9, 4)
    assert list(zip(of.starts.tolist(), of.stops.tolist(), strict=True)) == [
        (0, 3), (3, 7), (10, 13), (14, 16),
    ]  # fmt: skip
    assert of.document.tolist() == [0, 0, 1, 2]
    assert of.documents == 3
    drawn = [of.document[of.another(0, u)] for u in np.linspace(0, 0.999, 50)]
    assert set(drawn) == {1, 2}
    assert {of.another(3, u) for u in np.linspace(0, 0.999, 50)} == {0, 1, 2}


def test_a_cut_falls_after_a_sentence():
    tokenizer, v = words()
    ids = np.array(tokenizer.encode('The cat sat. It said "No!" Then it ran away? Yes'))
    ends = {tokenizer.decode(ids[: cut(ids, u, v)].tolist()) for u in np.linspace(0, 0.999, 20)}
    assert ends <= {"The cat sat.", 'The cat sat. It said "No!"',
                    'The cat sat. It said "No!" Then it ran away?'}  # fmt: skip
    assert len(ends) >= 2
    unbroken = np.array(tokenizer.encode("the cat sat low"))
    cuts = {cut(unbroken, u, v) for u in np.linspace(0, 0.999, 50)}
    assert cuts == set(range(1, len(unbroken)))


def pairs_of(n=12, seed=5):
    tokenizer, v = words()
    docs = [f"The cat sat {'low ' * i}. {i} ran {'far ' * i}. " for i in range(2, n)]
    data = dataset(tokenizer, docs)
    return tokenizer, v, data, Pairs([data], (1,), seed, room(40, 2), v)


def test_half_of_the_pairs_belong_together():
    tokenizer, _, data, maker = pairs_of()
    text = tokenizer.decode(data.train.tolist())
    rows = [maker.row(i) for i in range(400)]
    for (a, b), other in rows:
        assert 0 < len(a) + len(b) <= 37
        together = tokenizer.decode([*a, *b]) in text
        assert together or other == 1
    assert np.mean([other for _, other in rows]) == pytest.approx(0.5, abs=0.08)


def test_the_other_sentence_is_of_another_document():
    tokenizer, v = words()
    data = dataset(
        tokenizer, [f"The {w} sat. Then {w} {w} ran." for w in ["low", "far", "cat", "yes"]]
    )
    of = chunks(data.train, data.end, 37)
    for i, own in enumerate(["low", "far", "cat", "yes"]):
        seen = set()
        for k in range(40):
            u = np.random.default_rng((i, k)).random(3)
            a, b = (tokenizer.decode(part) for part in pair(data.train, of, i, False, u, 37, v))
            assert a == f"The {own} sat."
            assert b.startswith(" Then ")  # its second half, as a true pair has it
            seen.add(b.split()[1])
        assert seen == {"low", "far", "cat", "yes"} - {own}


def test_every_piece_comes_once_per_epoch():
    """Each document here is a piece, and its first sentence has a length of its own."""
    maker = pairs_of(n=8)[3]
    n = len(maker.chunks[0])
    epochs = [[len(maker.row(i + e * n)[0][0]) for i in range(n)] for e in (0, 1)]
    assert n == 6
    assert len(set(epochs[0])) == n
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


def test_batches_are_pure_and_hide_what_they_ask():
    tokenizer, v, data, maker = pairs_of()
    batches = MaskedBatches(maker, v, 40, 4, Masking())
    again = MaskedBatches(Pairs([data], (1,), 5, 37, v), v, 40, 4, Masking())
    for ours, theirs in zip(batches.batch(3), again.batch(3), strict=True):
        assert (ours == theirs).all()
    halves = MaskedBatches(maker, v, 40, 2, Masking())  # rows 12 to 15, too
    x = np.concatenate([halves.batch(6)[0], halves.batch(7)[0]])
    assert (x == batches.batch(3)[0].numpy()).all()
    x, y, types, padding, which = batches.batch(0)
    assert x.shape == y.shape == types.shape == padding.shape == (4, 40)
    assert which.shape == (4,)
    assert not (x == batches.batch(1)[0]).all()
    assert not np.isin(y[y >= 0], list(tokenizer.special_tokens.values())).any()


def test_windows_of_a_text():
    tokenizer, v = words()
    data = dataset(tokenizer, [TEXT * 4])
    maker = Windows([data], (1,), 1, room(12))
    x, y = MaskedBatches(maker, v, 12, 3, Masking()).batch(0)
    assert x.shape == (3, 12)
    assert (x[:, 0] == v.cls).all()
    assert (x[:, -1] == v.sep).all()
    truth = y.where(y >= 0, x)[:, 1:-1]
    text = tokenizer.decode(data.train.tolist())
    assert all(tokenizer.decode(row.tolist()) in text for row in truth)
    with pytest.raises(ValueError, match="too short for rows of 998"):
        Windows([data], (1,), 1, room(1000))


def test_a_split_is_scored_whole_and_always_alike():
    """Every token stands in one row; batches of any size ask the same."""
    tokenizer, v = words()
    data = dataset(tokenizer, [TEXT])
    ids = data.train
    one = list(scored(windows_in_order(ids, room(12)), 12, 1, v))
    many = list(scored(windows_in_order(ids, room(12)), 12, 4, v))
    for part in range(4):
        together = [np.concatenate([b[part] for b in batches]) for batches in (one, many)]
        assert (together[0] == together[1]).all()
    x, y, _, padding = (np.concatenate([b[part] for b in many]) for part in range(4))
    text = np.where(y >= 0, y, x)[padding & ~np.isin(x, [v.cls, v.sep])]
    assert text.tolist() == ids.tolist()
    assert (x[y >= 0] == v.mask).all()


def test_scored_pairs_go_on_or_do_not():
    tokenizer, v, data, maker = pairs_of()
    of = maker.chunks[0]
    whole = [
        tokenizer.decode(data.train[a:b].tolist()) for a, b in zip(of.starts, of.stops, strict=True)
    ]
    true = [np.concatenate(s).tolist() for s in pairs_in_order(data.train, of, 37, v, True)]
    assert [tokenizer.decode(ids) for ids in true] == whole
    false = list(pairs_in_order(data.train, of, 37, v, False))
    assert all(len(a) + len(b) <= 37 for a, b in false)
    assert [tokenizer.decode([*a, *b]) for a, b in false] != whole


def test_one_document_has_no_other():
    tokenizer, v = words()
    with pytest.raises(ValueError, match="has 1; set doc_sep to what divides it, or leave"):
        Pairs([dataset(tokenizer, [TEXT])], (1,), 1, 37, v)


def test_a_tokenizer_without_mask_is_refused():
    with pytest.raises(ValueError, match=r"no \[CLS\] \[SEP\] \[PAD\] \[MASK\]; leave --tokenizer"):
        vocabulary(BPETokenizer.train([TEXT], 300))
