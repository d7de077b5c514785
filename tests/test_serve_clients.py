"""Real clients: the openai package, curl, and schemathesis from the server's description."""

import asyncio
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import hub_models
import pytest
from hypothesis import HealthCheck, given, settings
from serve_tools import running

from utils.serve import errors
from utils.serve.served import Served

openai = pytest.importorskip("openai", reason="pip install openai")
schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "toy"
    hub_models.make_run(path, "llama", block_size=160)
    with running(path) as server:
        yield server


@pytest.fixture
def endless(monkeypatch):
    """No token ends a text."""
    monkeypatch.setattr(Served, "ends", frozenset())


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_lists_models(client):
    assert [m.id for m in client.models.list()] == ["toy"]


def test_openai_completes(client):
    how = {"model": "toy", "prompt": "The fox", "max_tokens": 8, "temperature": 0}
    got = client.completions.create(**how, logprobs=2)
    assert got.usage.completion_tokens == 8
    assert len(got.choices[0].logprobs.token_logprobs) == 8
    pieces, usage = [], None
    for chunk in client.completions.create(
        **how, stream=True, stream_options={"include_usage": True}
    ):
        pieces += [choice.text for choice in chunk.choices]
        usage = chunk.usage or usage
    assert "".join(pieces) == got.choices[0].text
    assert usage.completion_tokens == 8


def test_openai_chats(client):
    messages = [{"role": "user", "content": "the dog?"}]
    how = {"model": "toy", "messages": messages, "max_completion_tokens": 8, "temperature": 0}
    got = client.chat.completions.create(**how, logprobs=True, top_logprobs=1, n=2, seed=1)
    texts = [choice.message.content for choice in got.choices]
    assert texts[0] == texts[1]
    assert len(got.choices[0].logprobs.content) == 8
    choices = [c.choices[0] for c in client.chat.completions.create(**how, stream=True)]
    assert "".join(c.delta.content or "" for c in choices) == texts[0]
    assert choices[0].delta.role == "assistant"
    assert [c.finish_reason for c in choices] == [None] * (len(choices) - 1) + ["length"]


def test_openai_waits_for_several_at_once(server):
    async def ask():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as client:
            create = client.completions.create
            how = {"model": "toy", "max_tokens": 6, "temperature": 0}
            whole = await asyncio.gather(*(create(prompt=p, **how) for p in ["a", "fox", "dog"]))
            stream = await create(prompt="fox", stream=True, **how)
            streamed = [chunk.choices[0].text async for chunk in stream]
            return [one.choices[0].text for one in whole], "".join(streamed)

    texts, streamed = asyncio.run(ask())
    assert texts[1] == streamed
    assert len(set(texts)) == 3


def test_openai_raises_its_own_errors(client):
    create = client.completions.create
    with pytest.raises(openai.NotFoundError) as e:
        create(model="gpt-9", prompt="a")
    assert e.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as e:
        create(model="toy", prompt="a", logit_bias={"5": 1})
    assert e.value.param == "logit_bias"
    with pytest.raises(openai.BadRequestError) as e:
        create(model="toy", prompt="a", max_tokens=1000)
    assert e.value.code == "context_length_exceeded"


def test_openai_gives_its_key(tmp_path):
    hub_models.make_run(tmp_path / "toy", "gpt2")
    with running(tmp_path / "toy", flags=["--api-key", "sesame"]) as server:
        url = server.url + "/v1"
        for key in "wrong", "sesam", "sesame2":
            with (
                openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client,
                pytest.raises(openai.AuthenticationError),
            ):
                client.models.list()
        with openai.OpenAI(base_url=url, api_key="sesame") as client:
            assert [m.id for m in client.models.list()] == ["toy"]
        assert server.http.get("/health").status_code == 200
        assert server.http.get("/").status_code == 200  # the page asks for the key itself
        for path in "/metrics", "/openapi.json", "/tokenizer_info", "/nothing", "//health":
            assert server.http.get(server.url + path).status_code == 401


