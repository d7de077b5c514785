"""pick_next by hand on four probabilities, and generate on small models."""

import math

import pytest
import torch

from model import GPTConfig, TinyGPT, generate, pick_next

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
    close(rates(top_p=1e-9), both([1.0, 0, 0, 0]))  # one always stays


def test_top_p_counts_what_temperature_and_top_k_have_left():
    close(rates(top_k=2, top_p=0.6), both([1.0, 0, 0, 0]))  # 2/3 of what is left
    close(rates(temperature=1e6, top_p=0.7), both([1 / 3, 1 / 3, 1 / 3, 0]))


def test_rows_are_drawn_independently():
    drawn = pick_next(torch.zeros(400, 50), generator=torch.Generator().manual_seed(0))
    assert len(set(drawn.tolist())) > 40


def test_minus_infinity_is_never_drawn():
    barred = torch.tensor([[0.0, -math.inf, 0.0], [-math.inf, 0.0, -math.inf]])
    close(rates(logits=barred), [[0.5, 0, 0.5], [0, 1.0, 0]])


def test_half_precision_logits(monkeypatch):
    """Shares are summed in float32: of 2,000 equals, top_p=0.5 keeps 1,000, in bfloat16 998."""
    kept, draw = [], torch.multinomial

    def spy(p, n, generator):
        kept.append((p > 0).sum(-1))
        return draw(p, n, generator=generator)

    monkeypatch.setattr(torch, "multinomial", spy)
    pick_next(torch.zeros(2, 2000, dtype=torch.bfloat16), top_p=0.5)
    assert (kept[0] - 1000).abs().max() <= 1


BAD = [
    ({"temperature": -0.1}, "temperature=-0.1 must be 0"),
    ({"temperature": math.nan}, "temperature=nan"),
    ({"top_k": 0}, "top_k=0 must be at least 1"),
    ({"top_p": 0.0}, r"top_p=0.0 must be in \(0, 1\]"),
    ({"top_p": 1.5}, "top_p=1.5"),
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


@pytest.mark.parametrize("pos", ["learned", "rope"])
@pytest.mark.parametrize("T", [1, 4, 8, 13])
def test_greedy_is_the_argmax_of_the_cropped_text(pos, T):
    """Also where the prompt or the text grows longer than block_size = 8."""
    m, idx = model(pos=pos).eval(), prompt(T=T)
    for drawn in generate(m, idx, 10, temperature=0):
        with torch.no_grad():
            assert torch.equal(drawn, m(idx[:, -8:])[0][:, -1].argmax(-1))
        idx = torch.cat((idx, drawn[:, None]), 1)
    assert idx.shape == (3, T + 10)


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
    """Also when the reader leaves early, or the model fails."""
    m = model(dropout=0.5).train(training)
    text(m, prompt(), 3)
    assert m.training == training
    some = generate(m, prompt(), 3)
    next(some)
    some.close()
    assert m.training == training
    broken = generate(m, prompt() + V, 3)
    with pytest.raises(IndexError):
        next(broken)
    assert m.training == training


def test_dropout_and_gradients_are_off():
    m, graphs = model(dropout=0.5).train(), []
    m.head.register_forward_hook(lambda head, x, logits: graphs.append(logits.requires_grad))
    got = text(m, prompt(), 6, temperature=0)
    assert torch.equal(got, text(m, prompt(), 6, temperature=0))
    assert graphs == [False] * 12
