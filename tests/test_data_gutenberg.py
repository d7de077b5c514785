"""data/gutenberg.py: licence frames off, and nothing else."""

import random
import tracemalloc

import pytest
from conftest import TOY, shared
from hypothesis import given, settings
from hypothesis import strategies as st

import train
from data import gutenberg
from data.gutenberg import Cleaning, Shelf, bodies, encoding_of, trimmed
from data.text import documents, text_file
from tok import END_OF_TEXT

HEADER = "The Project Gutenberg EBook of A Book, by A. Author\n\nTitle: A Book\n\n"
SMALL_PRINT = (
    "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\n"
    'Why is this "Small Print!" statement here?  You know: lawyers.\n'
)
LICENCE = "\n*** START: FULL LICENSE ***\nTHE FULL PROJECT GUTENBERG LICENSE\n"
FRAMES = {  # a year: what stands before a book and after it
    1994: (
        f"***This is the Project Gutenberg Etext of A Book***\n{SMALL_PRINT}"
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n",
        "End of The Project Gutenberg Etext of A Book by A. Author\n",
    ),
    1995: (f"{SMALL_PRINT}*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n", ""),
    2001: (
        f"{SMALL_PRINT}*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.12.12.00*END*\n",
        "End of Project Gutenberg Etext of A Book, by A. Author\n\n",
    ),
    2003: (
        f"{HEADER}*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***\n",
        "End of Project Gutenberg's A Book, by A. Author\n\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***\n\n"
        f"{SMALL_PRINT}*END THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*\n\n",
    ),
    2005: (
        f"{HEADER}***START OF THE PROJECT GUTENBERG EBOOK A BOOK***\n\n\n"
        "E-text prepared by Project Gutenberg Distributed Proofreaders\n",
        f"\n\n***END OF THE PROJECT GUTENBERG EBOOK A BOOK***\n{LICENCE}",
    ),
    2008: (
        f"\ufeff{HEADER}*** START OF THIS PROJECT GUTENBERG EBOOK A BOOK WITH A LONG TITLE,\n"
        "OR WITH TWO ***\n\n\nProduced by One, Another, and the\nOnline Team at a page\n",
        "End of the Project Gutenberg EBook of A Book,\nby A. Author\n\n"
        f"*** END OF THIS PROJECT GUTENBERG EBOOK A BOOK ***\n{LICENCE}",
    ),
    2023: (
        f"\ufeff{HEADER}*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***\n",
        f"*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***\n{LICENCE}",
    ),
    "copyrighted": (
        f"{HEADER}*** START OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK A BOOK ***\n",
        f"*** END OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK A BOOK ***\n{LICENCE}",
    ),
}


def framed(body, year=2023):
    before, after = FRAMES[year]
    return f"{before}\n\n{body}\n\n\n{after}"


def words(n, seed):
    return " ".join(random.Random(seed).choices([f"w{i:03}" for i in range(999)], k=n))


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("year", FRAMES)
def test_frames_of_all_years(tmp_path, year, ends):
    """What stands between survives, indentation and lines about the end of things included."""
    body = "    A BOOK ***\n\n\nIn the end of the project he produced by\n *** a star.\n\nThe end"
    path = tmp_path / "b.txt"
    path.write_bytes(framed(body, year).replace("\n", ends).encode())
    assert list(Cleaning().books(path)) == [body]


LINES = st.text(st.sampled_from("ab *’é\t.END"), max_size=12)


@settings(max_examples=60)
@given(st.lists(LINES, max_size=12), st.sampled_from(sorted(FRAMES, key=str)))
def test_any_text_survives_its_frame(lines, year):
    """Byte for byte, but for blank lines around it."""
    body = "\n".join(["x", *lines, "y"])
    found = list(bodies(framed(body, year).removeprefix("\ufeff").splitlines(keepends=True)))
    text = Cleaning().book("".join(gutenberg.after_mark(next(filter(any, found)))))
    assert text == body


def test_real_books():
    """Grimm's tales: from the first picture to the last line, and no word about licences."""
    path = shared("grimm.txt")
    (text,) = Cleaning().books(path)
    assert text.startswith("[Illustration: HE SAID, “LITTLE TABLE SET THYSELF!”]")
    assert "Gutenberg" not in text
    assert "Produced by" not in text[:500]
    raw = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    at = raw.index(text)
    assert "Proofreading Team at http://www.pgdp.net" in raw[:at][-100:]
    assert raw[at + len(text) :].strip().startswith("End of the Project Gutenberg EBook")


def test_several_books_in_a_file(tmp_path, error_of):
    """Each is one; where a start mark follows a book without an end mark, none may be lost."""
    path = tmp_path / "b.txt"
    path.write_text(framed("one", 2003) + framed("two", 1994) + framed("three"), encoding="utf-8")
    assert list(Cleaning().books(path)) == ["one", "two", "three"]
    path.write_text(framed("one\n" * 150, 1995) + framed("two"), encoding="utf-8")
    said = error_of(gutenberg.main, path, "--out", "o.txt")
    assert "line 163 begins a book before the last has ended" in said
    assert not (tmp_path / "o.txt").exists()


