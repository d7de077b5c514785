"""What clients do to a server: they leave, dawdle, flood it. It stands, and others' texts go on."""

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hub_models
import pytest
from serve_tools import running

from utils.serve.served import Served

LONG = {"prompt": "a", "max_tokens": 1900, "temperature": 0, "stream": True}


@pytest.fixture(autouse=True)
def _endless(monkeypatch):
    """No token ends a text."""
    monkeypatch.setattr(Served, "ends", frozenset())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "toy"
    hub_models.make_run(path, "llama", block_size=2000)
    return path


@pytest.fixture(scope="module")
def server(run):
    with running(run, flags=["--rows", "2", "--queue", "4", "--pace", "1"]) as server:
        yield server


def request(path="/v1/completions", *, close=True, **body):
    """The bytes of a request."""
    content = json.dumps({"model": "toy", **body}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\n" + ("Connection: close\r\n" if close else "")
    return head.encode() + b"\r\n" + content


def connect(server):
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    return sock


def all_of(sock):
    """What comes until the other side closes."""
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def test_who_leaves_in_the_middle_frees_the_row(server):
    for _ in range(3):
        with connect(server) as sock:
            sock.sendall(request(**LONG))
            assert b"200 OK" in sock.recv(1000)
        server.wait_until_idle(2)
    assert server.ask(prompt="b", max_tokens=2)["usage"]["completion_tokens"] == 2


def test_who_does_not_wait_for_a_whole_answer_frees_the_row(server):
    with connect(server) as sock:
        sock.sendall(request(**{**LONG, "stream": False}))
        while not server.counted("running"):
            time.sleep(0.01)
    server.wait_until_idle(1)


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_the_queue_is_out_of_it(server, stream):
    with connect(server) as first, connect(server) as second, connect(server) as third:
        first.sendall(request(**LONG))
        second.sendall(request(**LONG))
        while server.counted("running") < 2:
            time.sleep(0.01)
        third.sendall(request(**{**LONG, "stream": stream}))
        while not server.counted("waiting"):
            time.sleep(0.01)
        third.close()
        while server.counted("waiting"):
            time.sleep(0.01)
        assert server.counted("running") == 2
    server.wait_until_idle(2)


def test_who_reads_nothing_holds_nobody_up(server):
    """16 MB that nobody reads, more than a system keeps: cut after --pace, its rows are free."""
    with socket.socket() as sock:
        sock.settimeout(20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.connect(("127.0.0.1", server.port))
        body = {**LONG, "logprobs": 20, "return_token_ids": True, "max_tokens": 1500, "n": 4}
        sock.sendall(request(**body))
        assert server.ask(prompt="b", max_tokens=20)["usage"]["completion_tokens"] == 20
        server.wait_until_idle()
        assert b"[DONE]" not in all_of(sock)
    assert server.http.get("/health").status_code == 200


@pytest.mark.parametrize("part", [b"POST /v1/comp", request(**LONG)[:-9], b"\0\xff" * 99, b"\r\n"])
def test_half_a_request(server, part):
    with connect(server) as sock:
        sock.sendall(part)
        assert server.ask(prompt="b", max_tokens=1)["choices"]
        if part.startswith(b"POST /v1/completions"):
            answer = all_of(sock)
            assert b"408" in answer.split(b"\r\n")[0]
            assert b"did not come within 1 s" in answer


def test_a_body_of_100_megabytes(server):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with connect(server) as sock:
        sock.sendall(head + b"Content-Length: 100000000\r\n\r\n{")
        assert b" 413 " in all_of(sock).split(b"\r\n")[0]
    with connect(server) as sock:  # without saying so before
        sock.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(100):
                sock.sendall(b"f4240\r\n" + b" " * 1_000_000 + b"\r\n")
            raise AssertionError("it took all of it")
        except ConnectionError:
            pass
    assert server.http.get("/health").status_code == 200


def test_a_thousand_connections(run):
    async def many(server):
        opened = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", server.port) for _ in range(1000))
        )
        for _, writer in opened[::2]:
            writer.write(b"GET /health HT")  # the others say nothing at all
        texts = await asyncio.to_thread(lambda: server.ask(prompt="b", max_tokens=5))
        for _, writer in opened[::2]:
            writer.write(b"TP/1.1\r\nHost: localhost\r\n\r\n")
        answers = await asyncio.gather(*(reader.readline() for reader, _ in opened[::2]))
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*(w.wait_closed() for _, w in opened), return_exceptions=True)
        return texts, answers

    with running(run) as server:
        texts, answers = asyncio.run(many(server))
    assert texts["usage"]["completion_tokens"] == 5
    assert set(answers) == {b"HTTP/1.1 200 OK\r\n"}


