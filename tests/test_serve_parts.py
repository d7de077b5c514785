"""Parts of the server by themselves: text from tokens, the engine's thread, what is declared."""

import asyncio
import sys

import hub_models
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve_tools import with_worker

from model.generation.requests import Event, QueueFull, Request, Token
from tok import BPETokenizer
from utils.serve.choices import Choice, columns, piece_of
from utils.serve.errors import Stopping
from utils.serve.schema import CompletionBody

TOK = hub_models.tokenizer()
BYTES = BPETokenizer.train(["a"], 257)  # every token is a byte
END = TOK.special_tokens["<|endoftext|>"]


def events(ids, finish="length"):
    yield from (Event(1, token=Token(i, -0.5, {i: -0.5})) for i in ids)
    yield Event(1, finish=finish, cached=64)


def told(choice, ids, finish="length"):
    news = []
    for event in events(ids, finish):
        news.append(choice.add(event))
        if choice.finish:
            break
    return news


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=3), max_size=4))
def test_text_is_cut_at_stop_strings_and_nowhere_else(text, stops):
    """Whole characters, the first stop string to be complete ends, and every token is told once."""
    for tokenizer in TOK, BYTES:
        ids = tokenizer.encode(text)
        news = told(Choice(tokenizer, stops, frozenset()), ids)
        whole = "".join(new.text for new in news)
        ends = [(text.index(s) + len(s), text.index(s)) for s in stops if s in text]
        assert whole == (text[: min(ends)[1]] if ends else text)
        assert news[-1].finish == ("stop" if ends else "length")
        tokens = [token.id for new in news for token in new.tokens]
        assert tokens == ids[: len(tokens)]
        if not ends:
            assert tokens == ids


def test_a_character_of_four_tokens_is_sent_once():
    news = told(Choice(BYTES, [], frozenset()), BYTES.encode("a🦊b"))
    assert [new.text for new in news] == ["a", "", "", "", "🦊", "b", ""]
    assert [len(new.tokens) for new in news] == [1] * 6 + [0]


def test_a_character_that_is_never_finished():
    news = told(Choice(BYTES, [], frozenset()), BYTES.encode("a🦊")[:3])
    assert "".join(new.text for new in news) == "a\ufffd"


def test_the_id_that_ends_is_told_and_adds_no_text():
    choice = Choice(TOK, [], frozenset({END}))
    news = told(choice, [*TOK.encode("fox"), END], "stop")
    assert "".join(new.text for new in news) == "fox"
    assert [t.id for new in news for t in new.tokens][-1] == END
    assert (news[-1].finish, choice.cached) == ("stop", 64)


def test_two_parts_of_characters_are_two_names():
    """Both were U+FFFD: the second overwrote the first, and greedy was judged by the wrong one."""
    first, second = BYTES.encode("é")
    assert [piece_of(BYTES, i) for i in (first, second)] == ["bytes:\\xc3", "bytes:\\xa9"]
    got = columns(BYTES, [Token(first, -0.1, {first: -0.1, second: -2.0})], 0)
    assert got["top_logprobs"] == [{"bytes:\\xc3": -0.1, "bytes:\\xa9": -2.0}]


def test_offsets_count_characters():
    ids = BYTES.encode("aé🦊b")
    got = columns(BYTES, [Token(i, -1.0) for i in ids], 10)
    assert got["text_offset"] == [10, 11, 11, 12, 12, 12, 12, 13]
    assert got["top_logprobs"][0] == {"a": -1.0}  # what was drawn is always there


def test_a_prompt_of_numbers_is_no_list_of_texts():
    body = {"model": "m", "max_tokens": 1}
    for prompt, prompts in (
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["5"], ["5"]),
    ):
        assert CompletionBody(prompt=prompt, **body).prompts == prompts


def test_requests_are_taken_all_or_none():
    async def test(worker):
        one = Request([1], 3)
        with pytest.raises(QueueFull, match="3 requests, and room for 2"):
            await worker.submit([one] * 3)
        with pytest.raises(ValueError, match="steps=-1"):
            await worker.submit([one, Request([1], -1)])
        assert worker.engine.room == 2
        stream = await worker.submit([one, one])
        ends = set()
        while len(ends) < 2:
            i, event = await stream.next(5)
            ends |= {i} if event.finish else set()

    with_worker(test, rows=1, queue=1)


def test_who_gives_up_while_being_taken_is_dropped():
    async def test(worker):
        blocked = asyncio.ensure_future(worker.call(__import__("time").sleep, 0.2))
        await asyncio.sleep(0.05)
        asked = asyncio.ensure_future(worker.submit([Request([1], 40)]))
        await asyncio.sleep(0.05)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await blocked
        assert await worker.call(lambda: worker.engine.under_way + len(worker.engine.waiting)) == 0

    with_worker(test)


def test_what_ends_the_thread_ends_its_streams():
    async def test(worker):
        stream = await worker.submit([Request([1], 46)])
        worker.stop()
        with pytest.raises(Stopping):
            await worker.submit([Request([1], 1)])
        await worker.call(worker.fail, Stopping("the end"))
        told = []
        with pytest.raises(Stopping, match="the end"):
            told.extend([await stream.next(5) for _ in range(46)])

    with_worker(test)


def test_without_the_extra(error_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "utils.serve.start", raising=False)
    from utils.serve.__main__ import main

    assert "pip install 'llm-tiny[serve]'" in error_of(main, "--run", "x")