def test_a_file_without_a_frame_is_refused_or_kept_whole(tmp_path, error_of):
    path, out = tmp_path / "b.txt", tmp_path / "o.txt"
    path.write_text("\n\n  Once\n\n", encoding="utf-8")
    assert "has no frame" in error_of(gutenberg.main, path, "--out", out)
    assert not out.exists()
    gutenberg.main([str(path), "--out", str(out), "--unframed"])
    assert out.read_text(encoding="utf-8") == "  Once\n"


def test_encodings(tmp_path):
    """UTF-8 wherever it is that; else what the header declares, if Python knows it."""
    path = tmp_path / "b.txt"
    text = framed("naïve café")
    path.write_bytes(text.encode())
    assert encoding_of(path) == "utf-8-sig"
    declared = text.removeprefix("\ufeff").replace("Title", "Character set encoding: {}\nTitle")
    for name in ("ISO-8859-1", "Windows-1252"):
        path.write_bytes(declared.format(name).encode("cp1252"))
        assert list(Cleaning().books(path)) == ["naïve café"]
    for name, said in (("ASCII", "not UTF-8 at byte"), ("Klingon", "unknown encoding")):
        path.write_bytes(declared.format(name).encode("cp1252"))
        with pytest.raises(ValueError, match=said):
            list(Cleaning().books(path))
    path.write_bytes(b"\0\1\2")
    with pytest.raises(ValueError, match="binary"):
        list(Cleaning(unframed=True).books(path))


def test_unwrapping_and_notes_by_hand():
    line = "A line of prose that is as long as a page is wide, and"
    verse = "  Twinkle, twinkle, little bat!\n  How I wonder what you're at!"
    text = f"{line}\n{line}\nends.\n\n\n{verse}\n\n[Transcriber's Note: a\nword.]\n\nshort\nlines"
    assert Cleaning().book(text) == text
    assert Cleaning(unwrap=True).book(text) == text.replace(
        f"{line}\n{line}\nends.", f"{line} {line} ends."
    )
    assert "Transcriber" not in Cleaning(drop_notes=True).book(text)
    assert Cleaning(drop_notes=True).book(text).startswith(f"{line}\n{line}\nends.\n\n\n{verse}\n")
    assert Cleaning(drop_notes=True).book(text).endswith("\n\nshort\nlines")
    assert trimmed(" \n\t\n  a\n b \n\n") == "  a\n b"


def test_copies_are_left_out(tmp_path, capsys):
    """Another edition, in capitals and other quotes; not a book that shares a chapter."""
    one, two = words(4000, 1), words(4000, 2)
    for name, text in {
        "a": one,
        "b": one.upper().replace(" ", "\n"),
        "c": two + one[: len(one) // 4],
        "d": two,
    }.items():
        (tmp_path / f"{name}.txt").write_text(framed(text), encoding="utf-8")
    gutenberg.main([str(tmp_path), "--out", "o"])
    said = capsys.readouterr().out
    assert "b.txt: left out, 100% of it stands in a.txt" in said
    assert "d.txt: left out, 100% of it stands in c.txt" in said
    assert "o: 2 books" in said
    kept = ["".join(d).strip() for d in documents(text_file("o"), END_OF_TEXT)]
    assert kept == [one, two + one[: len(one) // 4]]
    gutenberg.main([str(tmp_path), "--out", "o", "--keep_copies"])
    assert "o: 4 books" in capsys.readouterr().out


def test_a_share_of_copied_words_by_hand():
    """A half of the new book's runs of 13 words stand in the old one."""
    shelf, old, new = Shelf(), words(200_000, 1), words(200_000, 2)
    assert shelf.place(old, "old") == (0.0, "")
    share, twin = shelf.place(new[: len(new) // 10 * 6] + old[: len(old) // 10 * 4], "new")
    assert twin == "old"
    assert abs(share - 0.4) < 0.03
    assert shelf.names == ["old", "new"]
    assert Shelf().place("too short", "s") == (0.0, "")


def test_a_text_with_the_separator_is_refused(tmp_path, error_of):
    (tmp_path / "b.txt").write_text(framed(f"a {END_OF_TEXT} b"), encoding="utf-8")
    assert "divides books" in error_of(gutenberg.main, tmp_path / "b.txt", "--out", "o")
    (tmp_path / "empty").mkdir()
    assert "no .txt file" in error_of(gutenberg.main, tmp_path / "empty", "--out", "o")


def test_memory_is_of_one_book(tmp_path):
    """Twelve books need hardly more than two: what is kept of each is a sketch."""
    peaks = []
    for n in 2, 12:
        (tmp_path / str(n)).mkdir()
        for i in range(n):
            (tmp_path / str(n) / f"{i}.txt").write_text(framed(words(6000, i)), encoding="utf-8")
        tracemalloc.start()
        gutenberg.main([str(tmp_path / str(n)), "--out", "o"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0], peaks


def test_books_are_documents_of_a_training(tmp_path, capsys):
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text(framed(words(1000, i)), encoding="utf-8")
    gutenberg.main([str(tmp_path), "--out", "books.txt"])
    assert train.main(["--data", "books.txt", "--steps", "2", *TOY]) == 0
    assert (tmp_path / "runs" / "books" / "summary.json").exists()
