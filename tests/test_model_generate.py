"""pick_next by hand on four probabilities, and generate on small models."""

import math

import numpy as np
import pytest
import torch

from model import GPTConfig, TinyGPT, generate, pick_next
from model.generation.sampling import draw, nucleus, probabilities

P = torch.tensor([[0.5, 0.25, 0.15, 0.1], [0.1, 0.15, 0.25, 0.5]])  # the second row runs backwards
V = 23


def rates(n=20_000, logits=None, **kwargs):
    """How often each of two rows of probabilities draws each id, (2,V)."""
    logits = P.log() if logits is None else logits
    drawn = pick_next(
        logits.repeat(n, 1), generator=torch.Generator().manual_seed(0), **kwargs
    )  # rows in turn
    assert drawn.shape == (2 * n,)
    assert drawn.dtype == torch.long
    counts = [torch.bincount(drawn[i::2], minlength=logits.size(1)) for i in (0, 1)]
    return torch.stack(counts) / n


def close(got, want):
    """20,000 draws: the error of a rate is below 0.0036, five of them below 0.018."""
    torch.testing.assert_close(got, torch.tensor(want), rtol=0, atol=0.018)
    assert torch.equal(got == 0, torch.tensor(want) == 0)  # what is cut off is never drawn


def both(row):
    return [row, row[::-1]]


def test_temperature():
    close(rates(), both([0.5, 0.25, 0.15, 0.1]))
    total = sum(p**2 for p in (0.5, 0.25, 0.15, 0.1))
    close(rates(temperature=0.5), both([p**2 / total for p in (0.5, 0.25, 0.15, 0.1)]))
    close(rates(temperature=1e6), both([0.25] * 4))


def test_temperature_zero_takes_the_likeliest():
    close(rates(n=10, temperature=0), both([1.0, 0, 0, 0]))
    far = P.log() * 1e30  # over a tiny temperature: beyond float32
    close(rates(n=10, logits=far, temperature=1e-9), both([1.0, 0, 0, 0]))
    tie = torch.tensor([[0.0, 2.0, 2.0], [3.0, 3.0, 1.0]])
    assert pick_next(tie, temperature=0).tolist() == [1, 0]


def test_temperatures_beyond_float32():
    """1e-50 was 0/0 there, inf made -inf/inf of what top-k bars: an id that no vocabulary has."""
    for low in (1e-320, 1e-50, 1e-37):
        close(rates(n=10, temperature=low), both([1.0, 0, 0, 0]))
    for high in (1e37, 1e50, math.inf):
        close(rates(temperature=high, top_k=2), both([0.5, 0.5, 0, 0]))


def test_top_k():
    close(rates(top_k=1), both([1.0, 0, 0, 0]))
    close(rates(top_k=2), both([2 / 3, 1 / 3, 0, 0]))
    close(rates(top_k=4), both([0.5, 0.25, 0.15, 0.1]))
    assert torch.equal(rates(top_k=99), rates())  # more than there are: all stay


def test_top_k_keeps_k_on_ties():
    """A threshold at the k-th logit keeps every tie; four equals of which two may be drawn."""
    tie = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0, 1.0]])
    close(rates(logits=tie, top_k=2), [[0.5, 0.5, 0, 0, 0], [0, 0.5, 0.5, 0, 0]])


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    close(rates(top_p=0.4), both([1.0, 0, 0, 0]))
    close(rates(top_p=0.6), both([2 / 3, 1 / 3, 0, 0]))
    close(rates(top_p=0.8), both([5 / 9, 2.5 / 9, 1.5 / 9, 0]))
    close(rates(top_p=0.95), both([0.5, 0.25, 0.15, 0.1]))
    assert torch.equal(rates(top_p=1.0), rates())
    for tiny in 1e-9, 1e-50, 5e-324:  # the last ones are 0 in float32
        close(rates(top_p=tiny), both([1.0, 0, 0, 0]))  # one always stays


def test_top_p_at_the_edge():
    """A set whose mass is p exactly is large enough; of equals the first stay."""
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.125, 0.125, 0.25, 0.5]])
    for top_p, want in [(0.5, "1000 0001"), (0.51, "1100 0011"), (0.75, "1100 0011")]:
        kept = [[c == "1" for c in row] for row in want.split()]
        assert nucleus(p, top_p).tolist() == kept
    assert nucleus(p, 0.875).tolist() == [[True, True, True, False], [True, False, True, True]]


def test_top_p_counts_what_temperature_and_top_k_have_left():
    close(rates(top_k=2, top_p=0.6), both([1.0, 0, 0, 0]))  # 2/3 of what is left
    close(rates(temperature=1e6, top_p=0.7), both([1 / 3, 1 / 3, 1 / 3, 0]))


