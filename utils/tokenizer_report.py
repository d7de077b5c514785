r"""Tokenizers side by side on one text: characters, bytes, our BPE at several sizes, others.

    python -m utils.tokenizer_report data/tiny.txt --vocab 256 512 1024 2048 4096
    python -m utils.tokenizer_report my.txt --tokenizer tok/bpe.json gpt2/

A folder given to --tokenizer holds GPT-2's vocab.json and merges.txt. BPE is learnt from the first
90 % of the text, and all tokenizers are measured on the last 10 %. Prints a table in Markdown and
the ten longest tokens of each; draws bytes per token over the vocabulary's size to a PNG.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tok
from tok import BPETokenizer, CharTokenizer, Tokenizer
from tok.cli import Parser, Progress, run
from tok.files import read_text, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = "| tokenizer | vocabulary | tokens | bytes per token | tokens per word | single bytes |"
RULE = "| --- | ---: | ---: | ---: | ---: | ---: |"
BYTES, BPE = "bytes", "bpe"  # names of rows


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
    return rows + [measure(Path(path).name, load(path), text[cut:]) for path in args.tokenizer]


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
    p.add_argument("--plot", default="runs/tokens.png", metavar="PNG", help="runs/tokens.png")
    args = p.parse_args(argv)
    rows = study(read_text(args.file), args)
    print("\n".join([COLUMNS, RULE, *map(str, rows)]))
    for row in (r for r in rows if any(len(token) > 1 for token in r.longest)):
        print(f"\nlongest of {row.name} {row.vocab_size:,}: {' '.join(map(repr, row.longest))}")
    Path(args.plot).parent.mkdir(parents=True, exist_ok=True)
    draw(rows, f"BPE learnt from {Path(args.file).name}, and others, on its last tenth", args.plot)
    print(f"\nplot: {args.plot}")
    return 0


if __name__ == "__main__":
    run(main)
