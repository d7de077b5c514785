"""sample.py as people use it: prompts from everywhere, several at once, tables, a conversation."""

import io
import itertools
import math
import re
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TOY
from hypothesis import given
from hypothesis import strategies as st

import sample
import train
from data.store import end_id
from model import generate
from model.generation.step import TokenStep
from tok import BPETokenizer
from utils.training.models import load_model
from utils.writing import terminal
from utils.writing.compile import compiled_step
from utils.writing.stops import up_to
from utils.writing.tables import alternatives, distinct, grid_row
from utils.writing.text import (
    Written,
    generate_ids,
    stream_batch,
    stream_text,
    write_batch,
    write_text,
)


def said(capfd, *args):
    """What the script prints on stdout."""
    capfd.readouterr()
    assert not sample.main([*args, "--device", "cpu"])
    return capfd.readouterr().out


def cut(text, stops):
    """Second implementation of up_to: whole text, letter by letter."""
    for n in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:n].endswith(stop)]
        if ended:
            return text[: n - max(map(len, ended))]
    return text


@given(st.lists(st.text("ab", max_size=5)), st.lists(st.text("ab", min_size=1, max_size=4)))
def test_stop_strings_cut_wherever_the_pieces_are(pieces, stops):
    made = list(up_to(pieces, stops))
    assert "".join(made) == cut("".join(pieces), stops)
    assert "" not in made


def test_what_cannot_become_a_stop_is_not_held_back():
    assert list(up_to(["E", "N", "Dx", "y"], ["END!"])) == ["ENDx", "y"]
    assert list(up_to(["one ", "two ", "E", "ND", "more"], ["END"])) == ["one ", "two "]
    assert list(up_to(["a", "E"], ["END"])) == ["a", "E"]  # nothing came of it
    assert list(up_to(["a", "", "b"], [])) == ["a", "b"]
    for pieces in (["abcd"], list("abcd")):  # "bc" is complete before "abcd" is
        assert "".join(up_to(pieces, ["abcd", "bc"])) == "a"


def test_a_stop_string_over_several_tokens(toy_run, capfd):
    """It and what follows are not printed; the text before it is all there."""
    model, tokenizer, _ = load_model(toy_run)
    free = write_text(model, tokenizer, "the cat", 60, seed=4)
    stop = free[20:26]
    assert len(tokenizer.encode(stop)) > 1
    want = free[: free.index(stop)]
    assert write_text(model, tokenizer, "the cat", 60, seed=4, stops=[stop]) == want
    both = write_batch(model, tokenizer, ["the cat", "a dog"], 60, seed=4, stops=[stop])
    assert both[0].text == want
    assert len(both[0].ids) == len(both[0].logprobs) < 60
    out = said(
        capfd, *["--prompt", "the cat", "--steps", "60", "--seed", "4"], "--stop", stop,
        "--top_k", "0", "--temp", "1",
    )  # fmt: skip
    assert out == f"the cat{want}\n"


def test_half_a_character_is_never_printed(toy_run, monkeypatch):
    """Ids that are single bytes of é, € and an emoji: the pieces are whole characters."""
    model, tokenizer, _ = load_model(toy_run)
    text = "é€🙂!"
    ids = [torch.tensor([i]) for i in text.encode()]  # the first 256 ids are the bytes
    assert isinstance(tokenizer, BPETokenizer)
    monkeypatch.setattr("utils.writing.text.generate", lambda *args, **kwargs: iter(ids))
    assert list(stream_text(model, tokenizer, "a", 9)) == list(text)


def test_text_comes_while_it_is_made(toy_run):
    model, tokenizer, _ = load_model(toy_run)
    steps = []
    pieces = stream_text(model, tokenizer, "a", 50, seed=1, callback=lambda *_: steps.append(1))
    next(pieces)
    assert len(steps) < 5