def test_rows_are_drawn_independently():
    drawn = pick_next(torch.zeros(400, 50), generator=torch.Generator().manual_seed(0))
    assert len(set(drawn.tolist())) > 40


def test_minus_infinity_is_never_drawn():
    barred = torch.tensor([[0.0, -math.inf, 0.0], [-math.inf, 0.0, -math.inf]])
    close(rates(logits=barred), [[0.5, 0, 0.5], [0, 1.0, 0]])


def test_half_precision_logits():
    """Shares are summed in float32: of 2,000 equals, top_p=0.5 keeps 1,000, in bfloat16 998."""
    p = probabilities(torch.zeros(2, 2000, dtype=torch.bfloat16), top_p=0.5)
    assert ((p > 0).sum(-1) - 1000).abs().max() <= 1


def test_min_p_drops_what_is_less_likely_than_its_share_of_the_likeliest():
    """0.5, 0.25, 0.15, 0.1 at min_p = 0.25: the bar is 0.125."""
    close(rates(min_p=0.25), both([5 / 9, 2.5 / 9, 1.5 / 9, 0]))
    close(rates(min_p=0.6), both([1.0, 0, 0, 0]))
    close(rates(min_p=1.0), both([1.0, 0, 0, 0]))
    assert torch.equal(rates(min_p=0.0), rates())
    close(rates(min_p=0.25, temperature=1e6), both([0.25] * 4))  # of what temperature has left


def test_probabilities_by_hand():
    """The four shares, exactly: top-k, then temperature, then top-p, then min-p."""
    for kwargs, want in [
        ({}, [0.5, 0.25, 0.15, 0.1]),
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"top_k": 3}, [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        ({"temperature": 0.5}, [50 / 69, 12.5 / 69, 4.5 / 69, 2 / 69]),
        ({"top_k": 3, "temperature": 0.5, "top_p": 0.8}, [0.8, 0.2, 0, 0]),
        ({"top_k": 3, "min_p": 0.4}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.9, "min_p": 0.2}, [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
    ]:
        got = probabilities(P.log(), **kwargs)
        torch.testing.assert_close(got, torch.tensor(both(want), dtype=torch.float32))


def test_a_draw_is_where_the_number_falls():
    """Shares laid end to end: 0 to 0.5 is id 0, to 0.75 id 1, to 0.9 id 2, then 3."""
    u = torch.tensor([0.0, 0.4999, 0.5, 0.7499, 0.76, 0.95, 1 - 2**-24])
    p = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).expand(7, -1)
    assert draw(p, u).tolist() == [0, 0, 1, 1, 2, 3, 3]
    holes = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).expand(7, -1)
    assert draw(holes, u).tolist() == [1, 1, 3, 3, 3, 3, 3]  # what has no share is never drawn
    thirds = torch.full((1, 3), 1 / 3)  # whose sum is not 1 in float32
    assert draw(thirds, u[-1:]).item() == 2
    assert pick_next(P.log(), u=torch.tensor([0.6, 0.6])).tolist() == [1, 3]


def test_repetition_penalty_by_hand():
    """Logits 2, 1, -1, -2 at penalty 2: of those seen, 2 and -1 become 1 and -2."""
    z = torch.tensor([[2.0, 1.0, -1.0, -2.0], [2.0, 1.0, -1.0, -2.0]])
    seen = torch.tensor([[True, False, True, False], [False] * 4])
    want = torch.stack([torch.tensor([1.0, 1.0, -2.0, -2.0]).softmax(0), z[1].softmax(0)])
    args = {"repetition_penalty": 2.0, "in_context": seen.repeat(20_000, 1)}
    drawn = pick_next(z.repeat(20_000, 1), generator=torch.Generator().manual_seed(0), **args)
    for i in (0, 1):
        got = torch.bincount(drawn[i::2], minlength=4) / 20_000
        torch.testing.assert_close(got, want[i], rtol=0, atol=0.018)
    four = {"repetition_penalty": 4.0, "temperature": 0}
    assert pick_next(z, in_context=seen, **four).tolist() == [1, 0]


def test_a_high_penalty_says_nothing_twice():
    """Tokens of the prompt count, too, each row its own, also where lengths differ."""
    rows = [[1, 2], [7, 8, 9, 10]]
    got = text(model(), rows, 8, temperature=0, repetition_penalty=1e9).tolist()
    for row, made in zip(rows, got, strict=True):
        assert len({*row, *made}) == len(row) + 8


def test_a_callback_is_given_ids_and_logits():
    m, idx, seen = model(), prompt(), []
    got = text(m, idx, 5, temperature=0, callback=lambda i, z: seen.append((i.clone(), z.clone())))
    assert torch.equal(torch.stack([i for i, _ in seen], 1), got)
    with torch.no_grad():
        torch.testing.assert_close(seen[0][1], m.eval()(idx)[0][:, -1])
    assert all(torch.equal(i, z.argmax(-1)) for i, z in seen)


