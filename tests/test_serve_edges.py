"""Odd requests, odd moments, odd models: what was found by trying to break the server."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from itertools import product

import hub_models
import pytest
import torch
from serve_tools import running
from torch.nn import functional as F

from model import GPTConfig, TinyGPT
from model.generation.cache import KVCache
from model.generation.requests import Event
from tok import CharTokenizer
from utils.hub.importer import write_run
from utils.hub.pretrained import Pretrained
from utils.hub.sources import Found
from utils.serve import app, start
from utils.serve.answers import Answer
from utils.serve.jobs import plan_completion
from utils.serve.schema import ChatBody, CompletionBody
from utils.serve.served import Served
from utils.serve.worker import Stream
from utils.writing.template import ChatTemplate
from utils.writing.text import write_text

ValidationError = pytest.importorskip("pydantic").ValidationError
LONG = {"model": "toy", "prompt": "a", "max_tokens": 1900, "temperature": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "toy"
    hub_models.make_run(path, "llama", block_size=2000)
    return path


@pytest.fixture(scope="module")
def server(run):
    with running(run, flags=["--pace", "1"]) as server:
        yield server


@pytest.fixture
def endless(monkeypatch):
    """No token ends a text."""
    monkeypatch.setattr(Served, "ends", frozenset())


def in_loop(server, coroutine):
    """What a coroutine gives in the server's own event loop."""
    return asyncio.run_coroutine_threadsafe(coroutine, server.worker.loop).result(20)


@pytest.mark.parametrize(("body", "wrong"), [
    (CompletionBody, {"prompt": [-1] * 1000}),
    (CompletionBody, {"prompt": [[-1]] * 100}),
    (CompletionBody, {"prompt": [[-1] * 1000]}),
    (CompletionBody, {"prompt": "a", **{f"name{i}": 1 for i in range(1000)}}),
    (ChatBody, {"messages": [{"role": "user", "content": [1] * 1000}]}),
    (ChatBody, {"messages": [1] * 1000}),
])  # fmt: skip
def test_the_first_fault_is_enough(body, wrong):
    """A body of 3.6 MB with a fault in every id took 24 s and 1.5 GB, while all streams waited."""
    with pytest.raises(ValidationError) as e:
        body(model="m", **wrong)
    assert e.value.error_count() < 8


@pytest.mark.parametrize(("prompt", "said"), [
    ([5, -1], "prompt.1: Input should be greater than or equal to 0"),
    ([[5], [6, 1.5]], "prompt.1.1: Input should be a valid integer"),
    (["a", 5], "prompt.1: Input should be a valid string"),
])  # fmt: skip
def test_the_nearest_fault_is_told(server, prompt, said):
    """Of a prompt of ids with a wrong one it was said that it should be a string."""
    status, error = server.refused(prompt=prompt)
    assert (status, error["param"]) == (400, "prompt")
    assert error["message"].startswith(said)


def test_memory_that_runs_out_while_a_cache_grows(monkeypatch):
    """Some layers had grown, and the cache said that all had: each later text failed."""
    config = hub_models.model("llama", block_size=2000).config
    cache, real, left = KVCache(config, 2), F.pad, [2]

    def pad(*args):
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError
        return real(*args)

    monkeypatch.setattr(F, "pad", pad)
    with pytest.raises(MemoryError):
        cache.make_room(300)
    left[0] = 99
    cache.make_room(300)
    assert {kv.size(3) for kv in cache.kv} == {cache.ids.size(1)} == {512}


def test_a_cancellation_at_the_moment_of_an_event():
    """asyncio.wait_for swallowed it (Python 3.10, 3.11): whoever had left went on being served."""

    async def test():
        stream = Stream()
        stream.numbers = [1]
        asked = asyncio.ensure_future(stream.next(5))
        await asyncio.sleep(0.01)
        stream.news.put_nowait(Event(1))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        with pytest.raises(TimeoutError):
            await Stream().next(0.01)

    asyncio.run(test())


def test_who_leaves_before_a_stream_begins_frees_the_row(server, endless):
    """A generator that was never started is closed without a word: its text was written on."""

    async def gone():
        return {"type": "http.disconnect"}

    async def send(message):
        await asyncio.sleep(0)

    async def test():
        body = CompletionBody(**LONG, stream=True)
        plan = await plan_completion(server.server, body)
        answer = await app.answered(server.server, body, plan, None)
        await answer({"type": "http", "asgi": {"spec_version": "2.3"}}, gone, send)
        return await server.worker.call(lambda: server.engine.room)

    room = server.engine.most + server.engine.queue
    assert in_loop(server, test()) == room


