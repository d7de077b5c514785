"""The cache changes nothing but the time; a text that outgrows the context goes on."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sharp_model import POS, WAYS, S, V, model, prompts, written

from model import GPTConfig, KVCache, TinyGPT, generate
from model.generation.context import kept_tokens, receptive_field


@pytest.mark.parametrize("pos", POS)
@pytest.mark.parametrize(("n_kv_head", "window", "attn"), WAYS)
@torch.no_grad()
def test_logits_are_those_of_one_pass_at_every_position(pos, n_kv_head, window, attn):
    """Token by token, and in chunks of every length: each position, B = 3 different rows."""
    m = model(pos=pos, n_kv_head=n_kv_head, window=window, attn=attn)
    idx = prompts(T=S)
    want = m(idx)[0]
    for first in range(1, S + 1):
        for chunk in (1, 3):
            cache = KVCache(m.config, 3)
            parts = [idx[:, :first], *idx[:, first:].split(chunk, 1)]
            got = torch.cat(
                [m.head(m.hidden_states(part, cache)) for part in parts if part.numel()], 1
            )
            assert (got - want).abs().max() < 1e-5 * want.abs().max()
            assert cache.lengths == [S] * 3


@torch.no_grad()
def test_logits_of_ordinary_weights_are_within_1e_5():
    for pos in POS:
        torch.manual_seed(1)
        m, idx = TinyGPT(GPTConfig(V, 64, 2, 2, 32, pos=pos)).eval(), prompts(T=64)
        cache = KVCache(m.config, 3)
        got = torch.cat([m.head(m.hidden_states(part, cache)) for part in idx.split(1, 1)], 1)
        assert (got - m(idx)[0]).abs().max() < 1e-5


@pytest.mark.parametrize("kwargs", [
    {"norm_at": "post"},
    {"qk_norm": True, "norm": "rmsnorm", "mlp": "swiglu", "bias": False, "pos": "rope"},
    {"tie_weights": False, "dropout": 0.5},
])  # fmt: skip
def test_other_flags_too(kwargs):
    m, idx = model(**kwargs), prompts(T=3)
    (ids, logits), (ids0, logits0) = (
        written(m, idx, 20, temperature=0, cache=on) for on in (True, False)
    )
    assert torch.equal(ids, ids0)
    torch.testing.assert_close(logits, logits0, rtol=1e-5, atol=1e-4)


def by_hand(m, prompt, steps):
    """One row, greedy, by whole passes alone: what the docstring of context.py says."""
    c, text, out = m.config, list(prompt)[-m.config.block_size :], []
    if c.window and c.pos in ("rope", "none"):  # no position counts but by distance: all at once
        long = TinyGPT(replace(c, block_size=len(text) + steps)).eval()
        long.load_state_dict(m.state_dict())
        for _ in range(steps):
            out.append(int(long(torch.tensor([text]))[0][0, -1].argmax()))
            text.append(out[-1])
        return out
    for _ in range(steps):
        if len(text) > c.block_size:
            text = text[-(c.block_size * 3 // 4) :]
        out.append(int(m(torch.tensor([text]))[0][0, -1].argmax()))
        text.append(out[-1])
    return out


@pytest.mark.parametrize("pos", POS)
@pytest.mark.parametrize(("n_kv_head", "window", "attn"), WAYS)
@torch.no_grad()
def test_greedy_far_past_the_context_with_and_without_cache(pos, n_kv_head, window, attn):
    m = model(pos=pos, n_kv_head=n_kv_head, window=window, attn=attn)
    for T in (1, 2, S - 1, S, S + 5):
        idx = prompts(B=2, T=T)
        want = [by_hand(m, row.tolist(), 40) for row in idx]
        assert written(m, idx, 40, temperature=0)[0].tolist() == want
        assert written(m, idx, 40, temperature=0, cache=False)[0].tolist() == want


@pytest.mark.parametrize("emb_conv", [1, 2, 4, S])
@pytest.mark.parametrize("window", [0, 3])
@torch.no_grad()
def test_the_convolution_remembers_the_tokens_before(emb_conv, window):
    """In chunks, in rows of different lengths, and long after the context is full."""
    m = model(pos="rope", window=window, emb_conv=emb_conv)
    idx, cache = prompts(T=S), KVCache(m.config, 3)
    got = torch.cat([m.head(m.hidden_states(x, cache)) for x in idx.split([2, 1, S - 3], 1)], 1)
    want = m(idx)[0]
    assert (got - want).abs().max() < 1e-5 * want.abs().max()
    rows = [[3], [1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [2, 7]]
    want = [by_hand(m, row, 40) for row in rows]
    for on in (True, False):
        assert written(m, rows, 40, temperature=0, cache=on)[0].tolist() == want


@pytest.mark.parametrize("pos", POS)
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("cache", [True, False])
def test_a_batch_of_different_lengths_is_its_rows_alone(pos, window, cache):
    """Greedy, and sampled with each row's own seed; rows outgrow the context at different steps."""
    m, rows = model(pos=pos, window=window), [[3], [1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [2, 7], [1] * 7]
    for how in ({"temperature": 0}, {"top_k": 7}, {"repetition_penalty": 1.5, "min_p": 0.01}):
        got = written(m, rows, 25, seed=40, cache=cache, **how)[0]
        for i, row in enumerate(rows):
            alone = written(m, [row], 25, seed=40 + i, **how)[0][0]
            assert got[i].tolist() == alone.tolist()


def test_the_same_seed_with_and_without_cache():
    for pos, window in (("learned", 0), ("rope", 0), ("rope", 4)):
        m = model(pos=pos, window=window)
        for how in ({}, {"top_k": 5, "temperature": 0.8}, {"top_p": 0.9}):
            got = [written(m, prompts(), 60, seed=3, cache=on, **how)[0] for on in (True, False)]
            assert torch.equal(*got)


@given(st.integers(1, 9), st.sampled_from(POS), st.integers(0, 3), st.integers(1, 3))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_every_block_size_goes_on(block_size, pos, window, n_layer):
    window = window if 1 < window < block_size else 0
    m = model(block_size=block_size, pos=pos, window=window, n_layer=n_layer)
    a, b = (written(m, [[1], [2, 3, 4]], 30, temperature=0, cache=on)[0] for on in (True, False))
    assert torch.equal(a, b)


def test_the_work_per_token_is_bounded():
    """Past block_size=8 a step reads one token, each third 5 more; with a window none."""
    for window, most in ((0, 5), (3, 1)):
        m, read = model(pos="rope", window=window), []
        heads: set = set()  # shapes of what goes through the head: the last position alone
        m.tok_emb.register_forward_hook(lambda emb, x, y, read=read: read.append(x[0].size(1)))
        m.head.register_forward_hook(lambda head, x, y, seen=heads: seen.add(x[0].shape))
        list(generate(m, prompts(B=2, T=8), 200))
        assert heads == {(2, 32)}
        assert read[0] == 7  # the prompt in one pass, its last token with the first step
        assert set(read[1:]) == {1, most}
        assert sum(read[1:]) == 200 + (67 * 5 if most > 1 else 0)  # ceil(199 / 3) times


def test_kept_tokens_and_receptive_field():
    def config(**k):
        return GPTConfig(n_layer=3, n_head=1, d_model=4, vocab_size=9, **k)

    assert [kept_tokens(config(block_size=n)) for n in (1, 2, 4, 8, 1024)] == [1, 1, 3, 6, 768]
    assert receptive_field(config(block_size=8)) == 7
    assert receptive_field(config(block_size=8, window=4)) == 7  # learned positions: no sliding
    assert receptive_field(config(block_size=8, window=4, pos="rope")) == 9


def test_memory_is_made_once():
    m = model(n_kv_head=2)
    cache = KVCache(m.config, 5)
    assert [kv.shape for kv in cache.kv] == 3 * [(2, 5, 2, S, 8)]
    where = [kv.data_ptr() for kv in cache.kv]
    with torch.no_grad():
        for _ in range(S):
            m.hidden_states(prompts(B=5, T=1), cache)
    assert [kv.data_ptr() for kv in cache.kv] == where
    assert cache.full() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("pos", POS)
@pytest.mark.parametrize("window", [0, 3])
def test_room_grows_with_the_text(monkeypatch, pos, window):
    """Zeros for all 8,192 positions of SmolLM2 took 0.4 s at each start; the texts are the same."""
    m, rows = model(pos=pos, window=window), [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
    want = written(m, rows, 3 * S, temperature=0)
    monkeypatch.setattr("model.generation.cache.ROOM", 2)
    for B in (3, 1):
        ids, logits = written(m, rows[:B], 3 * S, temperature=0)
        assert torch.equal(ids, want[0][:B])
        torch.testing.assert_close(logits, want[1][:B], rtol=1e-5, atol=1e-4)
    cache = KVCache(m.config, 1)
    sizes = []
    with torch.no_grad():
        for T in (1, 1, 1, 3):
            m.hidden_states(prompts(B=1, T=T), cache)
            sizes.append([kv.size(-2) for kv in cache.kv])
    assert sizes == [[n] * 3 for n in (2, 2, 4, 8)]


@pytest.mark.parametrize("pos", POS)
@pytest.mark.parametrize(("window", "emb_conv"), [(0, 0), (5, 3), (2, 0)])
def test_a_text_goes_on_from_a_kept_cache(monkeypatch, pos, window, emb_conv):
    """What a prompt has in common with what was read is not read again, whatever follows."""
    m = model(pos=pos, window=window, emb_conv=emb_conv, block_size=16)
    kept, read = KVCache(m.config, 1), []
    whole = m.hidden_states

    def go_on(text, steps):
        del read[:]
        return [int(i) for i in generate(m, [text], steps, temperature=0, kept=kept)]

    def hidden_states(idx, cache=None):
        read.append(idx.size(1))
        return whole(idx, cache)

    texts = [[1, 2, 3, 4, 5]]
    first = [int(i) for i in generate(m, texts, 4, temperature=0)]
    texts.append([*texts[0], *first, 7, 8])  # the last id drawn is not read yet, nor is 8
    texts += [[1, 2, 9, 4, 5, 6], [1, 2, 9], [1, 2, 9], [8, 8], [8], [*range(16)] * 2]
    wants = [[int(i) for i in generate(m, [t], 4, temperature=0)] for t in texts]
    monkeypatch.setattr(m, "hidden_states", hidden_states)
    counts = []
    for text, want in zip(texts, wants, strict=True):
        assert go_on(text, 4) == want
        counts.append(sum(read))
    assert counts[:7] == [4, 2, 3, 0, 0, 1, 0]


@pytest.mark.parametrize("window", [0, 3])
def test_a_kept_text_that_outgrew_the_context_is_read_anew(window):
    """Slid keys know of tokens that are gone: the same ids alone would give other ones."""
    m = model(pos="rope", window=window)
    kept = KVCache(m.config, 1)
    list(generate(m, [[1, 2, 3]], 2 * S, temperature=0, kept=kept))
    text = [*kept.ids[0, :2].tolist(), 4]  # shorter than what the last token depends on
    want = written(m, [text], 5, temperature=0)[1]
    got = written(m, [text], 5, temperature=0, kept=kept)[1]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_a_cache_refuses_what_it_has_no_room_for():
    m = model()
    cache = KVCache(m.config, 2)
    m.hidden_states(prompts(B=2, T=6), cache)
    with pytest.raises(ValueError, match=r"6 \+ 3 tokens exceed 8 slots; make room"):
        m.hidden_states(prompts(B=2, T=3), cache)
    cache.lengths = [6, 4]
    with pytest.raises(ValueError, match="2 tokens a row, of lengths 4 to 6; give one at a time"):
        m.hidden_states(prompts(B=2, T=2), cache)
    for B in (1, 3):  # torch wrote 3 rows into 2 with no more than a warning
        with pytest.raises(ValueError, match=f"{B} rows for a cache of 2; make one of {B}"):
            m.hidden_states(prompts(B=B, T=1), KVCache(m.config, 2))
    with pytest.raises(ValueError, match="9 tokens exceed block_size=8"):
        m.hidden_states(prompts(T=9))


@torch.no_grad()
def test_a_model_that_slides_reads_texts_of_any_length():
    """As one with a larger block_size does: RoPE's tables grow with the text."""
    m = model(pos="rope", window=4)
    long = TinyGPT(replace(m.config, block_size=50)).eval()
    long.load_state_dict(m.state_dict())
    idx = prompts(T=50)
    assert torch.equal(m(idx)[0], long(idx)[0])


def test_half_precision_models_have_half_a_cache():
    m = model().bfloat16()
    got = [written(m, prompts(), 20, seed=1, cache=on)[0] for on in (True, False)]
    assert got[0].shape == got[1].shape == (3, 20)


@pytest.mark.parametrize("pos", POS)
@pytest.mark.parametrize("window", [0, 3])
def test_under_autocast_too(pos, window):
    """Rows of other lengths: keys come in bfloat16, the cache has the weights' float32."""
    torch.manual_seed(1)
    m, rows = TinyGPT(GPTConfig(V, S, 2, 2, 32, pos=pos, window=window)).eval(), [[1, 2, 3], [4]]
    want = written(m, rows, S + 5, temperature=0)[1]
    with torch.autocast("cpu", torch.bfloat16):
        got = [written(m, rows, S + 5, temperature=0, cache=on)[1] for on in (True, False)]
        list(generate(m, rows[:1], S + 5))
    for logits in got:
        assert (logits[:, :2] - want[:, :2]).abs().max() < 0.03 * want.abs().max()
