"""Text files -> a prepared directory: train.bin, val.bin, tokenizer.json, meta.json.

    python -m data.prepare shakespeare --tokenizer char --out data/shakespeare_char
    python -m data.prepare my.txt more.txt --vocab 2000 --out data/mine

The last 10 % of the text is validation, as in nanoGPT. Where the text is divided into documents (by
--doc_sep) each one ends with <|endoftext|>, and the split falls between two of them.
"""

import errno
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tok
from data.loader import open_prepared
from data.overlap import RUN, overlap
from tok.cli import Parser, run
from tok.files import as_text

FORMAT = 1  # part of the cache's key: raise it when the same input gives other bytes
OURS = {"train.bin", "val.bin", "tokenizer.json", "meta.json"}
END = "<|endoftext|>"
HERE = Path(__file__).parent
CACHE, DOWNLOADS = HERE / "prepared", HERE / "downloads"


@dataclass(frozen=True)
class Source:
    """A text known by name: where it is, its hash, and its (train, val) members if it is a zip."""

    url: str
    sha256: str
    members: tuple[str, str] | None = None


SOURCES = {
    "shakespeare": Source(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "wikitext2": Source(
        "https://wikitext.smerity.com/wikitext-2-v1.zip",
        "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
        ("wikitext-2/wiki.train.tokens", "wikitext-2/wiki.valid.tokens"),
    ),
}


def clean_text(raw: bytes, name: str) -> str:
    r"""Decode UTF-8: no byte-order mark, \r\n as \n. ValueError if empty, binary or not UTF-8."""
    text = as_text(raw, name).removeprefix("\ufeff")
    if "\0" in text:
        raise ValueError(f"{name} is binary (NUL at offset {raw.index(0)}); give a text file")
    if not text.strip():
        raise ValueError(f"{name} is empty; give a text of some thousand characters")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path) -> str:
    """Read a text file; ValueError or OSError name what is wrong with it."""
    if Path(path).is_dir():
        raise ValueError(f"{path} is a directory; give a text file in it")
    return clean_text(Path(path).read_bytes(), str(path))


def split_text(text: str, doc_sep: str = END, share: float = 0.1) -> tuple[str, str]:
    """(train, val): cut at int(0.9 n) as nanoGPT does, or where the next document starts."""
    cut = int(len(text) * (1 - share))
    border = text.find(doc_sep, max(0, cut - len(doc_sep) + 1)) if doc_sep else -1
    if border >= 0 and text[border + len(doc_sep) :].strip():
        cut = border + len(doc_sep)
    return text[:cut], text[cut:]


def split_documents(text: str, doc_sep: str = END, share: float = 0.1) -> tuple[str, str]:
    """(train, val): a document goes where the hash of its text says, about `share` to val.

    So equal documents stay together, and a text that grows keeps each where it was. ValueError if
    one side would be empty.
    """
    parts: tuple[list[str], list[str]] = ([], [])
    for doc in documents(text, doc_sep):
        parts[int(sha256(doc.strip().encode())[:12], 16) < share * 16**12].append(doc)
    if not all(parts):
        raise ValueError(
            f"{len(parts[0]) + len(parts[1])} documents are too few to split by document; "
            f"leave out --split document, or set --doc_sep"
        )
    train, val = (doc_sep.join(part) + doc_sep for part in parts)
    return train, val


SPLITS = {"tail": split_text, "document": split_documents}


def overlap_line(meta: dict) -> str:
    """What to say if over 1 % of validation stands in training too: its loss flatters."""
    share = meta.get("val_overlap", 0.0)  # earlier versions did not count it
    if share <= 0.01:
        return ""
    return (
        f"{share:.1%} of the runs of {RUN} tokens in validation also stand in training; "
        f"its loss tells partly what was learnt by heart"
    )


def unescape(sep: str) -> str:
    r"""A separator as a shell hands it over: backslash and n, two characters, mean a line's end."""
    return sep.replace(r"\n", "\n").replace(r"\t", "\t")


def documents(text: str, doc_sep: str) -> list[str]:
    """Divide a text at doc_sep, blank documents left out; with no doc_sep it is one document."""
    return [d for d in text.split(doc_sep) if d.strip()] if doc_sep else [text]