def test_long_answers_are_put_together_beside_the_event_loop(server, monkeypatch):
    """64 texts of 1,500 tokens, 20 alternatives each, held all streams up for 13 s; so did the
    first event of a stream, if it was a long prompt.
    """
    threads = []

    def watch(name):
        real = getattr(Answer, name)

        def noted(*args):
            threads.append((name, threading.get_ident()))
            return real(*args)

        monkeypatch.setattr(Answer, name, noted)

    watch("whole")
    watch("chunk")
    assert server.ask(prompt="a", max_tokens=2, logprobs=2)["usage"]["completion_tokens"]
    server.stream(prompt="fox" * 100, max_tokens=0, logprobs=2, echo=True)

    async def ident():
        return threading.get_ident()

    loop = in_loop(server, ident())
    beside = [name for name, ident in threads if ident != loop]
    assert beside == ["whole", "chunk"]
    assert len(threads) == 3  # the end of the stream is short


def test_of_a_long_text_the_first_tokens_are_named(server):
    """4 MB of text were 4 million dictionaries, 2 GB, made while all streams waited."""
    got = server.ask("/tokenize", prompt="🦊" * 1000)
    assert got["count"] == len(got["tokens"]) > 1000
    assert [piece["id"] for piece in got["pieces"]] == got["tokens"][:1000]


def told(choice):
    """All that can be read off a choice, from a whole answer or from the chunks of a stream."""
    parts = choice if isinstance(choice, list) else [choice]
    logprobs = [part["logprobs"] for part in parts if part["logprobs"]]
    return {
        "text": "".join(part["text"] for part in parts),
        "finish": [part["finish_reason"] for part in parts if part["finish_reason"]],
        "ids": [i for part in parts for i in part.get("token_ids", [])],
        "prompt": [part["prompt_token_ids"] for part in parts if "prompt_token_ids" in part],
        **{
            name: [one for each in logprobs for one in each[name]]
            for name in (logprobs[0] if logprobs else ())
        },
    }


def same(a, b):
    """Equal, log-probabilities to rounding: that depends on how many texts are written at once, and
    so on when the engine hears that one of them has met its stop string.
    """
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == pytest.approx(b, abs=1e-5) if isinstance(a, float) else a == b


@pytest.mark.parametrize(("echo", "logprobs", "ids"), list(product([1, 0], [None, 3], [0, 1])))
def test_a_stream_tells_what_a_whole_answer_does(server, echo, logprobs, ids):
    """With n, seeds at the edge, stop strings that are text, in the echo, or beyond ASCII."""
    body = {"prompt": ["fox", "é🦊 dog"], "n": 2, "seed": 2**63 - 1, "max_tokens": 12}
    body |= {"echo": bool(echo), "logprobs": logprobs, "return_token_ids": bool(ids)}
    first = server.ask(**body)["choices"][0]["text"].removeprefix("fox")
    for stop in None, first[2:4], "fox", ["🦊", "é", "\u2028", "\0"]:
        for steps in 12, 0:
            asked = {**body, "stop": stop, "max_tokens": steps}
            whole = server.ask(**asked)["choices"]
            chunks = {i: [] for i in range(4)}
            for chunk in server.stream(**asked):
                (one,) = chunk["choices"]
                chunks[one["index"]].append(one)
            assert same([told(chunks[i]) for i in range(4)], [told(one) for one in whole])
            if echo:
                assert whole[2]["text"].startswith("é🦊 dog")


def test_an_empty_prompt_echoes_nothing(server, monkeypatch):
    """Of a run without documents the echo of "" was a line end, which nobody typed."""
    served = server.server.served
    monkeypatch.setitem(served, "toy", replace(served["toy"], end=None))
    for more in {}, {"logprobs": 1}:
        got = server.ask(prompt="", echo=True, max_tokens=0, **more)["choices"][0]
        assert got["text"] == ""
        assert not more or got["logprobs"]["tokens"] == []


