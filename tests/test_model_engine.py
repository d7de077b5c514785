"""The engine: every text is as it would be alone, whatever stands beside it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sharp_model import POS, V, model

from model import generate
from model.adapt.lora import add_lora, lora_state
from model.adapt.lora_config import LoRAConfig
from model.generation import prefixes
from model.generation.engine import Engine
from model.generation.requests import QueueFull, Request

BLOCK = 4  # the tests' own, so that short prompts have several


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch):
    monkeypatch.setattr(prefixes, "BLOCK", BLOCK)
    monkeypatch.setattr("model.generation.engine.BLOCK", BLOCK)


def big(**kwargs):
    return model(block_size=48, **kwargs).double()


def alone(m, r):
    """What `generate` writes for a request, up to its first stop id."""
    how = {"temperature": r.temperature, "top_k": r.top_k, "top_p": r.top_p, "min_p": r.min_p}
    how |= {"repetition_penalty": r.repetition_penalty, "seed": r.seed}
    return [int(i) for i in generate(m, [list(r.ids)], r.steps, stop=r.stop or None, **how)]


def collect(events, into):
    for e in events:
        tokens, ends = into.setdefault(e.number, ([], []))
        if e.token is not None:
            assert not ends, "a token after the end"
            tokens.append(e.token.id)
        if e.finish:
            ends.append(e.finish)


MODELS = {
    "plain": big(),
    "rope": big(pos="rope", norm="rmsnorm", n_kv_head=2, mlp="swiglu", bias=False),
    "window": big(pos="none", window=5, emb_conv=3, n_kv_head=1),
    "post": big(pos="sinusoidal", norm_at="post", attn="naive"),
}
ids = st.lists(st.integers(0, V - 1), min_size=1, max_size=14)
beginnings = st.sampled_from([[], [1] * 4, [1] * 8, [1, 2, 3, 4, 5, 6, 7]])
requests = st.builds(
    lambda begin, rest, **how: Request(begin + rest, **how),
    beginnings,
    ids,
    steps=st.integers(0, 8),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.sampled_from([None, 3]),
    top_p=st.sampled_from([None, 0.8]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    seed=st.integers(0, 99),
    stop=st.frozensets(st.integers(0, V - 1), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(
    which=st.sampled_from(sorted(MODELS)),
    arrivals=st.lists(
        st.tuples(requests, st.integers(0, 3), st.none() | st.integers(0, 6)), max_size=9
    ),
    rows=st.integers(1, 4),
    blocks=st.sampled_from([0, 2, 10**9]),
)
def test_texts_are_what_they_would_be_alone(which, arrivals, rows, blocks):
    """Random arrivals, lengths, cancellations, sizes of the store: each text, and each end."""
    m = MODELS[which]
    one = 2 * sum(p[0, :, :, :BLOCK].numel() * 8 for p in Engine(m).batches[""].rows.cache.kv)
    engine = Engine(m, rows=rows, prefix_bytes=blocks * one)
    told, asked, dropped, clock = {}, {}, {}, 0
    for request, wait, patience in arrivals:
        for _ in range(wait):
            collect(engine.step(), told)
            clock += 1
            for number, when in list(dropped.items()):
                if when == clock:
                    engine.cancel(number)
        number = engine.submit(request)
        asked[number] = request
        if patience is not None:
            dropped[number] = clock + patience
    while engine.waiting or engine.under_way:
        collect(engine.step(), told)
        clock += 1
        for number, when in list(dropped.items()):
            if when == clock:
                engine.cancel(number)
        assert engine.under_way <= rows
        assert clock < 1000
    for number, request in asked.items():
        tokens, ends = told.get(number, ([], []))
        want = alone(m, request)
        if number not in dropped:
            assert tokens == want
            stopped = bool(want) and want[-1] in request.stop
            assert ends == ["stop" if stopped else "length"]
        assert tokens == want[: len(tokens)]
    kept = engine.batches[""].prefixes
    assert kept.bytes <= kept.most_bytes
    assert engine.batches[""].rows.cache.lengths == []


@pytest.mark.parametrize("how", [*({"pos": pos} for pos in POS), {"window": 3, "emb_conv": 4}])
@pytest.mark.parametrize("n", [2 * BLOCK, 2 * BLOCK + 1, 2 * BLOCK + 3, BLOCK, 1])
def test_a_found_beginning_gives_the_same_to_the_bit(how, n):
    """Prompts that end at a block's edge, one behind it, within a block: hit and miss."""
    m = model(block_size=48, **how)
    request = Request([5, 3, 8, 1, 7, 2, 9, 4, 6, 11, 13][:n], 6, temperature=0, top=V)

    def told(engine):
        engine.submit(request)
        return [e.token for e in engine.run()]

    engine = Engine(m)
    miss = told(engine)
    assert len(engine.batches[""].prefixes.blocks) == (n - 1) // BLOCK
    assert told(engine) == miss  # log-probabilities, too
    assert told(Engine(m, prefix_bytes=0)) == miss
    engine = Engine(m)
    engine.submit(Request([*request.ids, 1, 2, 3, 4, 5], 0))  # knows more than the prompt
    list(engine.run())
    assert told(engine) == miss


