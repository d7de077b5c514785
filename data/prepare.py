"""Text files -> a prepared directory: train.bin, val.bin, tokenizer.json, meta.json.

    python -m data.prepare shakespeare --tokenizer char --out data/shakespeare_char
    python -m data.prepare my.txt more.txt --vocab 2000 --out data/mine

The last 10 % of the text is validation, as in nanoGPT. Where the text is divided into documents (by
--doc_sep) each one ends with <|endoftext|>, and the split falls between two of them. A text may be
larger than memory.
"""

import errno
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from data import hashes
from data.download import SOURCES, fetch, known_texts
from data.encode import make_tokenizer, shown, unknown_line, write_ids
from data.hashes import clean_sha256, file_sha256, remembered, sha256
from data.overlap import overlap, overlap_line
from data.store import (
    FORMAT,
    check_out,
    document_end,
    map_tokens,
    meta_text,
    new_directory,
    open_dataset,
)
from data.text import SPLITS, Text, documents, join, split_text, text_file, unescape
from tok import END_OF_TEXT
from tok.cli import Parser, run
from tok.storage import fingerprint
from tok.train import TRAINERS
from tok.workers import workers_for


@dataclass(frozen=True)
class Survey:
    """What is known of a text before it is encoded."""

    train_bytes: int
    val_bytes: int
    sha256: str
    divided: bool  # into documents; a single text has no end to learn
    documents: int
    cut: bool  # whether the last document of training goes on in validation


def measure(text: Iterable[str], digest: Any) -> int:
    """Bytes of a text's UTF-8, which `digest` is given."""
    n_bytes = 0
    for chunk in text:
        raw = chunk.encode()
        digest.update(raw)
        n_bytes += len(raw)
    return n_bytes


def survey(train: Iterable[str], val: Iterable[str], doc_sep: str) -> Survey:
    """Read both splits, but for their ids."""
    digest = hashlib.sha256()
    train_bytes, val_bytes = (measure(text, digest) for text in (train, val))
    n, cut = 1, False
    divided = len(list(islice(documents(chain(train, val), doc_sep), 2))) > 1
    if divided:
        n = sum(1 for _ in documents(chain(train, val), doc_sep))
        cut = sum(1 for text in (train, val) for _ in documents(text, doc_sep)) > n
    return Survey(train_bytes, val_bytes, digest.hexdigest(), divided, n, cut)


def write_prepared(
    out: str | Path,
    train: Iterable[str],
    val: Iterable[str],
    *,
    tokenizer: str = "bpe",
    vocab: int = 1000,
    doc_sep: str = END_OF_TEXT,
    name: str = "",
    specials: Sequence[str] = (),
) -> dict[str, Any]:
    """Tokenize both splits into the directory `out`, which appears whole or not at all.

    Each split is a text: chunks that can be read again and again, such as [string]. A tokenizer
    that is trained has `specials`, too.
    Returns its meta.json as a dict. Raises ValueError if `out` holds something else already.
    """
    out = Path(out)
    check_out(out)
    known = survey(train, val, doc_sep)
    made = make_tokenizer(
        tokenizer,
        vocab,
        documents(shown(train, "reading", known.train_bytes), doc_sep),
        documents(val, doc_sep),
        ends=known.divided,
        workers=workers_for(known.train_bytes),
        specials=specials,
    )
    end = document_end(made) if known.divided else None
    if known.divided and end is None:
        raise ValueError(
            f"the text has documents, but the tokenizer has no {END_OF_TEXT}; train one with it"
        )
    with new_directory(out) as new:
        a, b, saved = new / "train.bin", new / "val.bin", new / "tokenizer.json"
        made.save(saved)
        dtype = "uint16" if made.vocab_size <= 2**16 else "uint32"
        meta = {
            "version": FORMAT,
            "name": name,
            "dtype": dtype,
            "vocab_size": made.vocab_size,
            "documents": known.documents,
            "train_tokens": write_ids(
                a, made, train, doc_sep, known.train_bytes, end=end, cut=known.cut
            ),
            "val_tokens": write_ids(b, made, val, doc_sep, known.val_bytes, end=end),
            "train_bytes": known.train_bytes,
            "val_bytes": known.val_bytes,
            "val_overlap": overlap(map_tokens(a, dtype), map_tokens(b, dtype)),
            "text_sha256": known.sha256,
            "tokenizer_sha256": fingerprint(saved),
            "train_sha256": file_sha256(a),
            "val_sha256": file_sha256(b),
        }
        (new / "meta.json").write_text(meta_text(meta), encoding="utf-8")
    return meta