def test_ids_beyond_the_vocabulary_are_never_drawn():
    """A model padded to a multiple of 64 has ids that no tokenizer knows."""
    m = model(vocab_size=64)
    assert text(m, prompt(), 200, seed=0, temperature=3.0).max() >= V
    got = text(m, prompt(), 200, seed=0, temperature=3.0, vocab_size=V)
    assert got.max() == V - 1
    for how in ({"temperature": 0}, {"top_k": 50}, {"repetition_penalty": 5.0, "top_p": 0.9}):
        assert text(m, prompt(), 50, seed=0, vocab_size=2, **how).max() <= 1


def test_a_seed_for_each_row():
    m, idx = model(), prompt(B=1).expand(3, -1)
    got = text(m, idx, 12, seed=[5, 9, 5])
    assert torch.equal(got[0], got[2])
    assert not torch.equal(got[0], got[1])
    assert torch.equal(text(m, idx, 12, seed=8)[1], got[1])  # row 1 of seed 8 has seed 9
    assert torch.equal(text(m, idx, 4, seed=5), text(m, idx, 12, seed=5)[:, :4])
    long = text(m, idx, 600, seed=5)  # more than one block of random numbers
    assert torch.equal(long[:1], text(m, idx[:1], 600, seed=5))


def test_what_is_yielded_may_be_trained_on():
    """Made in inference mode, ids would be refused by autograd."""
    m = model()
    ids = text(m, prompt(), 4)
    m(ids[:, :-1], ids[:, 1:])[1].backward()
    assert m.tok_emb.weight.grad.abs().sum() > 0


BAD = [
    ({"temperature": -0.1}, "temperature=-0.1 must be 0"),
    ({"temperature": math.nan}, "temperature=nan"),
    ({"top_k": 0}, "top_k=0 must be at least 1"),
    ({"top_p": 0.0}, r"top_p=0.0 must be in \(0, 1\]"),
    ({"top_p": 1.5}, "top_p=1.5"),
    ({"min_p": -0.1}, r"min_p=-0.1 must be in \[0, 1\]"),
    ({"min_p": 2}, "min_p=2"),
    ({"repetition_penalty": 0}, "repetition_penalty=0 must be positive, 1e-9 to 1e9"),
    ({"repetition_penalty": 1e-40}, "repetition_penalty=1e-40"),
    ({"repetition_penalty": math.inf}, "repetition_penalty=inf"),
]


@pytest.mark.parametrize(("kwargs", "message"), BAD)
def test_bad_values_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        pick_next(P.log(), **kwargs)
    with pytest.raises(ValueError, match=message):
        generate(model(), prompt(), 3, **kwargs)  # at once: no step has been asked for


@pytest.mark.parametrize(
    ("idx", "steps", "message"),
    [
        (torch.zeros(2, 0, dtype=torch.long), 3, r"shape \(2, 0\); give \(B,T\)"),
        (torch.zeros(4, dtype=torch.long), 3, r"shape \(4,\)"),
        (torch.zeros(2, 1, dtype=torch.long), -1, "steps=-1"),
        ([[1], []], 3, r"shape \(0,\); give"),
        ([], 3, "there is no prompt"),
        ([1, 2], 3, r"shape \(\); give"),
        (torch.tensor([[1.0, 2.7]]), 3, "dtype torch.float32; give ids"),
        ([[1, 2], [V, 0]], 3, "id 23; the model knows 0 to 22"),
        (torch.tensor([[-1] + [1] * 20]), 3, "id -1; the model knows"),  # even if it is cropped
    ],
)
def test_bad_prompts_are_refused_at_once(idx, steps, message):
    with pytest.raises(ValueError, match=message):
        generate(model(), idx, steps)


def model(seed=0, **kwargs):
    """A small model whose opinions are strong: its weights are blown up."""
    torch.manual_seed(seed)
    shape = {"vocab_size": V, "block_size": 8, "n_layer": 2, "n_head": 2, "d_model": 16}
    m = TinyGPT(GPTConfig(**{**shape, **kwargs}))
    with torch.no_grad():
        for p in m.parameters():
            p.mul_(4)
    return m


def prompt(B=3, T=4):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(5))


def text(m, idx, steps, **kwargs):
    """All that generate yields, (B,steps)."""
    return torch.stack(list(generate(m, idx, steps, **kwargs)), 1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"seed": [1]}, "1 seeds for 3 prompts"),
        ({"seed": -1}, "seed=-1 must be in"),
        ({"seed": 2**64 - 1}, "seed=18446744073709551616"),
        ({"vocab_size": 0}, "vocab_size=0 must be from 1 to the model's 23"),
        ({"vocab_size": 24}, "vocab_size=24"),
    ],
)
def test_bad_seeds_and_vocabularies_are_refused_at_once(kwargs, message):
    with pytest.raises(ValueError, match=message):
        generate(model(), prompt(), 3, **kwargs)