def test_the_first_of_several_comes_while_all_are_made(toy_run):
    """The others are then read from what was made with it; no step is made twice, or for nobody."""
    model, tokenizer, _ = load_model(toy_run)
    prompts, steps = ["the", "a dog and the old", "the"], []
    how = {"seed": 7, "callback": lambda *_: steps.append(1)}
    first, *others = stream_batch(model, tokenizer, prompts, 50, **how)
    pieces = [next(first)]
    assert len(steps) < 5
    made = ["".join(pieces + list(first)), *map("".join, others)]
    assert len(steps) == 50
    alone = [write_text(model, tokenizer, p, 50, seed=7 + i) for i, p in enumerate(prompts)]
    assert made == alone
    early = max(made[0].index(" "), made[1].index(" "), made[2].index(" "))
    steps.clear()
    texts = stream_batch(model, tokenizer, prompts, 50, stops=[" "], **how)
    assert ["".join(t) for t in reversed(texts)] == [t[: t.index(" ")] for t in reversed(made)]
    assert len(steps) <= early + 1 < 50


def test_only_ids_that_the_tokenizer_knows(toy_run):
    """A model with more ids than its tokenizer, as where V is padded to a multiple of 64."""
    model, tokenizer, _ = load_model(toy_run)
    tokenizer = BPETokenizer({i: tokenizer.vocab[i] for i in range(256)}, [])
    ids = torch.cat(
        list(generate_ids(model, tokenizer, ["a"], 200, end=None, temperature=9.0, seed=0))
    )
    assert ids.max() < 256


def test_a_batch_is_its_prompts_alone_and_scores_what_it_wrote(toy_run):
    model, tokenizer, _ = load_model(toy_run)
    prompts = ["the", "a dog and the old", ""]
    made = write_batch(model, tokenizer, prompts, 12, seed=7)
    for i, (prompt, one) in enumerate(zip(prompts, made, strict=True)):
        assert one.text == write_text(model, tokenizer, prompt, 12, seed=7 + i)
    ids = torch.tensor([tokenizer.encode("the") + made[0].ids])
    with torch.no_grad():
        logp = model.eval()(ids[:, :-1])[0].log_softmax(-1)
    n = len(tokenizer.encode("the"))
    want = logp[0].gather(1, ids[0, 1:, None])[n - 1 :, 0]
    torch.testing.assert_close(torch.tensor(made[0].logprobs), want, rtol=1e-4, atol=1e-4)
    assert made[0].mean_logprob == pytest.approx(want.mean().item(), rel=1e-4)
    assert Written("", [], []).mean_logprob == 0


def test_num_continues_each_prompt_and_echoes_it_once(toy_run, capfd):
    out = said(capfd, "--prompt", "the cat", "a dog", "--num", "2", "--steps", "8", "--seed", "3")
    parts = re.split(r"--- \d\n", out)[1:]
    assert [p.split(" ")[0] for p in parts] == ["the", "the", "a", "a"]
    assert parts[0] != parts[1]
    assert all(part.count("the cat") == 1 for part in parts[:2])
    one = said(capfd, "--prompt", "a dog", "--steps", "8", "--seed", "6")
    assert parts[3].strip() == one.strip()
    assert "\033" not in out  # no terminal, no colours


def test_every_flag_reaches_the_model(toy_run, monkeypatch):
    """That the text is the same with --no-cache says nothing if the flag is lost on the way."""
    found: dict = {}

    def write(model, rows, steps, **kwargs):
        found.update(kwargs, steps=steps)
        return generate(model, rows, steps, **kwargs)

    def load(path, ckpt):
        found["ckpt"] = ckpt
        return load_model(path, ckpt)

    monkeypatch.setattr("utils.writing.text.generate", write)
    monkeypatch.setattr("utils.training.models.load_model", load)
    flags = ["--temp", "0.7", "--top_k", "9", "--top_p", "0.9", "--min_p", "0.01", "--seed", "5"]
    flags += ["--repetition_penalty", "1.2", "--steps", "3", "--no-cache", "--ckpt", "last"]
    sample.main([*flags, "--prompt", "a", "--device", "cpu"])
    want = {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "seed": 5, "steps": 3}
    want |= {"repetition_penalty": 1.2, "cache": False, "ckpt": "last"}
    assert want.items() <= found.items()
    sample.main(["--top_k", "0", "--prompt", "a", "--steps", "1", "--device", "cpu"])
    assert (found["top_k"], found["cache"], found["ckpt"]) == (None, True, "best")


