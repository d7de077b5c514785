r"""Tokenizers side by side on one text: characters, bytes, our BPE at several sizes, others.

    python -m tok.report data/tiny.txt --vocab 256 512 1024 2048 4096
    python -m tok.report my.txt --tokenizer tok/bpe.json gpt2/    # a folder with GPT-2's two files

BPE is learnt from the first 90 % of the text, and all of them are measured on the last 10 %.
Prints a table in Markdown and the ten longest tokens of each; draws bytes per token to an SVG.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tok
from tok.bpe import BPETokenizer
from tok.char import CharTokenizer
from tok.chart import chart
from tok.cli import Parser, run
from tok.files import read_text, write_whole
from tok.progress import Progress

Tokenizer = BPETokenizer | CharTokenizer
COLUMNS = "| tokenizer | vocabulary | tokens | bytes per token | tokens per word | single bytes |"
RULE = "| --- | ---: | ---: | ---: | ---: | ---: |"


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


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, draw the plot. ValueError and OSError for input that it can't take."""
    p = Parser(prog="python -m tok.report", description=__doc__)
    p.add_argument("file", metavar="FILE", help="UTF-8 text")
    p.add_argument("--vocab", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    p.add_argument("--tokenizer", nargs="+", default=[], metavar="PATH", help="others to measure")
    p.add_argument("--pattern", default="gpt2", help="gpt2, gpt4, none or a regular expression")
    p.add_argument("--plot", default="runs/tokens.svg", metavar="SVG", help="runs/tokens.svg")
    args = p.parse_args(argv)
    rows = study(read_text(args.file), args)
    print("\n".join([COLUMNS, RULE, *map(str, rows)]))
    for row in (r for r in rows if any(len(token) > 1 for token in r.longest)):
        print(f"\nlongest of {row.name} {row.vocab_size:,}: {' '.join(map(repr, row.longest))}")
    Path(args.plot).parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.plot, draw(rows).encode("utf-8"))
    print(f"\nplot: {args.plot}")
    return 0


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
        name = "bytes" if found.vocab_size == 256 else "bpe"
        rows.append(measure(name, found, text[cut:]))
    return rows + [measure(Path(path).name, load(path), text[cut:]) for path in args.tokenizer]


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
    size = {i: len(t.encode() if isinstance(t, str) else t) for i, t in tokenizer.vocab.items()}
    ordinary = [i for i in size if i not in tokenizer.special_tokens.values()]
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


def draw(rows: Sequence[Row]) -> str:
    """Bytes per token over the size of the vocabulary, as SVG."""
    line = [(r.vocab_size, r.bytes_per_token) for r in rows if r.name in ("bytes", "bpe")]
    others = [(r.name, r.vocab_size, r.bytes_per_token) for r in rows if r.name != "bpe"]
    return chart("size of the vocabulary", "bytes per token", line, others)


if __name__ == "__main__":
    run(main)
