r"""Books of Project Gutenberg -> one text: licence frames off, a document a book, copies left out.

    python -m data.gutenberg books/ --out books.txt
    python train.py --data books.txt --config configs/gutenberg_5m.yaml

Between its marks a book stays as it is, but for line ends (\n), blank lines around it, and credits
("Produced by ...") that it begins with. Memory holds one book, and a sketch of each.
"""

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from data.overlap import hashes
from tok import END_OF_TEXT
from tok.cli import Parser, run
from tok.files import check_writable, output_file, text_chunks

START = re.compile(  # from 2002 on, and before: the end of the "small print" was in the header
    r"\s*(\*{3} ?START OF (THE|THIS) (COPYRIGHTED )?PROJECT GUTENBERG|\*END ?\*? ?THE SMALL PRINT)",
    re.IGNORECASE,
)
END = re.compile(  # the first of the two that most books have
    r"\s*(\*{3} ?)?END OF (THE |THIS )?(COPYRIGHTED )?PROJECT GUTENBERG"
    r"([’']S\b|,? E-?(BOOK|TEXT)\b)",
    re.IGNORECASE,
)
CREDIT = re.compile(
    r"\s*((this |the )?e-?(text|book) (was )?)?"
    r"(produced|prepared|transcribed|scanned|digitized|converted)\b.* (by|from)\b",
    re.IGNORECASE,
)
NOTE = re.compile(r"^[ \t]*\[?transcriber[’']?s?[’']? notes?\b.*\n(.+\n)*", re.IGNORECASE | re.M)
CHARSET = re.compile(rb"^character set encoding:[ \t]*(\S+)", re.IGNORECASE | re.M)
PARAGRAPH = re.compile(r"[^\n]+(\n[^\n]+)*")
NEAR = 100  # lines: two start marks so near to each other are one header
WIDE = 50  # characters: a line of prose that was wrapped is longer
SAMPLE = np.uint64(128)  # of the runs of 13 words, every 128th is remembered
COPY = 0.5  # the share of such runs that makes a book another's copy


def encoding_of(path: Path) -> str:
    """UTF-8, or where it is not that, what the header declares. ValueError if it names nothing."""
    with open(path, "rb") as file:
        try:
            for chunk in text_chunks(file, str(path)):
                if "\0" in chunk:
                    raise ValueError(f"{path} is binary; give a book as plain text")
            return "utf-8-sig"
        except ValueError:
            file.seek(0)
            found = CHARSET.search(file.read(1 << 14))
            declared = found[1].decode("latin-1") if found else "utf-8"
            try:
                name = codecs.lookup(declared).name
            except LookupError:
                raise ValueError(f"{path} is in an unknown encoding, {declared}") from None
            if name in ("ascii", "utf-8"):
                raise
            return name


def bodies(lines: Iterable[str]) -> Iterator[list[str]]:
    """The lines between each start mark and its end mark, or the last line of the file.

    ValueError for a book that begins before another has ended: neither may be lost.
    """
    body: list[str] | None = None
    for number, line in enumerate(lines, 1):
        if START.match(line):
            if body is not None and len(body) > NEAR:
                raise ValueError(f"line {number} begins a book before the last has ended; cut it")
            body = []
        elif body is not None and END.match(line):
            yield body
            body = None
        elif body is not None:
            body.append(line)
    if body is not None:
        yield body


def after_mark(body: list[str]) -> list[str]:
    """Without the rest of a start mark of several lines, whose last one ends in ***."""
    for i, line in enumerate(body[:3]):
        if not line.strip():
            break
        if line.rstrip().endswith("***"):
            return body[i + 1 :]
    return body


def trimmed(text: str) -> str:
    """Without blank lines before and after it; the first line keeps its indentation."""
    text = text.rstrip()
    return text[re.match(r"(?:[^\S\n]*\n)*", text).end() :]  # type: ignore[union-attr]


def without_credits(text: str) -> str:
    """A book without the paragraphs about its making that it begins with."""
    while CREDIT.match(text):
        text = trimmed(text[PARAGRAPH.match(text).end() :])  # type: ignore[union-attr]
    return text


def unwrapped(paragraph: re.Match[str]) -> str:
    """Prose in one line; what has a short or an indented line (verse, a table) as it is."""
    lines = paragraph[0].split("\n")
    prose = all(len(line) >= WIDE for line in lines[:-1])
    indented = any(line[0].isspace() for line in lines)
    return " ".join(lines) if prose and not indented else paragraph[0]


