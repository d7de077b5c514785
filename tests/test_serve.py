"""The server's API: what OpenAI's clients send, and what they get."""

import json

import hub_models
import pytest
import torch
from serve_tools import running

from utils.hub.pretrained import read_template
from utils.serve import served as served_module
from utils.training.models import load_model
from utils.writing.chat import Chat
from utils.writing.text import write_text

PROMPT = "The quick brown"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "toy"
    hub_models.make_run(path, "llama", block_size=160)
    return path


@pytest.fixture(scope="module")
def server(run):
    with running(run) as server:
        yield server


def choice(answer):
    (one,) = answer["choices"]
    return one


def test_a_text_is_what_sample_writes(server, run):
    model, tokenizer, _ = load_model(run)
    end = tokenizer.special_tokens["<|endoftext|>"]
    how = {"temperature": 0.8, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "seed": 5}
    how["repetition_penalty"] = 1.2
    want = write_text(model, tokenizer, PROMPT, 30, end=end, **how)
    got = server.ask(prompt=PROMPT, max_tokens=30, **how)
    assert choice(got)["text"] == want.split("<|end|>")[0]  # its eos; sample.py goes on
    assert got["object"] == "text_completion"
    assert got["model"] == "toy"
    n = len(tokenizer.encode(PROMPT)) + 1
    assert got["usage"]["prompt_tokens"] == n
    assert got["usage"]["total_tokens"] == n + got["usage"]["completion_tokens"]


def test_a_stream_is_the_same_text(server):
    body = {"prompt": PROMPT, "max_tokens": 24, "seed": 1}
    whole = server.ask(**body)
    chunks = server.stream(**body, stream_options={"include_usage": True})
    assert {c["id"] for c in chunks} == {chunks[0]["id"]}
    assert "".join(c["choices"][0]["text"] for c in chunks[:-1]) == choice(whole)["text"]
    ends = [c["choices"][0]["finish_reason"] for c in chunks[:-1]]
    assert ends == [None] * (len(ends) - 1) + ["length"]
    assert chunks[-2]["choices"][0]["text"] == ""
    assert chunks[-1]["choices"] == []
    assert [c["usage"] for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["usage"]["completion_tokens"] == 24
    assert all("usage" not in c for c in server.stream(**body))


def test_a_stop_string_over_several_tokens(server):
    body = {"prompt": PROMPT, "max_tokens": 40, "temperature": 0}
    text = choice(server.ask(**body))["text"]
    stop = text[7:12]
    got = server.ask(**body, stop=["not there", stop], logprobs=0)
    assert choice(got)["text"] == text[: text.index(stop)]
    assert choice(got)["finish_reason"] == "stop"
    assert got["usage"]["completion_tokens"] < 40
    chunks = server.stream(**body, stop=stop)
    assert "".join(c["choices"][0]["text"] for c in chunks) == text[: text.index(stop)]
    server.wait_until_idle()


def test_texts_of_one_prompt_draw_with_seed_plus_i(server):
    body = {"prompt": [PROMPT, "dog"], "max_tokens": 6}
    got = server.ask(**body, n=2, seed=7)
    assert [c["index"] for c in got["choices"]] == [0, 1, 2, 3]
    alone = [
        choice(server.ask(prompt=prompt, max_tokens=6, seed=seed))["text"]
        for prompt in body["prompt"]
        for seed in (7, 8)
    ]
    assert [c["text"] for c in got["choices"]] == alone
    assert len(set(alone)) > 2
    texts = dict.fromkeys(range(4), "")
    for chunk in server.stream(**body, n=2, seed=7):
        one = choice(chunk)
        texts[one["index"]] += one["text"]
    assert list(texts.values()) == alone


def test_a_scored_prompt_and_one_token(server, run):
    """What lm-evaluation-harness reads: each token's own log-probability, and the largest."""
    model, _, _ = load_model(run)
    ids = [[40, 50, 60, 70], [99]]
    got = server.ask(prompt=ids, max_tokens=1, temperature=0, logprobs=1, echo=True)
    for prompt, one in zip(ids, got["choices"], strict=True):
        told = one["logprobs"]
        logits = model(torch.tensor([prompt]))[0][0].log_softmax(-1)
        want = logits[:-1].gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
        assert told["token_logprobs"][0] is None
        assert told["top_logprobs"][0] is None
        assert told["token_logprobs"][1:-1] == pytest.approx(want.tolist(), abs=1e-5)
        assert len(told["tokens"]) == len(prompt) + 1
        best = [max(top.values()) for top in told["top_logprobs"][1:]]
        assert best == pytest.approx(logits.max(-1).values.tolist(), abs=1e-5)
        assert told["token_logprobs"][-1] == best[-1]  # greedy: equal, not near
        assert told["text_offset"] == sorted(told["text_offset"])


def test_one_token_follows_even_if_it_ends_the_text(server, monkeypatch):
    """An end counts as a token: a harness cuts the last log-probability off, whatever it is."""
    body = {"prompt": [[40, 50, 60]], "max_tokens": 1, "temperature": 0, "logprobs": 1}
    drawn = server.ask(**body, return_token_ids=True)["choices"][0]["token_ids"]
    monkeypatch.setattr(served_module.Served, "ends", frozenset(drawn))
    got = choice(server.ask(**body, echo=True))
    assert got["finish_reason"] == "stop"
    assert len(got["logprobs"]["token_logprobs"]) == 4
    assert choice(server.ask(**body))["text"] == ""


def test_echo_is_what_was_typed(server):
    plain = choice(server.ask(prompt=PROMPT, max_tokens=3, temperature=0))["text"]
    for more in {}, {"logprobs": 2}:
        got = choice(server.ask(prompt=PROMPT, max_tokens=3, temperature=0, echo=True, **more))
        assert got["text"] == PROMPT + plain
    told = got["logprobs"]
    assert told["tokens"][0] != "<|endoftext|>"
    n = len(told["tokens"]) - 3  # what is drawn may be parts of characters
    assert "".join(told["tokens"][:n]) == PROMPT
    starts = [got["text"][i] for i in told["text_offset"][:n]]
    assert starts == [t[0] for t in told["tokens"][:n]]
    nothing = choice(server.ask(prompt=PROMPT, max_tokens=0, echo=True))
    assert (nothing["text"], nothing["finish_reason"]) == (PROMPT, "length")


def test_tokens_with_ids_and_bytes(server, run):
    _, tokenizer, _ = load_model(run)
    got = choice(server.ask(prompt="fox", max_tokens=5, logprobs=3, return_token_ids=True))
    told = got["logprobs"]["content"]
    assert [t["id"] for t in told] == got["token_ids"]
    assert got["prompt_token_ids"] == tokenizer.encode("<|endoftext|>fox", allowed_special="all")
    for t in told:
        assert bytes(t["bytes"]) == tokenizer.decode_bytes([t["id"]])
        assert len(t["top_logprobs"]) == 3
        assert [a["logprob"] for a in t["top_logprobs"]] == sorted(
            (a["logprob"] for a in t["top_logprobs"]), reverse=True
        )


def test_an_answer_is_what_a_chat_says(server, run):
    model, tokenizer, _ = load_model(run)
    chat = Chat(model, tokenizer, read_template(run), temperature=0, system="Be brief.")
    first = "".join(chat.answer("the dog?", 12))
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "the dog?"}]},
    ]
    body = {"messages": messages, "max_completion_tokens": 12, "temperature": 0}
    got = server.ask("/v1/chat/completions", **body, logprobs=True, top_logprobs=2)
    assert got["object"] == "chat.completion"
    assert choice(got)["message"] == {"role": "assistant", "content": first, "refusal": None}
    assert [len(t["top_logprobs"]) for t in choice(got)["logprobs"]["content"]] == [2] * 12
    chunks = server.stream("/v1/chat/completions", **body)
    deltas = [choice(c)["delta"] for c in chunks]
    assert deltas[0]["role"] == "assistant"
    assert "".join(d.get("content", "") for d in deltas) == first
    assert deltas[-1] == {}
    assert choice(chunks[-1])["finish_reason"] == "length"
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}