def test_what_was_dropped_is_read_anew():
    """A store of one block: the other prompt's block throws out the first's, and back."""
    m = MODELS["rope"]
    first, second = Request([1] * 9, 5, temperature=0), Request([2] * 9, 5, temperature=0)
    engine = Engine(m, prefix_bytes=1)
    for request in first, second, first, first:
        told = {}
        engine.submit(request)
        collect(engine.run(), told)
        ((tokens, _),) = told.values()
        assert tokens == alone(m, request)


@pytest.mark.parametrize("times", [1, 2])
def test_the_end_of_a_beginning_goes_first(times):
    """A store full of two blocks: a new one replaces the second, which needs the first."""
    engine = Engine(MODELS["plain"])
    store = engine.batches[""].prefixes
    for ids in [[1] * 9] * times + [[2] * 5]:
        if len(ids) == 5:
            store.most_bytes = store.bytes
        engine.submit(Request(ids, 1))
        list(engine.run())
    first, second = prefixes.block_names([1] * 8)
    assert first in store.blocks
    assert second not in store.blocks
    assert next(prefixes.block_names([2] * 4)) in store.blocks


def test_equal_blocks_after_other_beginnings_are_others():
    names = list(prefixes.block_names([1, 2, 3, 4, 5, 6, 7, 8]))
    assert len(names) == 2
    assert names[1] not in list(prefixes.block_names([0, 2, 3, 4, 5, 6, 7, 8]))
    assert names[0] == next(prefixes.block_names([1, 2, 3, 4]))


def test_log_probabilities_of_the_prompt_and_of_what_is_drawn():
    m = MODELS["plain"]
    prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    engine = Engine(m)
    for _ in range(2):  # the second time its beginning is known, and scored all the same
        engine.submit(Request(prompt, 1, temperature=0, top=2, score=True))
        events = list(engine.run())
        scored = [token for e in events for token in e.scored]
        drawn = next(e.token for e in events if e.token)
        text = torch.tensor([[*prompt, drawn.id]])
        want = m(text)[0][0].detach().float().log_softmax(-1)
        assert [token.id for token in scored] == prompt
        assert scored[0].logprob is None
        for i, token in enumerate([*scored[1:], drawn]):
            assert token.logprob == pytest.approx(float(want[i, token.id]), abs=1e-5)
            assert list(token.top) == want[i].topk(2).indices.tolist()
        assert drawn.logprob == max(drawn.top.values())  # equal, not near: harnesses compare


def test_a_text_that_is_only_scored_may_have_a_token_more_than_is_read():
    """A window of T tokens tells T tokens after its first: harnesses score as many."""
    m, T = MODELS["plain"], 48
    ids = torch.randint(V, (T + 1,), generator=torch.Generator().manual_seed(1)).tolist()
    engine = Engine(m)
    engine.submit(Request(ids, 0, score=True))
    (event,) = engine.run()
    assert event.finish == "length"
    assert event.token is None
    want = m(torch.tensor([ids[:-1]]))[0][0].detach().float().log_softmax(-1)
    got = [token.logprob for token in event.scored[1:]]
    assert got == pytest.approx([float(want[i, j]) for i, j in enumerate(ids[1:])], abs=1e-5)
    with pytest.raises(ValueError, match="50 tokens and 0 more exceed the 49"):
        engine.submit(Request([*ids, 1], 0, score=True))


def test_a_long_prompt_does_not_hold_up_the_others():
    """While 40 tokens are read in blocks, the other text gets a token at each step."""
    engine = Engine(MODELS["plain"])
    short = engine.submit(Request([1], 12))
    engine.step()
    engine.submit(Request([2] * 40, 1))
    for _ in range(9):
        assert [e.number for e in engine.step() if e.token] == [short]


@pytest.mark.parametrize("lengths", [(40, 7), (7, 40)])
def test_two_long_prompts_take_turns(lengths):
    engine = Engine(MODELS["plain"])
    numbers = {n: engine.submit(Request([n % 7] * n, 1)) for n in lengths}
    assert [e.number for e in engine.run() if e.finish] == [numbers[7], numbers[40]]


def test_penalties_by_hand():
    """At temperature 0 an id whose logit leads by less than the penalties is not drawn again."""
    m = MODELS["rope"]
    engine = Engine(m)
    engine.submit(Request([1, 2], 6, temperature=0, presence_penalty=2.0, frequency_penalty=0.5))
    got = [e.token.id for e in engine.run() if e.token]
    text, drawn = [1, 2], []
    for _ in range(6):
        z = m(torch.tensor([text]))[0][0, -1].detach().clone()
        for i in set(drawn):
            z[i] -= 2.0 + 0.5 * drawn.count(i)
        drawn.append(int(z.argmax()))
        text.append(drawn[-1])
    assert got == drawn