def test_a_seed_is_a_text():
    m, idx = model(), prompt()
    a, b, c = (text(m, idx, 12, seed=seed) for seed in (7, 7, 8))
    assert a.shape == (3, 12)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not torch.equal(text(m, idx, 12), text(m, idx, 12))  # no seed: a new text each time


def test_rows_that_start_alike_go_their_own_ways():
    same = text(model(), prompt(B=1).expand(2, -1), 12, seed=0)
    assert not torch.equal(same[0], same[1])


def test_global_random_state_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    m = model()
    torch.set_rng_state(before)
    text(m, prompt(), 5)
    text(m, prompt(), 5, seed=1, top_k=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_sampling_settings_reach_the_draw():
    m, idx = model(), prompt()
    assert torch.equal(text(m, idx, 9, top_k=1), text(m, idx, 9, temperature=0))
    assert torch.equal(text(m, idx, 9, top_p=1e-9), text(m, idx, 9, temperature=0))


def test_stop_ids_end_when_every_row_has_drawn_one():
    """A row that is done repeats its stop id; the others go on as if nothing were."""
    m, idx = model(), prompt()
    free = text(m, idx, 60, seed=2)
    stop = {3, 11}
    ends = [next(i for i, t in enumerate(row) if t in stop) for row in free.tolist()]
    assert len(set(ends)) > 1  # the rows end at different steps
    got = text(m, idx, 60, seed=2, stop=stop)
    assert got.shape == (3, max(ends) + 1)
    first = ends.index(min(ends))
    end = ends[first]
    assert torch.equal(got[:, : end + 1], free[:, : end + 1])
    assert (got[first, end:] == free[first, end]).all()


@pytest.mark.parametrize("stop", [0, [0, 1], (0, 1), {0, 1}, 5])
def test_stop_takes_an_id_or_ids(stop):
    m = model()
    got = text(m, prompt(), 300, seed=0, stop=stop)
    asked = {stop} if isinstance(stop, int) else set(stop)
    assert got.size(1) < 300
    assert set(got[:, -1].tolist()) <= asked


def test_no_stop_and_no_steps():
    assert text(model(), prompt(), 20, seed=0, stop=()).shape == (3, 20)
    assert list(generate(model(), prompt(), 0)) == []


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_given_back(training):
    """After each step, so also when the reader leaves early; and when the model fails."""
    m = model(dropout=0.5).train(training)
    for _ in generate(m, prompt(), 3):
        assert m.training == m.blocks[0].training == training

    def fail(head, x):
        raise RuntimeError

    m.head.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError):
        next(generate(m, prompt(), 3))
    assert m.training == m.blocks[0].training == training


def test_two_texts_at_once_from_one_model():
    """The second to start found eval mode, took it for the caller's, and left the model in it."""
    m = model(dropout=0.5).train()
    a, b = (generate(m, prompt(T=T), 20, seed=T) for T in (2, 5))
    both = [torch.stack(ids, 1) for ids in zip(*zip(a, b, strict=True), strict=True)]
    assert m.training
    for got, T in zip(both, (2, 5), strict=True):
        assert torch.equal(got, text(m, prompt(T=T), 20, seed=T))


def test_dropout_and_gradients_are_off():
    m, graphs = model(dropout=0.5).train(), []
    m.head.register_forward_hook(lambda head, x, logits: graphs.append(logits.requires_grad))
    got = text(m, prompt(), 6, temperature=0)
    assert torch.equal(got, text(m, prompt(), 6, temperature=0))
    assert graphs == [False] * 12


def test_what_was_written_may_be_trained_on():
    """It is no inference tensor, which autograd refuses."""
    m = TinyGPT(GPTConfig(vocab_size=V, block_size=8, n_layer=1, n_head=1, d_model=8))
    ids = torch.stack(list(generate(m, torch.zeros(2, 1, dtype=torch.long), 6, seed=1)), 1)
    m(ids[:, :-1], ids[:, 1:])[1].backward()
    assert m.tok_emb.weight.grad is not None


def test_ids_as_token_files_hold_them():
    """uint16 knows no minimum in torch: a row of a token file was a NotImplementedError."""
    torch.manual_seed(0)
    model = TinyGPT(GPTConfig(8, 8, 1, 2, 8))
    row = np.array([1, 2, 3], dtype=np.uint16)
    a = torch.cat(list(generate(model, [row], 5, seed=1)))
    b = torch.cat(list(generate(model, [[1, 2, 3]], 5, seed=1)))
    assert torch.equal(a, b)