def test_a_full_queue_is_429_with_the_time_to_wait(tmp_path, endless):
    """The openai client waits as long as Retry-After says, and comes through."""
    hub_models.make_run(tmp_path / "toy", "gpt2", block_size=2000)
    flags = ["--rows", "1", "--queue", "0"]
    with running(tmp_path / "toy", flags=flags) as server:
        long = {"model": "toy", "prompt": "a", "max_tokens": 1500, "stream": True}
        with server.http.stream("POST", "/v1/completions", json=long) as stream:
            lines = stream.iter_lines()
            next(lines)
            status, error = server.refused(prompt="b")
            assert (status, error["code"]) == (429, "queue_full")
            answer = server.http.post("/v1/completions", json={**long, "stream": False})
            assert answer.headers["retry-after"] == errors.RETRY_AFTER
        with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=5) as client:
            assert client.completions.create(model="toy", prompt="b", max_tokens=1).choices


def test_pages_of_others_may_not_ask(tmp_path):
    hub_models.make_run(tmp_path / "toy", "gpt2")
    asks = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    asks["Access-Control-Request-Headers"] = "content-type"
    allow = "access-control-allow-origin"
    with running(tmp_path / "toy") as server:
        assert allow not in server.http.options("/v1/completions", headers=asks).headers
        assert allow not in server.http.get("/health", headers=asks).headers
    flags = ["--cors", asks["Origin"], "--api-key", "k"]
    with running(tmp_path / "toy", flags=flags) as server:
        told = server.http.options("/v1/completions", headers=asks)
        assert told.headers[allow] == asks["Origin"]
        refused = server.http.get("/v1/models", headers=asks)
        assert (refused.status_code, refused.headers[allow]) == (401, asks["Origin"])
        other = {**asks, "Origin": "https://other.example"}
        assert allow not in server.http.options("/v1/completions", headers=other).headers


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_streams(server):
    body = {"model": "toy", "prompt": "The fox", "max_tokens": 5, "temperature": 0}
    command = ["curl", "-sS", "-N", server.url + "/v1/completions"]
    command += ["-H", "Content-Type: application/json", "-d"]
    run = subprocess.run([*command, json.dumps({**body, "stream": True})], capture_output=True)
    events = run.stdout.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    text = "".join(json.loads(e[6:])["choices"][0]["text"] for e in events[:-2])
    assert text == server.ask(prompt="The fox", max_tokens=5, temperature=0)["choices"][0]["text"]


@pytest.mark.slow
def test_what_the_description_promises(server):
    """Requests made at random from /openapi.json: each answer is of a kind that it names."""
    accepted = checks.positive_data_acceptance
    schema = schemathesis.openapi.from_url(server.url + "/openapi.json")
    paths = set()
    for operation in schema.get_all_operations():
        paths.add(operation.ok().path)

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.ok().as_strategy())
        def check(case):
            case.call_and_validate(excluded_checks=[accepted])  # ids, lengths

        check()
    assert {"/v1/completions", "/v1/chat/completions", "/tokenize", "/v1/models"} <= paths
    server.wait_until_idle()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_commands_of_the_docs(tmp_path):
    """Every curl line and the Python example of docs/serving.md, against a run of that name."""
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    hub_models.make_run(tmp_path / "tiny", "llama", block_size=160)
    lines = [line[2:] for line in text.splitlines() if line.startswith("$ curl")]
    assert len(lines) > 4
    with running(tmp_path / "tiny") as server:
        for line in lines:
            line = line.replace("http://127.0.0.1:8000", server.url)
            done = subprocess.run([*shlex.split(line), "-fsS"], capture_output=True)
            assert done.returncode == 0, (line, done.stderr)
            assert done.stdout
        code = text.split("```python\n")[1].split("```")[0]
        exec(code.replace("http://127.0.0.1:8000", server.url), values := {})
        values["client"].close()
