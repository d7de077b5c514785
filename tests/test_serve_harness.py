"""lm-evaluation-harness gets the same numbers from us, from our server, and from transformers."""

from types import SimpleNamespace

import hub_models
import pytest
import torch
from harness_tasks import answers, ours, peer, remote, score, write_tasks
from serve_tools import running

from model import GPTConfig, TinyGPT
from tok import CharTokenizer
from utils.hub.importer import write_run
from utils.hub.pretrained import Pretrained
from utils.hub.sources import Found
from utils.serve.served import Served

T = 96
LONG = "a fox and a dog, the dog and the fox " * 9
GREEDY = {"until": [], "max_gen_toks": 2}
EDGES = [  # what peers of ours cut in other ways
    ("", ["The fox", " the dog", "<|start|>dog"]),  # no context: bos, once
    ("The quick brown ", ["fox jumps", "fox", "12345"]),  # a space that goes over
    (LONG, [" over", " jumps over the lazy dog"]),  # loses its beginning
    ("The", [" fox" * 60, LONG[:250]]),  # all of it does, and of the other part a little
    ("<|start|>user: the fox<|end|>", ["<|end|>", " dog"]),  # special tokens count
    ("é 🦊", ["🦊🦊", "é\u2028"]),  # characters of several tokens
]


def asked(*args):
    """A request as the harness makes them."""
    return SimpleNamespace(args=args)


def agree(told, theirs):
    """All samples' answers are the same: texts and greedy exactly, log-probabilities to 1e-4.

    Or to a millionth of the sum: over 250 tokens it is some hundred nats, and float32 has seven
    digits (one kind of CPU was seen to differ by 1.4e-4 of 212, batched in another way).
    """
    assert [g for _, g in told["choose"]] == [g for _, g in theirs["choose"]]
    for task, column in ("choose", 0), ("read", slice(None)):
        got, want = ([p[column] if column == 0 else p for p in t[task]] for t in (told, theirs))
        assert got == pytest.approx(want, abs=1e-4, rel=1e-6), task
    assert told["write"] == theirs["write"]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def way(request, tmp_path_factory):
    """A directory with a run, `toy`, and tasks; a server of the run."""
    home = tmp_path_factory.mktemp(request.param)
    hub_models.make_run(home / "toy", request.param, block_size=T)
    words = hub_models.TEXT.split(" ")
    begins = [" ".join(words[: i + 1]) for i in range(16)]
    texts = ours(home / "toy").generate_until([asked(begin, GREEDY) for begin in begins])
    whole = [pair for pair in zip(begins, texts, strict=True) if "\ufffd" not in pair[1]]
    likely = [(begin, [text, " over"]) for begin, text in whole[:4]]
    more = [{"begin": begin, "choices": ends, "right": 0} for begin, ends in [*EDGES, *likely]]
    write_tasks(home, 2, more)
    with running(home / "toy") as server:
        yield home, server


def test_we_answer_as_transformers_does(way):
    home, _ = way
    told = answers(ours(home / "toy"), home)
    agree(told, answers(peer(home / "toy", home / "hf"), home))
    assert {g for _, g in told["choose"]} == {True, False}


def test_our_server_tells_what_we_answer(way):
    home, server = way
    told = answers(ours(home / "toy", max_length=T - 2), home)
    agree(answers(remote(server, T - 2), home), told)


