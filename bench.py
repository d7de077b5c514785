"""Measure training, writing, attention, the tokenizer: a table, and last a line of JSON.

    python bench.py                             # two minutes
    python bench.py --only train attention
    python bench.py --nanogpt ../nanoGPT        # a checkout of nanoGPT, in the same run
    python bench.py --only tokenizer --peers --text my.txt --vocab 4096

Contenders take turns, and medians count.
"""

import json
import time
from functools import partial
from pathlib import Path

import torch

import tok
from data.prepare import read_text
from model import few_rows
from model.attention import AUTO
from tok.cli import Parser, run
from utils.device import pick_device
from utils.log import machine
from utils.peers import NanoGPT, Transformers, learn_with_tokenizers, transformers_installed
from utils.timing import peak_apart, peak_memory, summary, take_turns
from utils.workload import copier, gpt, stepper, two_steps, writer

TINY = Path(__file__).parent / "data" / "tiny.txt"
SHAPES = {  # name: (layers, heads, d_model, block_size, batch_size, vocab_size)
    "4x128": (4, 4, 128, 64, 12, 65),
    "6x384": (6, 6, 384, 256, 8, 65),
}
WRITE = {  # the same, and how many tokens are written
    "4x128": ((4, 4, 128, 256, 1, 65), 255),
    "6x384": ((6, 6, 384, 256, 1, 65), 255),
    "12x768": ((12, 12, 768, 1024, 1, 50257), 64),
}
BLOCKS = {f"{T}": (4, 4, 128, T, 2048 // T, 65) for T in (128, 256, 512, 1024)}


def bench_train(a, device):
    """Training steps, ours eager (and compiled with --compile) beside nanoGPT's."""
    for name, shape in SHAPES.items():
        contenders = {"llm-tiny": stepper(gpt(shape), shape, device)}
        if a.compile:
            contenders["compiled"] = stepper(torch.compile(gpt(shape)), shape, device)
        if a.nanogpt:
            contenders["nanoGPT"] = NanoGPT(a.nanogpt, shape, device).step
        yield f"train {name}", contenders, shape[3] * shape[4], "tok/s"


def bench_write(a, device):
    """Generation after a prompt of one token, batch 1; then 32 rows together and one by one.

    `copying` copies as many bytes as the weights have, once a token: its x time is the fraction of
    the memory's bandwidth that is reached.
    """
    for name, (shape, n) in WRITE.items():
        model = few_rows(gpt(shape).to(device.device)).eval()
        contenders: dict = {"llm-tiny": writer(model, 1, n), "copying": copier(model, n)}
        if a.nanogpt:
            contenders["nanoGPT"] = partial(NanoGPT(a.nanogpt, shape, device).write, n)
        if a.peers and transformers_installed():
            contenders["transformers"] = partial(Transformers(shape, device).write, n)
        yield f"write {name}", contenders, n, "tok/s"
    model = few_rows(gpt(WRITE["4x128"][0]).to(device.device)).eval()
    contenders = {"batch of 32": writer(model, 32, 32), "one by one": writer(model, 1, 32, 32)}
    yield "write 4x128", contenders, 32 * 32, "tok/s"


def bench_attention(a, device):
    """A training step by either road of attention, and its peak memory in a process of its own."""
    print(f"{'attention':18}attn=auto takes the road {AUTO} with this torch")
    for name, shape in BLOCKS.items():
        contenders = {n: stepper(gpt(shape, attn=n), shape, device) for n in ("naive", "sdpa")}
        peaks = {n: peak_apart(two_steps, shape, n, a.device, a.dtype) for n in contenders}
        yield f"attention {name}", contenders, shape[3] * shape[4], "tok/s", peaks


def bench_tokenizer(a, device):
    """Learn and encode --text; the first call spells each different word, later ones look it up."""
    text = read_text(a.text)
    learnt = tok.BPETokenizer.train([text], a.vocab, workers=a.workers)
    train = {"llm-tiny": lambda: tok.BPETokenizer.train([text], a.vocab, workers=a.workers)}
    parts = learnt.vocab, learnt.merges, learnt.special_tokens
    encode = {
        "llm-tiny": lambda: sum(map(len, learnt.encode_blocks([text], workers=a.workers))),
        "first call": lambda: tok.BPETokenizer(*parts).encode(text),
    }
    if a.peers:
        train["tokenizers"] = lambda: learn_with_tokenizers(text, a.vocab)
        peer = learnt.to_tiktoken()
        encode["tiktoken"] = lambda: peer.encode_ordinary(text)
    megabytes = len(text.encode()) / 1e6
    yield "BPE train", train, megabytes, "MB/s"
    yield "BPE encode", encode, megabytes, "MB/s"


BENCHES = {
    "train": bench_train,
    "write": bench_write,
    "attention": bench_attention,
    "tokenizer": bench_tokenizer,
}


def main(argv=None):
    """Run the benchmarks named and print what they give."""
    p = Parser(prog="bench.py", description=__doc__)
    p.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES), help="which ones")
    p.add_argument("--runs", type=int, default=15, help="counted rounds (default 15)")
    p.add_argument("--nanogpt", metavar="DIR", help="a checkout of nanoGPT to measure beside")
    p.add_argument("--peers", action="store_true", help="also tokenizers, tiktoken, transformers")
    p.add_argument("--text", default=TINY, help="for the tokenizer (default data/tiny.txt)")
    p.add_argument("--vocab", type=int, default=1000, help="tokens to learn (default 1000)")
    p.add_argument("--workers", type=int, default=1, help="processes of the tokenizer (default 1)")
    p.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    p.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    a = p.parse_args(argv)
    if a.runs < 1:
        raise ValueError(f"runs={a.runs} must be at least 1")
    device, results, start = pick_device(a.device, a.dtype), [], time.perf_counter()
    print(f"{device.describe()}, torch {torch.__version__}, {a.runs} runs each, in turn\n")
    print(f"{'work':18}{'who':12}{'median':>12}{'spread':>9}{'per second':>16}  x time     peak")
    for name in a.only:
        for work, contenders, amount, unit, *peaks in BENCHES[name](a, device):
            first = None
            for who, seconds in take_turns(contenders, a.runs).items():
                median, spread = summary(seconds)
                first = first or median
                row = {"work": work, "who": who, "ms": median * 1e3, "spread": spread}
                row |= {"rate": amount / median, "unit": unit, "ratio": median / first}
                row |= {"peak_memory": peaks[0][who]} if peaks else {}
                results.append(row)
                rate = f"{amount / median:,.1f} {unit}"
                print(f"{work:18}{who:12}{median * 1e3:>9.2f} ms", end="")
                print(f"{spread:>8.0%} {rate:>16}{median / first:>8.2f}", end="")
                print("".join(f"{peak[who] / 1e6:>6.0f} MB" for peak in peaks), flush=True)
    memory = peak_memory()
    print(f"\npeak memory {memory / 1e6:,.0f} MB, {time.perf_counter() - start:.0f} s in all")
    print(json.dumps({"results": results, "peak_memory": memory, "machine": machine()}))


if __name__ == "__main__":
    run(main)