def test_adapters_by_name_share_the_weights():
    base, other = big(seed=1), big(seed=1)
    for p, q in zip(base.parameters(), other.parameters(), strict=True):
        q.data = p.data
    add_lora(other, LoRAConfig(lora=2))
    with torch.no_grad():
        for p in lora_state(other).values():
            p.normal_(generator=torch.Generator().manual_seed(3))
    other.double().eval()
    engine = Engine({"": base, "adapted": other})
    asked = {
        engine.submit(Request([4, 5, 6, 7, 8], 5, temperature=0, model=name)): m
        for name, m in (("", base), ("adapted", other), ("", base))
    }
    told = {}
    collect(engine.run(), told)
    for number, m in asked.items():
        assert told[number][0] == alone(m, Request([4, 5, 6, 7, 8], 5, temperature=0))
    assert told[1][0] != told[2][0]


def test_the_queue_is_bounded_and_fair():
    engine = Engine(MODELS["plain"], rows=1, queue=2)
    first = engine.submit(Request([1], 3))
    engine.step()
    second, third = engine.submit(Request([2], 1)), engine.submit(Request([3], 1))
    with pytest.raises(QueueFull, match="2 requests wait"):
        engine.submit(Request([4], 1))
    assert [e.number for e in engine.run() if e.finish] == [first, second, third]


def test_cancelling_frees_the_row_at_once():
    engine = Engine(MODELS["plain"], rows=1)
    number = engine.submit(Request([1], 40))
    waiting = engine.submit(Request([2], 1))
    engine.step()
    assert engine.cancel(number)
    assert not engine.cancel(number)
    assert engine.under_way == 0
    assert [e.number for e in engine.step() if e.token] == [waiting]
    assert not engine.cancel(99)


def test_rows_that_have_grown_are_moved_when_a_text_is_dropped():
    """Tensors made while texts are written may be changed only in inference mode: it was left."""
    m = model(block_size=400)
    engine = Engine(m, rows=2)
    first, second = (engine.submit(Request([i], 390, temperature=0)) for i in (1, 2))
    told = {}
    for _ in range(300):
        collect(engine.step(), told)
    assert engine.cancel(first)
    collect(engine.run(), told)
    assert told[second][0] == alone(m, Request([2], 390, temperature=0))


@pytest.mark.parametrize(("how", "said"), [
    ({"ids": []}, "one at least"),
    ({"ids": [V]}, f"ids from 0 to {V - 1}"),
    ({"ids": ["a"]}, "ids from 0"),
    ({"steps": -1}, "steps=-1"),
    ({"steps": 48}, "1 tokens and 48 more exceed the 48"),
    ({"temperature": float("nan")}, "temperature=nan"),
    ({"top_p": 0.0}, "top_p=0.0"),
    ({"model": "other"}, "model='other'"),
    ({"seed": -1}, "seed=-1"),
])  # fmt: skip
def test_what_cannot_be_served_is_refused(how, said):
    engine = Engine(MODELS["plain"])
    with pytest.raises(ValueError, match=said):
        engine.submit(Request(**{"ids": [1], "steps": 1, **how}))
    assert not engine.waiting


def test_only_known_ids_are_drawn_and_known_beginnings_are_told():
    """A tokenizer may have fewer ids than the model: `vocab_size` of `generate`, here, too."""
    m = MODELS["plain"]
    request = Request([3, 1, 4, 1, 5, 9], 8, seed=3, vocab_size=10)
    engine = Engine(m)
    for known in 0, BLOCK:
        engine.submit(replace(request, top=V))
        events = list(engine.run())
        drawn = [e.token.id for e in events if e.token]
        assert all(sorted(e.token.top) == list(range(10)) for e in events if e.token)
        ids = generate(m, [list(request.ids)], 8, seed=3, vocab_size=10)
        assert drawn == [int(i) for i in ids]
        assert max(drawn) < 10
        assert events[-1].cached == known
    with pytest.raises(ValueError, match="vocab_size=0"):
        engine.submit(Request([1], 1, vocab_size=0))


def test_a_free_row_goes_to_the_group_that_has_the_fewest():
    """A request of 64 texts kept everybody else waiting until its last one had a row."""
    engine = Engine(model(block_size=48), rows=2, queue=9)
    many = [engine.submit(Request([1, 2], 4), group=1) for _ in range(6)]
    ends = [event.number for event in engine.step() if event.finish]
    single = engine.submit(Request([1, 2], 4), group=2)
    other = engine.submit(Request([1, 2], 4), group=3)
    ends += [event.number for event in engine.run() if event.finish]
    assert ends == [*many[:2], single, many[2], other, *many[3:]]
