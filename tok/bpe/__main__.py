"""`python -m tok.bpe train|encode|decode|import`: make a tokenizer, and use it as a filter."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

import tok
from tok.base import END_OF_TEXT, UNKNOWN
from tok.bpe import BPETokenizer
from tok.cli import Parser, Progress, run
from tok.files import as_text, check_writable, input_file, output_file, text_chunks
from tok.ids import from_bytes, to_bytes
from tok.workers import workers_for

OUT, GPT2 = "tok/bpe.json", "tok/gpt2.json"
TRAIN = f"""example:
  python -m tok.bpe train data/tiny.txt --vocab 1000 --out {OUT}"""
ENCODE = f"""examples:
  echo "Once upon a time" | python -m tok.bpe encode --tokenizer {OUT}
  python -m tok.bpe encode data/tiny.txt --tokenizer {OUT} --bin --out tiny.bin"""
IMPORT = """examples:
  python -m tok.bpe import tokenizer.json --out tok/mine.json
  python -m tok.bpe import vocab.json merges.txt --out tok/gpt2.json"""
DECODE = f"""examples:
  echo "79 110 99 101" | python -m tok.bpe decode --tokenizer {OUT}
  python -m tok.bpe decode tiny.bin --tokenizer {OUT} --bin --out tiny.txt"""


def chunks(name: str, show: Progress) -> Iterator[str]:
    """The text of a file, a block at a time, while `show` is called with how far it has come."""
    with input_file(name) as file:
        for chunk in text_chunks(file, name):
            yield chunk
            show.add(len(chunk))
    show.close()


def size_of(name: str) -> int:
    """Bytes of a file, 0 for stdin."""
    return 0 if name == "-" else os.path.getsize(name)


def numbers(data: bytes, name: str) -> list[int]:
    """Ids from text. ValueError for a word that is no number."""
    words = as_text(data, name).split()
    for i, word in enumerate(words):
        if not (word.isascii() and word.isdigit()):
            raise ValueError(f"{name}: item {i} is {word[:20]!r}, not an id; for binary use --bin")
    return [int(word) for word in words]


def train(args: argparse.Namespace) -> None:
    """Learn a tokenizer and save it."""
    if args.special and args.no_special:
        raise ValueError("--special and --no-special exclude each other; give one of them")
    specials = [] if args.no_special else args.special or [END_OF_TEXT]
    check_writable(args.out)
    size = sum(map(size_of, args.files))
    reading = Progress("counting words", size)
    learning = Progress("learning merges", args.vocab - 256 - len(specials))
    made = BPETokenizer.train(
        [chunks(name, reading) for name in args.files],
        args.vocab,
        special_tokens=specials,
        pattern=args.pattern,
        workers=workers_for(size) if args.workers is None else args.workers,
        step=learning,
    )
    learning.close()
    if not made.merges and args.vocab > made.vocab_size:
        raise ValueError(f"{', '.join(args.files)}: no two letters together; give a longer text")
    made.save(args.out)
    said = f"{args.out}: {made.vocab_size} tokens"
    if made.vocab_size < args.vocab:
        said += f"; the text gives no more, --vocab was {args.vocab}"
    print(said, file=sys.stderr)


def encode(args: argparse.Namespace) -> None:
    """Text -> ids, as text or binary."""
    tokenizer = tok.load(args.tokenizer)
    size = size_of(args.file)
    blocks = tokenizer.encode_blocks(
        chunks(args.file, Progress("encoding", size)),
        allowed_special="all" if args.special else "none",
        workers=workers_for(size) if args.workers is None else args.workers,
    )
    separator, unknown, n = b"", tokenizer.special_tokens.get(UNKNOWN, -1), 0
    with output_file(args.out) as out:
        for block in filter(len, blocks):
            n += block.count(unknown)
            if args.bin:
                out.write(to_bytes(block))
            else:
                out.write(separator + " ".join(map(str, block)).encode())
                separator = b" "
        if not args.bin:
            out.write(b"\n")
    if n:
        print(f"note: {n} {UNKNOWN}, for words that the vocabulary can't spell", file=sys.stderr)


def decode(args: argparse.Namespace) -> None:
    """Ids -> text, byte for byte."""
    tokenizer = tok.load(args.tokenizer)
    with input_file(args.file) as file:
        data = file.read()
    if args.bin:
        text = tokenizer.decode_bytes(from_bytes(tokenizer.vocab_size, data, args.file))
    else:
        text = tokenizer.decode_bytes(numbers(data, args.file))
    with output_file(args.out) as out:
        out.write(text)


def import_files(args: argparse.Namespace) -> None:
    """GPT-2's two files, or Hugging Face's tokenizer.json -> one of ours."""
    if args.merges is None:
        if args.special:
            raise ValueError("--special goes with two files; a tokenizer.json names its own")
        made = BPETokenizer.from_hf(args.vocab)
    else:
        made = BPETokenizer.from_gpt2(args.vocab, args.merges, args.special or ())
    made.save(args.out)
    specials = ", ".join(f"{text} is {i}" for text, i in made.special_tokens.items())
    print(f"{args.out}: {made.vocab_size} tokens; {specials or 'none special'}", file=sys.stderr)


COMMANDS = {"train": train, "encode": encode, "decode": decode, "import": import_files}


def filter_flags(p: argparse.ArgumentParser) -> None:
    """What encode and decode share."""
    p.add_argument("file", nargs="?", default="-", metavar="FILE", help="default: stdin")
    p.add_argument("--tokenizer", default=OUT, metavar="FILE", help=f"a saved tokenizer ({OUT})")
    p.add_argument("--out", default="-", metavar="FILE", help="default: stdout")
    p.add_argument("--bin", action="store_true", help="ids as uint16, uint32 above 65,536 ids")


def parser() -> Parser:
    """The flags of all commands."""
    top = Parser(prog="python -m tok.bpe", description="Byte-level BPE: learn it, use it.")
    commands = top.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    p = commands.add_parser("train", help="learn merges from text files", epilog=TRAIN)
    p.add_argument("files", nargs="+", metavar="FILE", help="UTF-8 text, - for stdin")
    p.add_argument("--vocab", type=int, default=1000, help="bytes + merges + special tokens (1000)")
    p.add_argument(
        "--special", action="append", metavar="S", help=f"special token, may repeat ({END_OF_TEXT})"
    )
    p.add_argument("--no-special", action="store_true", help="no special token at all")
    p.add_argument("--pattern", default="gpt2", help="gpt2, gpt4, none or a regular expression")
    p.add_argument("--out", default=OUT, metavar="FILE", help=f"where to save ({OUT})")
    p.add_argument("--workers", type=int, help="processes; default: the CPUs, 1 for small files")
    p = commands.add_parser("encode", help="text -> ids", epilog=ENCODE)
    filter_flags(p)
    p.add_argument("--special", action="store_true", help="special tokens in the text are special")
    p.add_argument("--workers", type=int, help="processes; default: the CPUs, 1 for small files")
    p = commands.add_parser("decode", help="ids -> text", epilog=DECODE)
    filter_flags(p)
    p = commands.add_parser("import", help="another program's files -> a tokenizer", epilog=IMPORT)
    p.add_argument("vocab", metavar="FILE.json", help="a tokenizer.json, or GPT-2's vocab.json")
    p.add_argument(
        "merges", nargs="?", metavar="MERGES.txt", help="with vocab.json: one merge a line"
    )
    p.add_argument(
        "--special", action="append", metavar="S", help="further special token, may repeat"
    )
    p.add_argument("--out", default=GPT2, metavar="FILE", help=f"where to save ({GPT2})")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. ValueError and OSError for input that it can't take."""
    args = parser().parse_args(argv)
    COMMANDS[args.command](args)
    return 0


if __name__ == "__main__":
    run(main)