def test_the_harness_finds_one_token_after_the_prompt_whatever_it_is(way, monkeypatch):
    """It cuts the last log-probability off: of a token that ends a text, or is cut off by a stop
    string, too. The first has none, as nothing stands before it.
    """
    home, server = way
    tokenizer = hub_models.tokenizer()
    ids = tokenizer.encode("The quick")
    body = {"prompt": [ids], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    plain = server.ask(**body, return_token_ids=True)
    want = score(plain, ctxlens=[1])
    drawn = plain["choices"][0]["token_ids"][-1]
    stopped = server.ask(**body, stop=[tokenizer.decode([drawn])])
    monkeypatch.setattr(Served, "ends", frozenset([drawn]))
    for got in stopped, server.ask(**body):
        (choice,) = got["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["logprobs"]["token_logprobs"][0] is None
        assert len(choice["logprobs"]["token_logprobs"]) == len(ids) + 1
        assert score(got, ctxlens=[1]) == want
    assert want[0][0] == pytest.approx(
        ours(home / "toy")._loglikelihood_tokens([("", ids[:1], ids[1:])])[0][0], abs=1e-4
    )


def test_parts_of_characters_are_not_taken_for_one_another(way):
    """As text all are U+FFFD: a dict by text had one of two, and the other counted as greedy."""
    home, server = way
    lm, tokenizer = ours(home / "toy"), hub_models.tokenizer()
    parts = [i for i in range(256) if tokenizer.decode([i]) == "\ufffd"]
    for first in range(300):
        logits = lm.served.model(torch.tensor([[first]]))[0][0, 0].detach()
        if (best := int(logits.argmax())) in parts:
            break
    assert best in parts
    for other in best, next(i for i in parts if i != best):
        body = {"prompt": [[first, other]], "echo": True, "logprobs": 1, "max_tokens": 1}
        ((logprob, greedy),) = score(server.ask(**body), ctxlens=[1])
        assert logprob == pytest.approx(float(logits.log_softmax(-1)[other]), abs=1e-5)
        assert greedy == (other == best)


def test_a_text_is_written_as_transformers_does(way):
    """After a context that loses its beginning, up to a special token, or to nothing at all."""
    home, _ = way
    theirs, lm = peer(home / "toy", home / "hf"), ours(home / "toy", batch_size=3)
    known = hub_models.tokenizer().special_tokens
    for until in [], ["<|end|>"], ["q", "y"]:
        how = {"until": until, "max_gen_toks": 40}
        requests = [asked(begin, how) for begin in ("fox", LONG, "<|start|>user: a<|end|>", "dog")]
        told = lm.generate_until(requests)
        assert told == theirs.generate_until(requests)
        assert not any(token in text for token in known for text in told)


def test_a_special_token_ends_a_text_if_it_is_eos_or_a_stop_string(tmp_path, monkeypatch):
    hub_models.make_run(tmp_path / "toy", "llama", block_size=T)
    lm, context = ours(tmp_path / "toy"), "<|start|>user: a<|end|>"  # goes on with <|endoftext|>
    text, nothing = lm.generate_until(
        [asked(context, {"until": until, "max_gen_toks": 5}) for until in ([], ["<|endoftext|>"])]
    )
    assert (text != "", nothing) == (True, "")
    monkeypatch.setattr(Served, "special", lambda self, kind: "<|endoftext|>")
    assert lm.generate_until([asked(context, {"until": [], "max_gen_toks": 5})]) == [""]


def test_sampled_texts_are_the_same_again(way):
    lm = ours(way[0] / "toy")
    how = {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 2.0, "top_k": 50}
    once, again = (lm.generate_until([asked("fox", how)] * 2) for _ in range(2))
    assert once == again
    assert once[0] != once[1]


def test_an_empty_context_begins_with_bos(way):
    lm, start = ours(way[0] / "toy"), hub_models.tokenizer().special_tokens["<|start|>"]
    assert lm.prefix_token_id == start
    how = {"until": [], "max_gen_toks": 5}
    bare, said = lm.generate_until([asked("", how), asked("<|start|>", how)])
    assert bare == said


def test_chats_are_what_transformers_makes_of_them(way):
    home, _ = way
    theirs, lm = peer(home / "toy", home / "hf"), ours(home / "toy")
    question = [{"role": "user", "content": "the fox?"}]
    begun = [*question, {"role": "assistant", "content": " The "}]
    assert lm.apply_chat_template(question) == theirs.apply_chat_template(question)
    for talk in question, begun:
        got = lm.apply_chat_template(talk, add_generation_prompt=False)
        assert got == theirs.apply_chat_template(talk, add_generation_prompt=False)
        assert got.endswith(talk[-1]["content"])
    assert lm.chat_template(True) == theirs.chat_template(True) == hub_models.TEMPLATE
    assert lm.chat_template(False) is None


@pytest.mark.parametrize(("how", "said"), [
    ({"max_gen_toks": T}, f"max_gen_toks={T} leaves no room for a context in the {T} tokens"),
    ({"num_beams": 2}, "num_beams is none of until, max_gen_toks"),
    ({"do_sample": True, "temperature": -1.0}, "temperature=-1"),
    ({"until": [""]}, "a stop string is empty"),
])  # fmt: skip
def test_what_a_task_cannot_ask_is_said(way, how, said):
    with pytest.raises(ValueError, match=said):
        ours(way[0] / "toy").generate_until([asked("fox", {"until": [], "max_gen_toks": 4, **how})])


def test_a_continuation_that_does_not_fit_is_said(way):
    with pytest.raises(ValueError, match=f"longer than the {T} that toy reads"):
        ours(way[0] / "toy").loglikelihood([asked("fox", LONG)])


def test_a_run_without_adapters_has_no_base(way):
    with pytest.raises(ValueError, match="no adapters to leave out"):
        ours(f"{way[0] / 'toy'}:base")


def test_a_run_without_special_tokens_begins_as_a_sample_does(tmp_path):
    """By characters, say: a line break stands before all, and no chat template is there."""
    text = "the dog\nand the fox"
    tokenizer = CharTokenizer.train(text)
    V = tokenizer.vocab_size
    model = TinyGPT(GPTConfig(vocab_size=V, **{**hub_models.GPT2, "block_size": 8})).eval()
    origin = Pretrained("made here")
    write_run(tmp_path / "chars", Found(model.config, model.state_dict(), tokenizer, origin))
    (tmp_path / "chars" / "pretrained.json").unlink()
    lm = ours(tmp_path / "chars")
    ids = tokenizer.encode("\n" + text[:8])
    want = model(torch.tensor([ids[:-1]]))[0][0].log_softmax(-1)
    want = want.gather(1, torch.tensor(ids[1:])[:, None]).sum().item()
    assert lm.loglikelihood_rolling([asked(text[:8])]) == [pytest.approx(want, abs=1e-5)]
    with pytest.raises(ValueError, match="chars has no chat template"):
        lm.apply_chat_template([{"role": "user", "content": "the"}])
