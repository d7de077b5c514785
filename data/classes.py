"""Texts of several classes: a folder or a file for each class.

    reviews/good/1.txt  reviews/good/2.txt  reviews/bad/1.txt  reviews/bad/2.txt    a folder each
    passages/grimm.txt  passages/shakespeare.txt                                    a file each

In a folder each file is a text, or several with the separator of documents between them.
"""

from collections.abc import Iterable
from errno import ENOENT
from pathlib import Path

from data import hashes
from data.hashes import sha256
from data.phases import parse_counts
from data.text import read_text
from tok.files import replacing


def class_texts(
    data: str, mixture: str, doc_sep: str, scratch: str | Path | None = None
) -> dict[str, int]:
    """A text file for each class, as a mixture of weights 1: {"data/good.txt": 1, ...}.

    The classes are the texts of `mixture`, or the folders and .txt files in the folder `data`. The
    files of a folder are joined in the cache, or in the directory `scratch`. ValueError if there
    are less than two classes, or one is empty.
    """
    if mixture:
        paths = [Path(path) for path in parse_counts(mixture, "mixture")]
    else:
        paths = list(entries(Path(data)))
    if len(paths) < 2:
        found = ", ".join(path.name for path in paths) or "none"
        cure = "give a folder that holds a folder or a .txt file for each"
        raise ValueError(f"{mixture or data} has {found}; classes are two or more: {cure}")
    names = [path.name if path.is_dir() else path.stem for path in paths]
    if twins := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{data}: two classes are called {twins[0]}; rename one")
    out = Path(scratch or hashes.CACHE)
    return {str(joined(path, doc_sep, out) if path.is_dir() else path): 1 for path in paths}


def entries(data: Path) -> Iterable[Path]:
    """The folders and text files in a folder, by name. FileNotFoundError if there is none."""
    if not data.exists():
        cure = "no such folder; give one with a folder or a .txt file for each class"
        raise FileNotFoundError(ENOENT, cure, str(data))
    if not data.is_dir() or (data / "meta.json").exists():
        cure = "give a folder with a folder or a .txt file for each class"
        raise ValueError(f"{data} is one text, and classes are several; {cure}")
    return sorted(p for p in data.glob("[!.]*") if p.is_dir() or p.suffix == ".txt")


def joined(folder: Path, doc_sep: str, out: Path) -> Path:
    """One file of all text files in a folder, so mixed that their names decide nothing.

    The last tenth is validation, and names may be dates, or sorted by topic.
    """
    files = sorted(folder.rglob("*.txt"))
    if not files:
        raise ValueError(f"{folder} holds no .txt file; put the texts of that class there")
    if not doc_sep:
        raise ValueError("doc_sep is empty, but divides the texts of a class; set it")
    texts = sorted((read_text(file) for file in files), key=lambda text: sha256(text.encode()))
    content = doc_sep.join(texts)
    path = out / f"class-{sha256(content.encode())[:12]}" / f"{folder.name}.txt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            Path(part).write_text(content, encoding="utf-8")
    return path