def test_tokens_of_abandoned_texts_are_counted(server, endless):
    """Only what came to its end was: of a server that all leave, it said that it wrote nothing."""
    before = server.counted("written_tokens_total")
    with server.http.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as stream:
        lines = stream.iter_lines()
        for _ in range(9):
            next(lines)
    server.wait_until_idle()
    assert server.counted("written_tokens_total") >= before + 4


def test_each_text_has_its_own_clock(server):
    """Of a request of four texts, times between tokens were those between two texts."""
    before = server.counted("next_token_seconds_count"), server.counted("first_token_seconds_count")
    done = server.ask(prompt="a", max_tokens=5, n=4)["usage"]["completion_tokens"]
    after = server.counted("next_token_seconds_count"), server.counted("first_token_seconds_count")
    assert (after[0] - before[0], after[1] - before[1]) == (done - 4, 4)


def test_head_and_what_a_path_allows(server):
    for path in "/health", "/", "/v1/models":
        answer = server.http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 0
    answer = server.http.options("/v1/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert server.http.head("/v1/completions").status_code == 405


def test_a_penalty_too_small_is_named(server):
    status, error = server.refused(prompt="a", repetition_penalty=1e-12)
    assert (status, error["param"]) == (400, "repetition_penalty")


def test_a_websocket_is_no_line_in_the_log(server, caplog):
    """Each request could write two warnings, the second about a package to install."""
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert server.http.get("/health", headers=headers).status_code == 200
    assert not caplog.records


def test_no_address_is_shared_on_windows(monkeypatch):
    """SO_REUSEADDR means there that two servers may listen at one port."""
    for platform, reused in ("win32", False), ("linux", True):
        monkeypatch.setattr(sys, "platform", platform)
        with start.listen("127.0.0.1", 0) as sock:
            assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is reused


def test_who_asks_nothing_is_left(run):
    """As many idle connections as are allowed shut everybody else out, as long as they liked."""
    asked = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running(run, flags=["--pace", "0.3"]) as server:
        for sent in b"", b"GET /hea", asked, asked + b"GET /hea":
            with socket.create_connection(("127.0.0.1", server.port), timeout=4) as sock:
                sock.sendall(sent)
                got = b""
                while more := sock.recv(1000):  # until it is closed, else it times out
                    got += more
                assert got.count(b"200 OK") == sent.count(asked)
        slow = server.stream(prompt="a", max_tokens=1500, n=4, seed=1)  # longer than the pace
        assert slow[-1]["choices"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_second_ctrl_c_ends_it_at_once(run):
    """With texts under way and in the queue; it printed a page of tracebacks."""
    command = [sys.executable, "-m", "utils.serve", "--run", str(run), "--port", "0"]
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=env, **pipes) as process:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        content = json.dumps({**LONG, "temperature": 1, "stream": True, "n": 60}).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(head.encode() + content)
            sock.recv(100)
            for _ in range(2):
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.3)
            _, err = process.communicate(timeout=20)
    assert "Traceback" not in err, err
    assert process.returncode in (130, -signal.SIGINT)


def test_an_answer_has_a_size(server):
    """72 texts of a long context with 20 alternatives of each token were gigabytes at once."""
    body = {"prompt": "a", "n": 8, "max_tokens": 1900, "logprobs": 20}
    status, error = server.refused(**body)
    assert (status, error["param"]) == (400, "logprobs")
    assert "319,200 numbers are more than 300,000" in error["message"]
    status, error = server.refused(prompt=[[5] * 1900] * 8, echo=True, logprobs=20, stream=True)
    assert (status, error["param"]) == (400, "logprobs")
    assert "stream" not in error["message"]
    body |= {"stream": True, "stop": [chr(i) for i in range(97, 113)]}  # ends soon
    assert server.stream(**body)
    messages = [{"role": "user", "content": "a"}]
    chat = {"messages": messages, "logprobs": True, "top_logprobs": 20, "n": 8}
    assert server.refused("/v1/chat/completions", **chat)[1]["param"] == "logprobs"


ODD = [
    {"pos": "learned"},
    {"pos": "sinusoidal", "norm_at": "post", "attn": "naive"},
    {"pos": "none", "window": 5, "emb_conv": 3, "n_kv_head": 1},
    {"pos": "rope", "window": 7, "norm": "rmsnorm", "mlp": "swiglu"},
]