def encode_text(tokenizer, text: str, doc_sep: str, *, ends: bool, cut: bool) -> np.ndarray:
    """Token ids of a text; with `ends`, <|endoftext|> follows each document, unless it is `cut`."""
    ids: list[int] = []
    for doc in documents(text, doc_sep):
        ids += tokenizer.encode(doc)
        if ends:
            ids.append(tokenizer.special_tokens[END])
    if ends and cut:
        ids.pop()
    return np.array(ids, dtype=np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)


def make_tokenizer(kind: str, vocab: int, train: Iterable[str], val: Iterable[str], *, ends: bool):
    """Train a `char` or `bpe` tokenizer, or load the one at the path `kind`."""
    if kind == "char":  # each must have an id; merges, though, are learnt from training text only
        specials = (END,) if ends else ()
        return tok.CharTokenizer.train([*train, *val], special_tokens=specials)
    if kind == "bpe":
        return tok.BPETokenizer.train(train, vocab, special_tokens=(END,))
    if not Path(kind).is_file():
        raise ValueError(f"tokenizer={kind!r} is neither char nor bpe nor a tokenizer's file")
    return tok.load(kind)


def write_prepared(out, train: str, val: str, *, tokenizer="bpe", vocab=1000, doc_sep=END, name=""):
    """Tokenize both splits into the directory `out`, which appears whole or not at all.

    Returns its meta.json as a dict. Raises ValueError if `out` holds something else already.
    """
    out = Path(out)
    check_out(out)
    parts = [documents(text, doc_sep) for text in (train, val)]
    ends = len(documents(train + val, doc_sep)) > 1  # a single text has no end to learn
    tokenizer = make_tokenizer(tokenizer, vocab, *parts, ends=ends)
    if ends and END not in tokenizer.special_tokens:
        raise ValueError(
            f"the text has documents, but the tokenizer has no {END}; train one with it"
        )
    cut = not train.endswith(doc_sep)
    ids = [
        encode_text(tokenizer, train, doc_sep, ends=ends, cut=cut),
        encode_text(tokenizer, val, doc_sep, ends=ends, cut=False),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(out)
    new = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        os.chmod(new, 0o777 & ~umask())
        tokenizer.save(new / "tokenizer.json")
        ids[0].tofile(new / "train.bin")
        ids[1].tofile(new / "val.bin")
        meta = {
            "version": FORMAT,
            "name": name,
            "dtype": ids[0].dtype.name,
            "vocab_size": tokenizer.vocab_size,
            "documents": sum(map(len, parts)) - cut if ends else 1,
            "train_tokens": len(ids[0]),
            "val_tokens": len(ids[1]),
            "train_bytes": len(train.encode()),
            "val_bytes": len(val.encode()),
            "val_overlap": overlap(*ids),
            "text_sha256": sha256(train.encode() + val.encode()),
            "tokenizer_sha256": sha256((new / "tokenizer.json").read_bytes()),
        }
        (new / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        replace_dir(new, out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return meta


def remove_stale(out: Path, age: float = 86400) -> None:
    """Remove what a killed preparation of `out` left beside it: ours alone, untouched for a day."""
    for left in out.parent.glob(f".{glob.escape(out.name)}-*"):
        ours = left.is_dir() and {p.name for p in left.iterdir()} <= OURS
        if ours and time.time() - left.stat().st_mtime > age:
            shutil.rmtree(left, ignore_errors=True)


def damaged(out: Path) -> bool:
    """Whether an entry of our cache is there, but not whole. Says so; it is then made again."""
    try:
        open_prepared(out)
    except ValueError as e:
        print(f"note: {e}: made again", file=sys.stderr)
        return True
    return False


def check_out(out: Path) -> None:
    """Raise ValueError unless `out` is free, empty, or prepared data that may be replaced."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out names a directory")
    if out.is_dir() and {p.name for p in out.iterdir()} not in (set(), OURS):
        raise ValueError(f"{out} holds other files; choose a new directory for --out")
    if out.resolve() == Path.cwd():
        raise ValueError(f"{out} is the working directory; choose another --out")


def replace_dir(new: Path, out: Path) -> None:
    """Put `new` in the place of `out`. One call cannot replace a directory: the old steps aside."""
    if out.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
        os.replace(out, old)
        os.replace(new, out)
        shutil.rmtree(old)
    else:
        os.replace(new, out)


def umask() -> int:
    """The process's mask for new files, which mkdtemp does not follow."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256(raw: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(raw).hexdigest()


def prepared(data, *, tokenizer="bpe", vocab=1000, doc_sep=END, scratch=None) -> Path:
    """The prepared directory for `data`: itself if it is one, else made from the text file, once.

    Its name hashes the text and everything else that shapes the tokens, so it is never stale.
    With `scratch`, a directory, what has to be made is made there and not kept.
    """
    data = Path(data)
    if (data / "meta.json").exists():
        return data
    if not data.exists():
        cure = "no such text; give a file, or make it with python -m data.prepare"
        raise FileNotFoundError(errno.ENOENT, cure, str(data))
    if data.is_dir():
        raise ValueError(
            f"{data} has no meta.json; give a text file, or run python -m data.prepare"
        )
    text = read_text(data)
    doc_sep = unescape(doc_sep)
    given = Path(tokenizer).read_bytes() if Path(tokenizer).is_file() else tokenizer.encode()
    key = json.dumps([FORMAT, sha256(text.encode()), sha256(given), vocab, doc_sep])
    out = CACHE / f"{data.stem}-{sha256(key.encode())[:12]}"
    if scratch and not (out / "meta.json").exists():
        out = Path(scratch) / out.name
    if not (out / "meta.json").exists() or damaged(out):
        train, val = split_text(text, doc_sep)
        shapes = {"tokenizer": tokenizer, "vocab": vocab, "doc_sep": doc_sep, "name": data.name}
        try:
            write_prepared(out, train, val, **shapes)
        except OSError:
            if not (out / "meta.json").exists():
                raise  # else another process has just made the same
    return out


def fetch(name: str) -> Path:
    """Download a known text once. ValueError without a network, or for unexpected bytes."""
    source, path = SOURCES[name], DOWNLOADS / name
    if not path.exists():
        try:
            with urllib.request.urlopen(source.url, timeout=30) as reply:
                raw = reply.read()
        except OSError as e:
            raise ValueError(
                f"cannot download {source.url} ({e}); get it elsewhere and pass --from FILE"
            ) from None
        check_sha256(raw, source, source.url)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(raw)
        os.replace(part, path)
    return path


def check_sha256(raw: bytes, source: Source, where) -> None:
    """Raise ValueError unless these are the known bytes: on others, numbers would not compare."""
    if sha256(raw) != source.sha256:
        raise ValueError(
            f"{where} has sha256 {sha256(raw)[:12]}..., not {source.sha256[:12]}...; "
            f"it is another text: give it as a FILE of its own"
        )


def known_texts(name: str, path, doc_sep: str, split=split_text) -> tuple[str, str]:
    """(train, val) of a known source whose file lies at `path`."""
    source, raw = SOURCES[name], Path(path).read_bytes()
    check_sha256(raw, source, path)
    if source.members is None:
        return split(clean_text(raw, name), doc_sep)
    with zipfile.ZipFile(path) as z:
        train, val = (clean_text(z.read(m), m) for m in source.members)
    return train, val


def main(argv=None):
    """Prepare a known text, or any text files, into --out."""
    p = Parser(prog="python -m data.prepare", description=__doc__)
    p.add_argument("source", nargs="+", metavar="shakespeare|wikitext2|FILE")
    p.add_argument("--from", dest="copy", metavar="FILE", help="a copy of the known text on disk")
    p.add_argument(
        "--tokenizer", default="bpe", help="char, bpe, or a tokenizer's file (default bpe)"
    )
    p.add_argument("--vocab", type=int, default=1000, help="size of a new BPE (default 1000)")
    p.add_argument("--doc_sep", default=END, help=f"what divides documents (default {END})")
    p.add_argument(
        "--split",
        choices=SPLITS,
        default="tail",
        help="what validation is: the last tenth, or a tenth of the documents (default tail)",
    )
    p.add_argument("--out", required=True, metavar="DIR", help="the directory to write")
    a = p.parse_args(argv)
    doc_sep = unescape(a.doc_sep)
    check_out(Path(a.out))
    name = a.source[0]
    if name in SOURCES and len(a.source) == 1:
        train, val = known_texts(name, a.copy or fetch(name), doc_sep, SPLITS[a.split])
    elif a.copy:
        raise ValueError(f"--from goes with {' or '.join(SOURCES)}, not {name}; drop it")
    else:
        texts = [read_text(path) for path in a.source]
        train, val = SPLITS[a.split]((doc_sep or END).join(texts), doc_sep)
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


if __name__ == "__main__":
    run(main)