def test_each_piece_is_flushed(monkeypatch):
    """Through a pipe, too, text comes as it is made: the prompt first."""
    out, flushed = io.StringIO(), []
    monkeypatch.setattr(out, "flush", lambda: flushed.append(out.getvalue()))
    monkeypatch.setattr(sys, "stdout", out)
    terminal.show("a", ["b", "c"])
    assert flushed == ["a", "ab", "abc"]
    assert out.getvalue() == "abc\n"


def test_no_cache_is_the_same_text(toy_run, capfd):
    flags = ["--prompt", "the", "--steps", "60", "--seed", "3"]
    assert said(capfd, *flags) == said(capfd, *flags, "--no-cache")


def test_prompts_from_a_file_and_from_stdin(toy_run, capfd, monkeypatch, error_of):
    flags = ["--steps", "5", "--seed", "3"]
    want = said(capfd, "--prompt", "the dog", *flags)
    Path("p.txt").write_text("the dog\n", encoding="utf-8")
    assert said(capfd, "--prompt-file", "p.txt", *flags) == want
    for args in (["--prompt", "-"], ["--prompt-file", "-"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the dog\n")))
        assert said(capfd, *args, *flags) == want
    with open("p.txt", encoding="utf-8") as f:  # as in `python sample.py < p.txt`
        monkeypatch.setattr(sys, "stdin", f)
        assert terminal.piped()
        assert said(capfd, *flags) == want
    Path("p.txt").write_bytes(b"ab\xff")
    assert "p.txt: not UTF-8 at byte 2" in error_of(sample.main, "--prompt-file", "p.txt")
    assert "exclude" in error_of(sample.main, "--prompt", "a", "--prompt-file", "p.txt")
    assert "none.txt" in error_of(sample.main, "--prompt-file", "none.txt")
    Path("p.txt").write_text("\ufeffthe dog\r\n", encoding="utf-8")  # as Windows may save it
    assert said(capfd, "--prompt-file", "p.txt", *flags) == want
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff"), "utf-8"))
    assert "stdin: not UTF-8 at byte 2" in error_of(sample.main, "--prompt", "-")
    monkeypatch.setattr(sys, "stdin", None)  # as with `<&-`
    assert said(capfd, "--prompt", "the dog", *flags) == want
    assert said(capfd, *flags)
    for args in (["--prompt", "-"], ["--prompt-file", "-"]):
        assert "stdin is closed" in error_of(sample.main, *args)


def test_colours_only_on_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.bold("a") == "a"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert terminal.bold("a") == "\033[1ma\033[0m"
    assert terminal.bold("") == ""
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.bold("a") == "a"


def test_interactive_continues_each_line_and_tells_the_pace(toy_run, capfd, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\n\ud800\na dog"))
    capfd.readouterr()
    assert not sample.main(["--interactive", "--steps", "6", "--seed", "1"])
    out, err = capfd.readouterr()
    assert out.startswith("the cat")
    assert "\na dog" in out
    assert len(re.findall(r"note: 6 tokens in [\d.]+ s, [\d,]+ tok/s", err)) == 2
    assert err.count("error: ") == 1  # half a surrogate pair: one line, and on


def test_a_conversation_survives_what_is_typed(monkeypatch, capfd):
    """Bytes that are no UTF-8 cost a line; Ctrl-C ends one text, and its pace is told."""

    def write(prompt, pace):
        if "\udcff" in prompt:
            raise ValueError("no UTF-8")
        return pieces(prompt, pace)

    def pieces(prompt, pace):
        pace([1, 2], None)
        yield "..."
        if prompt == "stop":
            raise KeyboardInterrupt
        yield "!"

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"stop\n\xff\ngo\n"), "utf-8"))
    terminal.converse(write)
    out, err = capfd.readouterr()
    assert out == "stop...\ngo...!\n"
    assert re.sub(r" in .*", "", err) == (
        "> note: 2 tokens\n> error: no UTF-8\n> note: 2 tokens\n> \n"
    )


def test_interactive_needs_stdin(toy_run, error_of, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sample, "note", lambda text: None)  # on stderr, too
    assert "stdin is closed" in error_of(sample.main, "--interactive")