@pytest.mark.parametrize("how", ODD)
def test_odd_models_by_characters(tmp_path, how):
    """No special token, one text, a vocabulary of seven letters: all of the API as for others."""
    tok = CharTokenizer("abc de\n")
    torch.manual_seed(2)
    m = TinyGPT(GPTConfig(vocab_size=9, block_size=40, d_model=16, n_head=2, n_layer=2, **how))
    write_run(tmp_path / "odd", Found(m.config, m.state_dict(), tok, Pretrained("here")))
    with running(tmp_path / "odd") as server:
        for prompt in "abc", "":
            for steps in 30, 3:
                how = {"temperature": 0.9, "seed": 3}
                want = write_text(m.eval(), tok, prompt, steps, **how)
                got = server.ask(prompt=prompt, max_tokens=steps, echo=True, logprobs=2, **how)
                (one,) = got["choices"]
                assert one["text"] == prompt + want
                assert "".join(one["logprobs"]["tokens"]) == prompt + want
                chunks = server.stream(prompt=prompt, max_tokens=steps, **how)
                assert "".join(c["choices"][0]["text"] for c in chunks) == want
        many = [
            server.ask(prompt=p, max_tokens=9, temperature=0)["choices"][0]["text"] for p in "abcd"
        ]
        both = server.ask(prompt=list("abcd"), max_tokens=9, temperature=0)["choices"]
        assert [one["text"] for one in both] == many
        status, error = server.refused(prompt="ab🦊")
        assert (status, error["param"]) == (400, "prompt")
        assert server.refused(prompt=[7])[0] == 400  # the model has it, the tokenizer not
        assert server.ask("/tokenize", prompt="cab")["count"] == 3
        status, error = server.refused("/tokenize", prompt="ab🦊")
        assert (status, error["param"]) == (400, "prompt")
        status, error = server.refused("/detokenize", tokens=[7])
        assert (status, error["param"]) == (400, "tokens")
        info = server.http.get("/tokenizer_info").json()
        assert info["bos_token"] is info["eos_token"] is info["chat_template"] is None


@pytest.mark.parametrize("text", [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% set x = namespace(a='aa') %}{% for i in range(99) %}{% set x.a = x.a ~ x.a %}{% endfor %}",
    "{{ raise_exception('no') }}",
    "",
])  # fmt: skip
def test_a_template_that_fails_is_that_chats_fault(server, monkeypatch, text):
    monkeypatch.setattr("utils.writing.template.SECONDS", 0.2)
    served = server.server.served
    monkeypatch.setitem(served, "toy", replace(served["toy"], template=ChatTemplate(text)))
    chat = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 3}
    status, error = server.refused("/v1/chat/completions", **chat)
    assert (status, error["param"]) == (400, "messages")
    assert server.ask(prompt="a", max_tokens=3, seed=1)["choices"]


def test_the_page_may_do_nothing_else(server):
    """Scripts, styles and answers of this server alone, and no file is taken for another kind."""
    html = server.http.get("/").text
    paths = ["/", *re.findall(r'(?:src|href)="(/[^"]*)"', html)]
    assert len(paths) == 4
    for path in paths:
        answer = server.http.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<style|<script>|\s(style|on\w+)=", html)


def test_a_stop_string_may_be_long(server):
    """Of a megabyte all beginnings were looked for after each token: for minutes, all waited."""
    body = {"prompt": "a", "max_tokens": 4, "seed": 1}
    text = server.ask(**body)["choices"][0]["text"]
    stop = text[-1] + "b" * 1_000_000
    assert server.ask(**body, stop=stop)["choices"][0]["text"] == text


def test_a_page_elsewhere_cannot_call_itself_this_machine(run, server):
    """DNS rebinding: evil.example leads to 127.0.0.1, and its page may ask its own origin."""
    for host in "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "":
        answer = server.http.get("/v1/models", headers={"Host": host})
        assert answer.status_code == 421, host
    for host in "localhost", "localhost:8000", "127.0.0.1", "[::1]:8000":
        assert server.http.get("/v1/models", headers={"Host": host}).status_code == 200
    with running(run, flags=["--api-key", "key"]) as keyed:
        headers = {"Host": "models.example", "Authorization": "Bearer key"}
        assert keyed.http.get("/v1/models", headers=headers).status_code == 200