def test_what_is_typed_is_never_a_special_token(server, run):
    one = server.server.served["toy"]
    text = one.render([{"role": "user", "content": "a<|end|>b"}])
    ids = one.chat_ids(text)
    end = one.tokenizer.special_tokens["<|end|>"]
    assert ids.count(end) == 1  # the template's own
    assert one.tokenizer.decode(ids) == "<|start|>user: a<|end|>b<|end|><|start|>assistant: "
    typed = server.ask(prompt="<|end|>", max_tokens=0, return_token_ids=True)
    assert end not in choice(typed)["prompt_token_ids"]


def test_a_known_beginning_is_told(server):
    body = {"prompt": [list(range(10, 150))], "max_tokens": 1}
    server.ask(**body)
    assert server.ask(**body)["usage"]["prompt_tokens_details"] == {"cached_tokens": 128}


def test_models_tokenizer_and_health(server):
    (one,) = server.http.get("/v1/models").json()["data"]
    assert (one["id"], one["max_model_len"], one["chat"]) == ("toy", 160, True)
    assert server.http.get("/health").json() == {"status": "ok"}
    info = server.http.get("/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"]) == ("<|start|>", "<|end|>")
    assert info["chat_template"] == hub_models.TEMPLATE
    text = "Füchse 🦊"
    told = server.ask("/tokenize", prompt=text, add_special_tokens=False)
    assert b"".join(bytes(p["bytes"]) for p in told["pieces"]).decode() == text
    assert server.ask("/detokenize", tokens=told["tokens"]) == {"prompt": text}
    more = server.ask("/tokenize", prompt=text)
    assert more["tokens"][1:] == told["tokens"]
    assert more["count"] == len(more["tokens"])


def test_special_tokens_are_told_to_who_asks_for_the_bare_ids(server):
    """lm-evaluation-harness asks so for the id of bos, and got that of "<"; what is typed to be
    written on from stays plain.
    """
    special = hub_models.tokenizer().special_tokens
    got = server.ask("/tokenize", prompt="<|start|>", add_special_tokens=False)
    assert got["tokens"] == [special["<|start|>"]]
    plain = server.ask("/tokenize", prompt="<|start|>")["tokens"]
    assert special["<|start|>"] not in plain