def test_the_grid_tells_prompts_apart(toy_run, capfd):
    out = said(capfd, "--grid", "--prompt", "the cat", "a dog", "--steps", "4", "--temp", "0", "1")
    texts = re.findall(r"-\d[\d.]+   (.*)", out)
    assert [t[:5] for t in texts] == ["the c", "a dog"] * 2


def test_the_grid_has_every_pair(toy_run, capfd):
    flags = ["--prompt", "the", "--steps", "30", "--seed", "1"]
    out = said(capfd, *flags, "--grid", "--temp", "0.5", "0.8", "1.0", "--top_k", "10", "0")
    rows = re.findall(r"^ +([\d.]+) +(\d+|all) +([\d.]+) +([\d.]+) +(-[\d.]+)   \S", out, re.M)
    pairs = list(itertools.product(["0.5", "0.8", "1"], ["10", "all"]))
    assert [row[:2] for row in rows] == pairs
    text = said(capfd, *flags, "--temp", "0.5", "--top_k", "10").removeprefix("the")
    first = "".join(out.split("text", 1)[1].split()[5:])
    assert first.startswith("".join(text.split()))


def test_distinct_by_hand():
    assert distinct("a b a b", 1) == 2 / 4
    assert distinct("a b a b", 2) == 2 / 3
    assert distinct("a", 2) == distinct("", 1) == 1


def test_a_row_of_the_grid():
    row = grid_row(0.5, 0, Written("one\n\n" + "two " * 30, [1], [-1.5]))
    first, *rest = row.split("\n")
    assert first == "  0.5    all        0.06        0.07   -1.50   one"
    assert len(rest) == 3
    assert all(line.startswith(" " * 47) and len(line) <= 47 + 64 for line in rest)


def test_show_probs_by_hand(toy_run, capfd):
    model, tokenizer, _ = load_model(toy_run)
    lines = list(alternatives(model, tokenizer, "the cat", 3, seed=2, temperature=2.0))
    assert len(lines) == 4
    ids = tokenizer.encode("the cat")
    p = model.eval()(torch.tensor([ids]))[0][0, -1].softmax(-1)
    top = p.topk(5)
    for i, q in zip(top.indices.tolist(), top.values.tolist(), strict=True):
        assert f"{tokenizer.decode([i])!r} {q:.2f}" in lines[1]
    made = next(generate_ids(model, tokenizer, ["the cat"], 1, end=None, seed=2, temperature=2.0))
    assert f"{tokenizer.decode_bytes(made.tolist())!r:>14}{p[made].item():>7.2f}" in lines[1]
    out = said(capfd, "--prompt", "the", "--show-probs", "--steps", "4", "--seed", "1")
    assert len(out.splitlines()) == 5
    stop = list(alternatives(model, tokenizer, "the", 30, seed=2, stops=["e", "a", "t", " ", "o"]))
    assert 1 < len(stop) < 31


def test_show_probs_of_several_is_each_alone(toy_run, capfd):
    """With --num 3 all three tables were of the same seed, and so the same."""
    flags = ["--show-probs", "--steps", "6"]
    out = said(capfd, *flags, "--prompt", "the", "--num", "3", "--seed", "4")
    tables = re.split(r"--- \d\n", out)[1:]
    assert tables == [said(capfd, *flags, "--prompt", "the", "--seed", s) for s in "456"]
    assert len(set(tables)) == 3


def test_show_probs_of_bytes(toy_run, monkeypatch):
    """Tokens that are parts of an emoji are shown as bytes, and may make up a stop string."""
    model, tokenizer, _ = load_model(toy_run)
    said = [torch.tensor([i]) for i in "🙂!".encode()]

    def write(*args, callback, **kwargs):
        for ids in said:
            callback(ids, torch.zeros(1, tokenizer.vocab_size))
            yield ids

    monkeypatch.setattr("utils.writing.tables.generate_ids", write)
    lines = list(alternatives(model, tokenizer, "a", 5, stops=["🙂"]))
    shown = [line.split()[0] for line in lines[1:]]
    assert shown == [r"b'\xf0'", r"b'\x9f'", r"b'\x99'", r"b'\x82'"]


