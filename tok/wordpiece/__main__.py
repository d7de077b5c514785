"""`python -m tok.wordpiece import`: BERT's or Hugging Face's file -> a tokenizer of ours."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tok.cli import Parser, run
from tok.wordpiece import WordPieceTokenizer

OUT = "tok/wordpiece.json"
IMPORT = f"""examples:
  python -m tok.wordpiece import vocab.txt --out {OUT}
  python -m tok.wordpiece import tokenizer.json --out {OUT}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Read a file of another program and save it as one of ours. ValueError for what it lacks."""
    top = Parser(prog="python -m tok.wordpiece", description="WordPiece of other programs.")
    commands = top.add_subparsers(dest="command", required=True, metavar="import")
    p = commands.add_parser("import", help="another program's file -> a tokenizer", epilog=IMPORT)
    p.add_argument("file", metavar="FILE", help="BERT's vocab.txt, or a tokenizer.json")
    p.add_argument("--cased", action="store_true", help="a vocab.txt with case and accents")
    p.add_argument("--special", action="append", metavar="S", help="further special token")
    p.add_argument("--out", default=OUT, metavar="FILE", help=f"where to save ({OUT})")
    args = top.parse_args(argv)
    if Path(args.file).suffix == ".json":
        if args.cased or args.special:
            raise ValueError("--cased and --special go with a vocab.txt; a tokenizer.json has both")
        made = WordPieceTokenizer.from_hf(args.file)
    else:
        specials = args.special or ()
        made = WordPieceTokenizer.from_vocab(args.file, specials, lowercase=not args.cased)
    made.save(args.out)
    print(f"{args.out}: {made.vocab_size} tokens", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run(main)