def damaged(out: Path, keep: bool) -> bool:
    """Whether an entry of our cache is there, but not whole. Says so; it is then made again."""
    try:
        open_dataset(out, keep=keep)
    except ValueError as e:
        print(f"note: {e}: made again", file=sys.stderr)
        return True
    return False


def check_source(data: Path) -> None:
    """Raise FileNotFoundError or ValueError if there is neither a text nor prepared data."""
    if not data.exists():
        cure = "no such text; give a file, or make it with python -m data.prepare"
        raise FileNotFoundError(errno.ENOENT, cure, str(data))
    if data.is_dir() and not (data / "meta.json").exists():
        raise ValueError(
            f"{data} has no meta.json; give a text file, or run python -m data.prepare"
        )


def prepared(
    data: str | Path,
    *,
    tokenizer: str = "bpe",
    vocab: int = 1000,
    doc_sep: str = END_OF_TEXT,
    scratch: str | Path | None = None,
    specials: Sequence[str] = (),
) -> Path:
    """The prepared directory for `data`: itself if it is one, else made from the text file, once.

    Its name hashes the text and everything else that shapes the tokens, so it is never stale.
    With `scratch`, a directory, what has to be made is made there and not kept.
    """
    data, doc_sep = Path(data), unescape(doc_sep)
    check_source(data)
    if data.is_dir():
        return data
    text = remembered(data, clean_sha256, keep=not scratch)
    is_file = Path(tokenizer).is_file()
    given = Path(tokenizer).read_bytes() if is_file else " ".join([tokenizer, *specials]).encode()
    key = json.dumps([FORMAT, text, sha256(given), vocab, doc_sep])
    out = hashes.CACHE / f"{data.stem}-{sha256(key.encode())[:12]}"
    if scratch and not (out / "meta.json").exists():
        out = Path(scratch) / out.name
    if (out / "meta.json").exists() and not damaged(out, keep=not scratch):
        return out
    if out.exists():  # what is left of an entry of our own cache
        shutil.rmtree(out)
    train, val = split_text(text_file(data), doc_sep)
    how: dict[str, Any] = {"tokenizer": tokenizer, "vocab": vocab, "doc_sep": doc_sep}
    try:
        meta = write_prepared(out, train, val, **how, name=data.name, specials=specials)
    except OSError:
        if not (out / "meta.json").exists():
            raise  # else another process has just made the same
    else:
        if meta["text_sha256"] != text:
            shutil.rmtree(out)
            raise ValueError(f"{data} changed while it was read; start again when it is written")
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare a known text, or any text files, into --out."""
    p = Parser(prog="python -m data.prepare", description=__doc__)
    p.add_argument("source", nargs="+", metavar="|".join((*SOURCES, "FILE")))
    p.add_argument("--from", dest="copy", metavar="FILE", help="a copy of the known text on disk")
    p.add_argument(
        "--tokenizer",
        default="bpe",
        help=f"{', '.join(TRAINERS)}, or a tokenizer's file (default bpe)",
    )
    p.add_argument("--vocab", type=int, default=1000, help="size of a new one (default 1000)")
    p.add_argument(
        "--doc_sep", default=END_OF_TEXT, help=f"what divides documents (default {END_OF_TEXT})"
    )
    p.add_argument(
        "--split",
        choices=SPLITS,
        default="tail",
        help="what validation is: the last tenth, or a tenth of the documents (default tail)",
    )
    p.add_argument("--out", required=True, metavar="DIR", help="the directory to write")
    a = p.parse_args(argv)
    doc_sep, name = unescape(a.doc_sep), a.source[0]
    check_out(Path(a.out))
    if name in SOURCES and len(a.source) == 1:
        train, val = known_texts(name, a.copy or fetch(name), doc_sep, SPLITS[a.split])
    elif a.copy:
        raise ValueError(f"--from goes with {' or '.join(SOURCES)}, not {name}; drop it")
    else:
        texts = [text_file(path) for path in a.source]
        train, val = SPLITS[a.split](Text(partial(join, texts, doc_sep or "\n")), doc_sep)
        name = " ".join(a.source)
    meta = write_prepared(
        a.out, train, val, tokenizer=a.tokenizer, vocab=a.vocab, doc_sep=doc_sep, name=name
    )
    print(
        f"{a.out}: {meta['train_tokens']:,} training and {meta['val_tokens']:,} validation tokens, "
        f"vocabulary {meta['vocab_size']:,}, {meta['dtype']}"
    )
    if overlap_line(meta):
        print(f"warning: {overlap_line(meta)}", file=sys.stderr)
    made = open_dataset(a.out)
    for split, ids in ("training", made.train), ("validation", made.val):
        if line := unknown_line(made.tokenizer, ids):
            print(f"warning: in {split} {line}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