def test_metrics_count(server):
    before = server.counted("written_tokens_total")
    server.ask(prompt="a", max_tokens=7, seed=1)
    assert server.counted("written_tokens_total") == before + 7
    text = server.http.get("/metrics").text
    assert 'llm_tiny_answers_total{path="/v1/completions",status="200"}' in text


@pytest.mark.parametrize(("body", "status", "param"), [
    ({"prompt": "a", "logit_bias": {"1": 1}}, 400, "logit_bias"),
    ({"prompt": "a", "best_of": 2}, 400, "best_of"),
    ({"prompt": "a", "stream_options": {"x": 1}}, 400, "stream_options"),
    ({}, 400, "prompt"),
    ({"prompt": ""}, 200, None),
    ({"prompt": "a", "logit_bias": None, "stop": None}, 200, None),
    ({"prompt": []}, 400, "prompt"),
    ({"prompt": [[]]}, 400, "prompt"),
    ({"prompt": [[5, 300]]}, 400, "prompt"),
    ({"prompt": [-1]}, 400, "prompt"),
    ({"prompt": [1.5]}, 400, "prompt"),
    ({"prompt": {"a": 1}}, 400, "prompt"),
    ({"prompt": "a\ud800"}, 400, "prompt"),
    ({"prompt": "a", "max_tokens": -1}, 400, "max_tokens"),
    ({"prompt": "a", "max_tokens": 1000}, 400, "max_tokens"),
    ({"prompt": "a", "temperature": -0.1}, 400, "temperature"),
    ({"prompt": "a", "temperature": "hot"}, 400, "temperature"),
    ({"prompt": "a", "top_p": 0}, 400, "top_p"),
    ({"prompt": "a", "top_k": 0}, 400, "top_k"),
    ({"prompt": "a", "n": 0}, 400, "n"),
    ({"prompt": "a", "n": 100}, 400, "n"),
    ({"prompt": "a", "seed": -1}, 400, "seed"),
    ({"prompt": "a", "stop": ""}, 400, "stop"),
    ({"prompt": "a", "stop": [str(i) for i in range(16)]}, 200, None),
    ({"prompt": "a", "stop": [str(i) for i in range(17)]}, 400, "stop"),
    ({"prompt": "a", "logprobs": 21}, 400, "logprobs"),
    ({"prompt": "a", "frequency_penalty": 3}, 400, "frequency_penalty"),
    ({"prompt": "a", "model": "gpt-9"}, 404, "model"),
])  # fmt: skip
def test_what_is_refused_is_named(server, body, status, param):
    content = json.dumps({"model": "toy", **body})
    headers = {"Content-Type": "application/json"}
    answer = server.http.post("/v1/completions", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    if status != 200:
        error = answer.json()["error"]
        assert error["param"] == param
        assert set(error) == {"message", "type", "param", "code"}
        assert param in error["message"]


@pytest.mark.parametrize(("body", "param"), [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "a"}], "tools": []}, "tools"),
    ({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}, "top_logprobs"),
    ({"messages": [{"role": "user", "content": "a " * 200}]}, "messages"),
])  # fmt: skip
def test_what_chats_refuse(server, body, param):
    status, error = server.refused("/v1/chat/completions", **body)
    assert (status, error["param"]) == (400, param)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "1", '{"prompt": NaN}', "[" * 100_000, '{"prompt": 1e999}', "\xff"]
)
def test_what_is_no_request_at_all(server, content):
    headers = {"Content-Type": "application/json"}
    answer = server.http.post("/v1/completions", content=content.encode("latin1"), headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


def test_other_paths_and_methods(server):
    for path in "/nothing", "/page/../app.py", "/page/%2e%2e/app.py", "/v1/../etc/passwd":
        answer = server.http.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert server.http.get("/v1/completions").status_code == 405
    assert server.http.get("/docs").status_code == 404


def test_adapters_are_chosen_by_name(tmp_path, text_file, toy_run):
    import train

    flags = ["--data", str(text_file), "--init", "my", "--run", "tuned", "--lora", "2"]
    flags += ["--steps", "3", "--eval_every", "3", "--lr", "0.3", "--device", "cpu", "--sample"]
    assert train.main([*flags, "0", "--dtype", "float32"]) == 0
    with running("tuned", "my") as server:
        assert list(server.server.served) == ["tuned", "tuned:base", "my"]
        body = {"prompt": "the cat", "max_tokens": 4, "temperature": 0, "logprobs": 0}
        tuned, base, my = (
            choice(server.ask(model=name, **body))["logprobs"] for name in server.server.served
        )
        assert base == my
        assert tuned["token_logprobs"] != base["token_logprobs"]
        status, error = server.refused(
            "/v1/chat/completions", messages=[{"role": "user", "content": "hi"}]
        )
        assert status == 400
        assert "no chat template; use /v1/completions" in error["message"]
        with pytest.raises(ValueError, match="two runs are called my"), running("my", "my"):
            pass
