"""`python -m tok.train --kind bpe|char|unigram|wordpiece FILES`: learn a tokenizer of any kind.

python -m tok.train --kind wordpiece data/tiny.txt --vocab 1000 --out tok/wordpiece.json
echo "Once upon a time" | python -m tok.bpe encode --tokenizer tok/wordpiece.json
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tok.base import END_OF_TEXT, Tokenizer
from tok.bpe import BPETokenizer
from tok.bpe.__main__ import chunks, size_of
from tok.char import CharTokenizer
from tok.cli import Parser, Progress, run
from tok.files import check_writable
from tok.unigram import UnigramTokenizer
from tok.wordpiece import WordPieceTokenizer
from tok.workers import workers_for

Texts = Iterable[str | Iterable[str]]


def characters(
    texts: Texts,
    vocab_size: int,
    *,
    special_tokens: Iterable[str] = (END_OF_TEXT,),
    workers: int = 1,
    step: Callable[[int], object] = lambda done: None,
) -> CharTokenizer:
    """All characters of the texts, as many as there are: `vocab_size` says nothing here."""
    pieces = (piece for text in texts for piece in ([text] if isinstance(text, str) else text))
    return CharTokenizer.train(pieces, special_tokens=special_tokens)


TRAINERS: dict[str, Callable[..., Tokenizer]] = {  # (texts, vocab_size, special_tokens=, workers=)
    "char": characters,
    "bpe": BPETokenizer.train,
    "unigram": UnigramTokenizer.train,
    "wordpiece": WordPieceTokenizer.train,
}
EXTRAS = {  # flags of some kinds only
    "bpe": ("pattern",),
    "unigram": ("pattern",),
    "wordpiece": ("lowercase", "min_frequency"),
}


def extras(args: argparse.Namespace) -> dict[str, Any]:
    """What only this kind of tokenizer takes. ValueError for a flag that it does not."""
    names = {name for names in EXTRAS.values() for name in names}
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if others := sorted(given.keys() - set(EXTRAS.get(args.kind, ()))):
        flag = {"lowercase": "cased"}.get(others[0], others[0])
        raise ValueError(f"--{flag} does not go with --kind {args.kind}; drop it")
    return given


def parser() -> Parser:
    """The flags."""
    p = Parser(prog="python -m tok.train", description=__doc__)
    p.add_argument("files", nargs="+", metavar="FILE", help="UTF-8 text, - for stdin")
    p.add_argument("--kind", choices=TRAINERS, default="bpe", help="(default bpe)")
    p.add_argument("--vocab", type=int, default=1000, help="size, special tokens included (1000)")
    p.add_argument("--out", required=True, metavar="FILE", help="where to save")
    p.add_argument(
        "--special", action="append", metavar="S", help=f"special token, may repeat ({END_OF_TEXT})"
    )
    p.add_argument("--no-special", action="store_true", help="none but those the kind itself has")
    p.add_argument("--workers", type=int, help="processes; default: the CPUs, 1 for small files")
    p.add_argument(
        "--pattern", help="bpe, unigram: gpt2, gpt4, spaces, none or a regular expression"
    )
    p.add_argument(
        "--cased", dest="lowercase", action="store_false", help="wordpiece: keep case and accents"
    )
    p.add_argument(
        "--min_frequency",
        type=int,
        help="wordpiece: join only pairs that occur so often (default: halved as pairs run out)",
    )
    p.set_defaults(lowercase=None)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Learn and save. ValueError and OSError for input that it can't take."""
    args = parser().parse_args(argv)
    if args.special and args.no_special:
        raise ValueError("--special and --no-special exclude each other; give one of them")
    check_writable(args.out)
    size = sum(map(size_of, args.files))
    reading, learning = Progress("reading", size), Progress("learning tokens", args.vocab)
    made = TRAINERS[args.kind](
        [chunks(name, reading) for name in args.files],
        args.vocab,
        special_tokens=[] if args.no_special else args.special or [END_OF_TEXT],
        workers=workers_for(size) if args.workers is None else args.workers,
        step=learning,
        **extras(args),
    )
    learning.close()
    made.save(args.out)
    said = f"{args.out}: {args.kind}, {made.vocab_size} tokens"
    if made.vocab_size < args.vocab and args.kind != "char":
        said += f"; the text gives no more, --vocab was {args.vocab}"
    print(said, file=sys.stderr)


if __name__ == "__main__":
    run(main)
