"""`python -m tok.bpe train|encode|decode`: the tokenizer as filters."""

import argparse
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

import tok
from tok.bpe import END_OF_TEXT, BPETokenizer
from tok.cli import Parser
from tok.files import as_text, read_text, write_whole

TRAIN = """example:
  python -m tok.bpe train data/tiny.txt --vocab 1000 --out tok/bpe.json"""
ENCODE = """example:
  echo "Once upon a time" | python -m tok.bpe encode --tokenizer tok/bpe.json
  python -m tok.bpe encode data/tiny.txt --tokenizer tok/bpe.json --bin --out tiny.bin"""
DECODE = """example:
  echo "79 110 99 101" | python -m tok.bpe decode --tokenizer tok/bpe.json
  python -m tok.bpe decode tiny.bin --tokenizer tok/bpe.json --bin"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. ValueError and OSError for input that it cannot take."""
    args = parser().parse_args(argv)
    {"train": train, "encode": encode, "decode": decode}[args.command](args)
    return 0


def parser() -> Parser:
    """The flags of the three commands."""
    top = Parser(prog="python -m tok.bpe", description="Byte-level BPE: learn it, use it.")
    commands = top.add_subparsers(dest="command", required=True, metavar="train|encode|decode")
    p = commands.add_parser("train", help="learn merges from text files", epilog=TRAIN)
    p.add_argument("files", nargs="+", metavar="FILE", help="UTF-8 text")
    p.add_argument("--vocab", type=int, default=1000, help="bytes + merges + special tokens (1000)")
    p.add_argument("--special", action="append", metavar="S", help=f"special token ({END_OF_TEXT})")
    p.add_argument("--pattern", default="gpt2", help="gpt2, gpt4, none or a regular expression")
    p.add_argument("--out", default="tok/bpe.json", help="where to save (tok/bpe.json)")
    for name, what, example in (
        ("encode", "text -> ids", ENCODE),
        ("decode", "ids -> text", DECODE),
    ):
        p = commands.add_parser(name, help=what, description=what, epilog=example)
        p.add_argument("file", nargs="?", default="-", metavar="FILE", help="default: stdin")
        p.add_argument("--tokenizer", default="tok/bpe.json", help="a saved tokenizer")
        p.add_argument("--out", default="-", metavar="FILE", help="default: stdout")
        p.add_argument("--bin", action="store_true", help="ids as uint16, uint32 above 65536 ids")
        if name == "encode":
            p.add_argument(
                "--special", action="store_true", help="special tokens in the text count"
            )
    return top


def train(args: argparse.Namespace) -> None:
    """Learn a tokenizer and save it."""
    texts = [read_text(path) for path in args.files]
    if not any(texts):
        raise ValueError(f"{', '.join(args.files)}: empty; give a text")
    specials = [END_OF_TEXT] if args.special is None else args.special
    made = BPETokenizer.train(texts, args.vocab, special_tokens=specials, pattern=args.pattern)
    if made.vocab_size < args.vocab:
        print(f"the text gives {made.vocab_size} tokens, not {args.vocab}", file=sys.stderr)
    made.save(args.out)
    print(f"{args.out}: {made.vocab_size} tokens", file=sys.stderr)


def encode(args: argparse.Namespace) -> None:
    """Text -> ids, as text or binary."""
    tokenizer = tok.load(args.tokenizer)
    text = as_text(read(args.file), args.file)
    ids = tokenizer.encode(text, allowed_special="all" if args.special else "none")
    if args.bin:
        write(args.out, packed(tokenizer.vocab_size, ids).tobytes())
    else:
        write(args.out, (" ".join(map(str, ids)) + "\n").encode())


def decode(args: argparse.Namespace) -> None:
    """Ids -> text, byte for byte."""
    tokenizer = tok.load(args.tokenizer)
    data = read(args.file)
    ids = unpacked(tokenizer.vocab_size, data, args.file) if args.bin else numbers(data, args.file)
    if isinstance(tokenizer, BPETokenizer):
        write(args.out, tokenizer.decode_bytes(ids))
    else:
        write(args.out, tokenizer.decode(ids).encode("utf-8"))


def packed(vocab_size: int, ids: Sequence[int] = ()) -> "array[int]":
    """Ids as little-endian uint16, or uint32 for more than 65536 ids."""
    items = array("H" if vocab_size <= 1 << 16 else "I", ids)
    if sys.byteorder == "big":
        items.byteswap()
    return items


def unpacked(vocab_size: int, data: bytes, name: str) -> "array[int]":
    """Ids from bytes; ValueError for a partial last item."""
    items = packed(vocab_size)
    if extra := len(data) % items.itemsize:
        raise ValueError(
            f"{name}: {len(data)} bytes is not a multiple of {items.itemsize}; "
            f"the last item is cut: {extra} bytes too many"
        )
    items.frombytes(data)
    if sys.byteorder == "big":
        items.byteswap()
    return items


def numbers(data: bytes, name: str) -> list[int]:
    """Ids from text; ValueError for a word that is no number."""
    words = as_text(data, name).split()
    for i, word in enumerate(words):
        if not word.isdecimal():
            raise ValueError(f"{name}: item {i} is {word[:20]!r}, not an id; for binary use --bin")
    return [int(word) for word in words]


def read(name: str) -> bytes:
    """All of a file, or of stdin for "-"."""
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def write(name: str, data: bytes) -> None:
    """All of a file, or to stdout for "-"."""
    if name == "-":
        sys.stdout.buffer.write(data)
    else:
        write_whole(name, data)