def test_bad_flags_are_one_line(toy_run, error_of):
    for args, words in [
        (["--steps", "0"], "steps=0 must be at least 1"),
        (["--num", "0"], "num=0 must be at least 1"),
        (["--stop", ""], "a stop string is empty"),
        (["--top_p", "0"], "top_p=0.0 must be in (0, 1]"),
        (["--min_p", "1.5"], "min_p=1.5 must be in [0, 1]"),
        (["--repetition_penalty", "0"], "repetition_penalty=0.0 must be positive"),
        (["--seed", "-1"], "seed=-1 must be in"),
        (["--temp", "1", "2"], "temp=[1.0, 2.0]: several values need --grid"),
        (["--top_k", "1", "2"], "top_k=[1, 2]: several values need --grid"),
        (["--grid", "--temp", "1", "-1"], "temperature=-1.0 must be 0"),
        (["--grid", "--interactive"], "not allowed with"),
        (["--top_p", "nan"], "top_p=nan"),
        (["--interactive", "--num", "2"], "leave out prompts and --num"),
        (["--interactive", "--prompt", "a"], "leave out prompts and --num"),
        (["--interactive", "--prompt-file", "a"], "leave out prompts and --num"),
        (["--compile", "--no-cache"], "leave out --no-cache"),
    ]:
        assert words in error_of(sample.main, *args), args
    with pytest.raises(ValueError, match="stop string is empty"):
        stream_text(None, None, "", 1, stops=[""])


def test_a_model_of_documents_ends_its_rows_at_different_steps(text_file):
    train.main(["--data", str(text_file), "--doc_sep", "\n", "--steps", "40", "--lr", "1e-2", *TOY])
    model, tokenizer, checkpoint = load_model(Path("runs/my"))
    end = end_id(checkpoint["data"], tokenizer)
    prompts = ["the", "a cat", "the dog saw the cat"]
    made = write_batch(model, tokenizer, prompts, 80, end=end, seed=5)
    for i, prompt in enumerate(prompts):
        alone = write_text(model, tokenizer, prompt, 80, end=end, seed=5 + i)
        assert made[i].text == alone
    assert len({len(one.ids) for one in made}) > 1
    assert all(math.isfinite(one.mean_logprob) for one in made)
    assert all("endoftext" not in one.text for one in made)


@pytest.mark.parametrize(("delay", "kept"), [(0.0, True), (0.01, False)])
def test_compiled_is_kept_only_if_faster(toy_run, monkeypatch, delay, kept):
    """The eager step is slowed by 2 ms, what stands for torch.compile's result by `delay`."""
    model, _, _ = load_model(toy_run)
    plain, said = TokenStep.step, []

    monkeypatch.setattr(TokenStep, "step", lambda *args: (time.sleep(0.002), plain(*args))[1])
    monkeypatch.setattr(
        torch, "compile", lambda step, **_: lambda *args: (time.sleep(delay), step(*args))[1]
    )
    assert (compiled_step(model, 2, said.append) is not None) == kept
    assert re.match(r"compiling took [\d.]+ s; [\d,]+ tok/s compiled, [\d,]+ eager", said[0])
    assert said[1:] == ([] if kept else ["compile off: eager is the faster here"])


def test_with_a_broken_compiler_the_model_stays_eager(toy_run, monkeypatch, capfd):
    """A g++ without Python's headers was a traceback of torch's."""

    def fail(*args):
        raise RuntimeError("Python.h:\nno such file")

    monkeypatch.setattr("utils.writing.compile.cannot_compile", lambda device: "")
    monkeypatch.setattr(torch, "compile", lambda step, **options: fail)
    want = said(capfd, "--steps", "5", "--seed", "1")
    capfd.readouterr()
    sample.main(["--compile", "--steps", "5", "--seed", "1", "--device", "cpu"])
    out, err = capfd.readouterr()
    assert out == want
    assert "note: compile off: RuntimeError: Python.h: no such file; the model runs eager" in err


def test_without_a_compiler_the_model_stays_eager(toy_run, monkeypatch, capfd):
    monkeypatch.setattr(
        "utils.writing.compile.cannot_compile", lambda device: "no C++ compiler found"
    )
    sample.main(["--compile", "--steps", "2", "--device", "cpu"])
    assert "note: compile off: no C++ compiler found" in capfd.readouterr().err
