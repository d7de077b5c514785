r"""Tokenizers side by side on one text: characters, bytes, BPE at several sizes, the other kinds.

    python -m utils.tokenizer_report data/tiny.txt --vocab 256 512 1024 2048 4096
    python -m utils.tokenizer_report my.txt --tokenizer tok/bpe.json gpt2/
    python -m utils.tokenizer_report my.txt --vocab 1000 --steps 350 --seed 1 2 3

A folder given to --tokenizer holds GPT-2's vocab.json and merges.txt. Tokenizers are learnt from
the first 90 % of the text, and all are measured on the last 10 %. Prints a table in Markdown and
the ten longest tokens of each; draws bytes per token over the vocabulary's size to a PNG.

With --steps a small model is trained with each kind. WordPiece does not keep a text, so that all of
these read the text as it keeps it: in lowercase, a blank between words and signs. Then bits per
byte compare.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import tok
from data.encode import unknown_line
from tok import BPETokenizer, CharTokenizer, Tokenizer
from tok.cli import Parser, Progress, run
from tok.files import read_text, replacing
from tok.train import TRAINERS
from tok.wordpiece.basic import Splitter
from utils.spread import mean, sd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from utils.training.score import Score

COLUMNS = "| tokenizer | vocabulary | tokens | bytes per token | tokens per word | single bytes |"
RULE = "| --- | ---: | ---: | ---: | ---: | ---: |"
BYTES, BPE = "bytes", "bpe"  # names of rows
OTHERS = ("unigram", "wordpiece")  # beside characters and BPE, at the largest vocabulary
TRAINED = "| tokenizer | vocabulary | parameters | tokens | nats per token | bits per byte |"


@dataclass(frozen=True)
class Row:
    """What one tokenizer makes of a text. Words are what white space separates."""

    name: str
    vocab_size: int
    tokens: int
    bytes_per_token: float
    tokens_per_word: float
    single_bytes: float  # share of the tokens in the text that are one byte long
    longest: list[str]  # tokens of the vocabulary, as text

    def __str__(self) -> str:
        return (
            f"| {self.name} | {self.vocab_size:,} | {self.tokens:,} | {self.bytes_per_token:.2f} "
            f"| {self.tokens_per_word:.2f} | {self.single_bytes:.1%} |"
        )


def learn(text: str, sizes: Iterable[int], pattern: str, show: Progress) -> list[BPETokenizer]:
    """A tokenizer a size. Learnt once: a smaller vocabulary is the first part of a larger one."""
    sizes = sorted(set(sizes))
    if sizes[0] < 256:
        raise ValueError(f"vocab={sizes[0]} is smaller than the 256 bytes; give 256 or more")
    full = BPETokenizer.train([text], sizes[-1], special_tokens=(), pattern=pattern, step=show)
    real = sorted({min(size, full.vocab_size) for size in sizes})
    vocabs = [{i: full.vocab[i] for i in range(size)} for size in real]
    return [BPETokenizer(v, full.merges[: len(v) - 256], (), pattern) for v in vocabs]


def load(path: str) -> Tokenizer:
    """A saved tokenizer, or a folder with GPT-2's vocab.json and merges.txt."""
    folder = Path(path)
    if folder.is_dir():
        return BPETokenizer.from_gpt2(folder / "vocab.json", folder / "merges.txt")
    return tok.load(path)


def measure(name: str, tokenizer: Tokenizer, text: str) -> Row:
    """Encode a text, and count."""
    ids = tokenizer.encode(text)
    size = [len(tokenizer.decode_bytes([i])) for i in range(tokenizer.vocab_size)]
    ordinary = set(range(len(size))) - set(tokenizer.special_tokens.values())
    longest = sorted(ordinary, key=lambda i: (-size[i], i))[:10]
    return Row(
        name,
        tokenizer.vocab_size,
        len(ids),
        len(text.encode()) / len(ids),
        len(ids) / len(text.split()),
        sum(size[i] == 1 for i in ids) / len(ids),
        [tokenizer.decode([i]) for i in longest],
    )


def study(text: str, args: argparse.Namespace) -> list[Row]:
    """A row for each tokenizer. ValueError for a text that leaves nothing to measure."""
    cut = int(len(text) * 0.9)
    if not text[cut:].strip():
        raise ValueError(f"{args.file}: {len(text)} characters are too few; give some thousand")
    show = Progress("learning merges", max(args.vocab) - 256)
    learnt = learn(text[:cut], args.vocab, args.pattern, show)
    show.close()
    rows = [measure("characters", CharTokenizer.train([text]), text[cut:])]
    for found in learnt:
        name = BYTES if found.vocab_size == 256 else BPE
        rows.append(measure(name, found, text[cut:]))
    for kind in OTHERS:
        try:
            made = TRAINERS[kind]([text[:cut]], max(args.vocab), special_tokens=())
        except ValueError as e:
            print(f"note: no {kind}: {e}", file=sys.stderr)
            continue
        name = kind if made.lossless else f"{kind} (lossy)"
        rows.append(measure(name, made, text[cut:]))
    return rows + [measure(Path(path).name, load(path), text[cut:]) for path in args.tokenizer]


