"""`python -m tok.unigram import`: SentencePiece's or Hugging Face's file -> a tokenizer of ours."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tok.cli import Parser, run
from tok.unigram import UnigramTokenizer

OUT = "tok/unigram.json"
IMPORT = f"""examples:
  python -m tok.unigram import spiece.model --out {OUT}
  python -m tok.unigram import tokenizer.json --out {OUT}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Read a file of another program and save it as one of ours. ValueError for what it lacks."""
    top = Parser(prog="python -m tok.unigram", description="Unigram tokenizers of other programs.")
    commands = top.add_subparsers(dest="command", required=True, metavar="import")
    p = commands.add_parser("import", help="another program's file -> a tokenizer", epilog=IMPORT)
    p.add_argument("file", metavar="FILE", help="SentencePiece's .model, or a tokenizer.json")
    p.add_argument("--out", default=OUT, metavar="FILE", help=f"where to save ({OUT})")
    args = top.parse_args(argv)
    if Path(args.file).suffix == ".json":
        made = UnigramTokenizer.from_hf(args.file)
    else:
        made = UnigramTokenizer.from_sentencepiece(args.file)
    made.save(args.out)
    print(f"{args.out}: {made.vocab_size} tokens", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run(main)
