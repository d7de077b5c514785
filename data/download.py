"""Texts known by name: where they are, and the bytes that they must have."""

import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from data.hashes import file_sha256, sha256
from data.text import Text, clean, split_text, text_file
from tok.files import replacing

DOWNLOADS = Path(__file__).parent / "downloads"
Split = Callable[[Iterable[str], str], tuple[Text, Text]]


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
    "wikitext2-raw": Source(  # rare words as they are, where the other has <unk>
        "https://wikitext.smerity.com/wikitext-2-raw-v1.zip",
        "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11",
        ("wikitext-2-raw/wiki.train.raw", "wikitext-2-raw/wiki.valid.raw"),
    ),
}


def fetch(name: str) -> Path:
    """Download a known text once. ValueError without a network, or for unexpected bytes."""
    source, path = SOURCES[name], DOWNLOADS / name
    if path.exists():
        return path
    try:
        with urllib.request.urlopen(source.url, timeout=30) as reply:
            raw = reply.read()
    except OSError as e:
        raise ValueError(
            f"cannot download {source.url} ({e}); get it elsewhere and pass --from FILE"
        ) from None
    check_sha256(sha256(raw), source, source.url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as new:
        Path(new).write_bytes(raw)
    return path


def check_sha256(found: str, source: Source, where: str | Path) -> None:
    """Raise ValueError unless it is the known hash: on other bytes, numbers would not compare."""
    if found != source.sha256:
        raise ValueError(
            f"{where} has sha256 {found[:12]}..., not {source.sha256[:12]}...; "
            f"it is another text: give it as a FILE of its own"
        )


def read_member(path: Path, member: str) -> Iterator[str]:
    """The cleaned chunks of a file in a zip."""
    with zipfile.ZipFile(path) as z, z.open(member) as file:
        yield from clean(cast(BinaryIO, file), member)


def known_texts(
    name: str, path: str | Path, doc_sep: str, split: Split = split_text
) -> tuple[Text, Text]:
    """(train, val) of a known source whose file lies at `path`."""
    source, path = SOURCES[name], Path(path)
    check_sha256(file_sha256(path), source, path)
    if source.members is None:
        return split(text_file(path), doc_sep)
    train, val = (Text(partial(read_member, path, member)) for member in source.members)
    return train, val