def plain(text: str) -> str:
    """A text as WordPiece keeps it: "It's  A dog." -> "it ' s a dog ."."""
    return " ".join(Splitter().words(text))


def trained_score(
    train_ids: np.ndarray, held: np.ndarray, V: int, n_bytes: int, steps: int, seed: int
) -> "tuple[int, Score]":
    """Parameters and score of the model that the ladder trains, with another seed."""
    import torch

    from model import TinyGPT
    from utils.device import Device
    from utils.ladder.gpt_numpy import config
    from utils.ladder.gpt_torch import train
    from utils.training.evaluate import evaluate
    from utils.training.objective import next_token

    torch.manual_seed(seed)
    model = TinyGPT(config(V))
    for _ in train(model, train_ids, steps, seed):
        pass
    device = Device(torch.device("cpu"), torch.float32)
    return model.n_params(), evaluate(model, next_token, held, n_bytes, 64, device)


def trained_rows(text: str, vocab: int, steps: int, seeds: Sequence[int]) -> Iterator[str]:
    """A row for each kind: the same model, as many steps, on the text as WordPiece keeps it."""
    text = plain(text)
    cut = int(len(text) * 0.9)
    n_bytes = len(text[cut:].encode())
    for kind, learn in TRAINERS.items():
        made = learn([text if kind == "char" else text[:cut]], vocab, special_tokens=())
        learnt, held = (np.array(made.encode(part)) for part in (text[:cut], text[cut:]))
        if line := unknown_line(made, held):
            raise ValueError(f"{kind}: {line}; bits per byte would leave out what these words cost")
        how = learnt, held, made.vocab_size, n_bytes, steps
        found = [trained_score(*how, seed) for seed in seeds]
        loss, bits = ([getattr(s, name) for _, s in found] for name in ("loss", "bits_per_byte"))
        spread = f" ± {sd(bits):.4f}" if len(bits) > 1 else ""
        yield (
            f"| {kind} | {made.vocab_size:,} | {found[0][0]:,} | {len(held):,} "
            f"| {mean(loss):.3f} | {mean(bits):.4f}{spread} |"
        )


def draw_rows(axes: "Axes", rows: Sequence[Row]) -> None:
    """Bytes per token over the size of the vocabulary: our BPE as a line, others as points."""
    ours = [r for r in rows if r.name in (BYTES, BPE)]
    x, y = [r.vocab_size for r in ours], [r.bytes_per_token for r in ours]
    axes.plot(x, y, "o-", lw=2.2, ms=7)
    for r in rows:
        point, label = (r.vocab_size, r.bytes_per_token), f"{r.bytes_per_token:.2f}"
        offset, align = (-8, 5), "right"
        if r not in ours:
            axes.plot(*point, "s", color="C1", ms=7)
            label, offset, align = f"{r.name}\n{label}", (0, 8), "center"
        axes.annotate(label, point, offset, textcoords="offset points", ha=align)


def draw(rows: Sequence[Row], title: str, path: str) -> None:
    """Write the plot as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: importing it takes a second
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    draw_rows(axes, rows)
    axes.margins(x=0.1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="vocabulary", ylabel="bytes per token", title=title)
    axes.set_ylim(bottom=0, top=1.2 * max(r.bytes_per_token for r in rows))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, draw the plot. ValueError and OSError for input that it can't take."""
    p = Parser(prog="python -m utils.tokenizer_report", description=__doc__)
    p.add_argument("file", metavar="FILE", help="UTF-8 text")
    p.add_argument("--vocab", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    p.add_argument("--tokenizer", nargs="+", default=[], metavar="PATH", help="others to measure")
    p.add_argument("--pattern", default="gpt2", help="gpt2, gpt4, none or a regular expression")
    p.add_argument(
        "--steps", type=int, default=0, help="also train a model with each kind, so many steps"
    )
    p.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3], help="of the models (1 2 3)")
    p.add_argument("--plot", default="runs/tokens.png", metavar="PNG", help="runs/tokens.png")
    args = p.parse_args(argv)
    text = read_text(args.file)
    rows = study(text, args)
    print("\n".join([COLUMNS, RULE, *map(str, rows)]))
    for row in (r for r in rows if any(len(token) > 1 for token in r.longest)):
        print(f"\nlongest of {row.name} {row.vocab_size:,}: {' '.join(map(repr, row.longest))}")
    Path(args.plot).parent.mkdir(parents=True, exist_ok=True)
    if args.steps:
        print(f"\n{args.steps} steps, seeds {args.seed}, the text as WordPiece keeps it:")
        print("\n".join(["", TRAINED, RULE]))
        for line in trained_rows(text, max(args.vocab), args.steps, args.seed):
            print(line, flush=True)
    draw(rows, f"BPE learnt from {Path(args.file).name}, and others, on its last tenth", args.plot)
    print(f"\nplot: {args.plot}")
    return 0


if __name__ == "__main__":
    run(main)