@dataclass(frozen=True)
class Cleaning:
    """What is done with a book beside taking its frame off."""

    unframed: bool = False  # keep a file without a frame, whole
    unwrap: bool = False
    drop_notes: bool = False

    def book(self, text: str) -> str:
        """The text of a book, from what stands between its marks; "" if that is blank."""
        text = without_credits(trimmed(text))
        if self.drop_notes:
            text = trimmed(NOTE.sub("", text + "\n"))
        return PARAGRAPH.sub(unwrapped, text) if self.unwrap else text

    def books(self, path: Path) -> Iterator[str]:
        """The books of a file, one after another. ValueError if it has no frame."""
        found = False
        with open(path, encoding=encoding_of(path)) as file:
            try:
                for body in bodies(file):
                    found = True
                    if text := self.book("".join(after_mark(body))):
                        yield text
            except ValueError as e:
                raise ValueError(f"{path}: {e}") from None
            if found:
                return
            if not self.unframed:
                raise ValueError(
                    f"{path} has no frame (*** START OF THE PROJECT GUTENBERG ...); "
                    f"--unframed keeps such a file whole"
                )
            file.seek(0)
            yield self.book(file.read())


class Shelf:
    """Books that are there already, each by a sample of its runs of 13 words."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.owner: dict[int, int] = {}  # a run's hash -> the first book that has it

    def place(self, text: str, name: str) -> tuple[float, str]:
        """Which share of a book stands in another one, and its name; below COPY it is placed.

        Letters alone count, in lower case: editions differ in quotes and marks.
        """
        words = re.findall(r"[^\W_]+", text.lower())
        runs = hashes(np.array([crc32(word.encode()) for word in words], np.uint64))
        mine = set(runs[runs % SAMPLE == 0].tolist())
        twins = Counter(self.owner[run] for run in mine if run in self.owner)
        book, n = twins.most_common(1)[0] if twins else (0, 0)
        share = n / max(1, len(mine))
        if share < COPY:
            self.owner = dict.fromkeys(mine, len(self.names)) | self.owner
            self.names.append(name)
        return share, self.names[book] if twins else ""


def files_of(sources: Sequence[str]) -> list[Path]:
    """Files as they are named, and of a directory all that end in .txt, sorted."""
    found: list[Path] = []
    for source in map(Path, sources):
        found += sorted(source.rglob("*.txt")) if source.is_dir() else [source]
    if not found:
        raise ValueError(f"no .txt file in {' '.join(sources)}; give books as plain text")
    return found


def collected(paths: Sequence[Path], cleaning: Cleaning, every: bool) -> Iterator[str]:
    """The books to keep, one line said about each; with `every`, copies too."""
    shelf = Shelf()
    for path in paths:
        size = path.stat().st_size
        for text in cleaning.books(path):
            if END_OF_TEXT in text:
                raise ValueError(f"{path} holds {END_OF_TEXT}, which divides books; take it out")
            share, twin = (0.0, "") if every else shelf.place(text, path.name)
            said = f"{len(text):,} characters kept of {size:,} bytes"
            if share >= COPY:
                said = f"left out, {share:.0%} of it stands in {twin}"
            print(f"{path.name}: {said}")
            if share < COPY:
                yield text


def main(argv: Sequence[str] | None = None) -> None:
    """Clean books, and write them as one text that data.prepare and train.py read."""
    p = Parser(prog="python -m data.gutenberg", description=__doc__)
    p.add_argument("source", nargs="+", metavar="FILE|DIR", help="books, or folders of .txt files")
    p.add_argument("--out", required=True, metavar="FILE", help="the text to write")
    p.add_argument("--unframed", action="store_true", help="keep a file without a frame, whole")
    p.add_argument("--unwrap", action="store_true", help="write each paragraph of prose in a line")
    p.add_argument("--drop_notes", action="store_true", help="drop transcriber's notes")
    p.add_argument("--keep_copies", action="store_true", help="keep books that are mostly another")
    a = p.parse_args(argv)
    check_writable(a.out)
    cleaning, n, length = Cleaning(a.unframed, a.unwrap, a.drop_notes), 0, 0
    with output_file(a.out) as file:
        for text in collected(files_of(a.source), cleaning, a.keep_copies):
            file.write((f"{END_OF_TEXT}\n" if n else "").encode())
            file.write((text + "\n").encode())
            n, length = n + 1, length + len(text)
    print(f"{a.out}: {n} books, {length:,} characters")


if __name__ == "__main__":
    run(main)