def test_many_at_once_are_as_alone(run):
    """24 clients, 4 rows: each text is the one it would be alone, streamed or not."""
    prompts = [f"{'the dog and the fox, ' * (i % 5)}{i}" for i in range(24)]
    with running(run, flags=["--rows", "4", "--queue", "24"]) as server:
        body = {"max_tokens": 12, "temperature": 0.7}
        alone = [server.ask(prompt=p, seed=i, **body)["choices"][0] for i, p in enumerate(prompts)]
        got = {}

        def ask(i):
            if i % 2:
                got[i] = server.ask(prompt=prompts[i], seed=i, **body)["choices"][0]["text"]
            else:
                chunks = server.stream(prompt=prompts[i], seed=i, **body)
                got[i] = "".join(c["choices"][0]["text"] for c in chunks)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [got[i] for i in range(len(prompts))] == [one["text"] for one in alone]


def test_a_step_that_fails_ends_its_texts_only(server, monkeypatch, caplog):
    real, fails = server.engine.step, iter([True])

    def step():
        if server.engine.under_way > 1 and next(fails, False):
            raise MemoryError("no more")
        return real()

    monkeypatch.setattr(server.engine, "step", step)
    status, error = server.refused(prompt=["a", "b"], max_tokens=5)
    assert (status, error["type"]) == (500, "server_error")
    assert "MemoryError" in error["message"]
    assert "no more" not in error["message"]  # for the log alone
    assert "the engine failed" in caplog.text
    server.wait_until_idle(1)
    assert server.ask(prompt=["a", "b"], max_tokens=5)["usage"]["completion_tokens"] == 10


def test_who_takes_too_long_is_told_so(run):
    with running(run, flags=["--seconds", "0.3"]) as server:
        status, error = server.refused(**{**LONG, "stream": False})
        assert (status, error["code"]) == (504, "timeout")
        last = server.stream(**LONG)[-1]
        assert last["error"]["code"] == "timeout"
        server.wait_until_idle(1)


@pytest.mark.parametrize(("tokens", "last"), [(40, "length"), (1900, "stopping")])
def test_streams_end_well_when_the_server_stops(run, tokens, last):
    """Those that can finish within --grace do; the others get an error as their last event."""
    with running(run) as server, connect(server) as sock:
        sock.sendall(request(**{**LONG, "max_tokens": tokens, "n": 3}))
        data = sock.recv(100)
        server.uv.should_exit = True
        data += all_of(sock)
        events = [e[6:] for e in data.decode().replace("\r\n", "\n").split("\n") if "data:" in e]
        assert events[-1] == "[DONE]"
        end = json.loads(events[-2])
        assert last in json.dumps(end)
        while True:  # within a moment nobody new is let in
            try:
                connect(server).close()
            except OSError:
                break


def test_a_signal_stops_it(run):
    """As a process: it prints its address, SIGTERM ends it with 0 and no traceback."""
    command = [sys.executable, "-m", "utils.serve", "--run", str(run), "--port", "0"]
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert "Traceback" not in err
    assert process.returncode in (0, -signal.SIGTERM)


@pytest.mark.parametrize(("flags", "said"), [
    (["--port", "70000"], "port=70000"),
    (["--rows", "0"], "rows=0"),
    (["--grace", "nan"], "grace=nan"),
    (["--api-key", ""], "API key is empty"),
    (["--run", "nowhere"], "no run runs/nowhere"),
])  # fmt: skip
def test_flags_that_make_no_sense(error_of, flags, said):
    from utils.serve.__main__ import main

    assert said in error_of(main, *flags)


def test_an_address_that_is_taken(error_of, run, server):
    from utils.serve.__main__ import main

    said = error_of(main, "--run", run, "--port", server.port)
    assert f"127.0.0.1:{server.port}: Address already in use" in said


def resident():
    """Bytes of this process in main memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_two_thousand_requests_leave_nothing_behind(run):
    """Of all lengths, streamed or not, one of five abandoned; memory is that of the first 500."""
    with running(run, flags=["--queue", "100", "--prefix-mb", "4"]) as server:

        def ask(i):
            body = {"prompt": f"{i} the dog " * (i % 40 + 1), "max_tokens": i % 30}
            if i % 5:
                done = server.ask if i % 2 else server.stream
                assert done(**body)
                return
            with connect(server) as sock:
                sock.sendall(request(**body, stream=bool(i % 2)))
                sock.recv(10)

        held = []
        with ThreadPoolExecutor(16) as pool:
            for n in range(0, 2000, 500):
                list(pool.map(ask, range(n, n + 500)))
                server.wait_until_idle()
                gc.collect()
                held.append(resident())
        store = server.engine.batches["toy"].prefixes
        assert 0 < store.bytes <= store.most_bytes
        assert not server.worker.streams
        assert held[-1] - held[0] < 30e6, held
