"""docs/papers.md: the functions that it names exist, its figures stand where it says."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "papers.md").read_text(encoding="utf-8")
NOTES = dict(re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S))


def test_all_eighteen_are_there():
    assert len(NOTES) == 18
    for title, note in NOTES.items():
        for part in ("**Claims:**", "**In the code:**", "**Measured:**"):
            assert note.count(part) == 1, title
        assert re.search(r"\]\(https://", note), title


@pytest.mark.parametrize("title", NOTES)
def test_what_stands_in_the_code_is_there(title):
    """A name before or after its file in backquotes is a class, function or setting of it."""
    text = NOTES[title].split("**In the code:**")[1].split("**Measured:**")[0]
    text = " ".join(text.split())
    for sentence in re.split(r"[.;] ", text):
        files = re.findall(r"`([\w/]+\.py)`", sentence)
        names = [n for n in re.findall(r"`([A-Za-z_]+)`", sentence) if n != "window"]
        source = "".join((DOCS.parent / f).read_text(encoding="utf-8") for f in files)
        for name in names if files else []:
            assert re.search(rf"(def|class) {name}\b|^    {name}: ", source, re.M), (title, name)


@pytest.mark.parametrize("title", NOTES)
def test_figures_stand_on_the_page_that_is_named(title):
    """Every figure of "measured" is, digit for digit, in one of the documents it links to."""
    text = NOTES[title].split("**Measured:**")[1]
    pages = [DOCS / link for link in re.findall(r"\]\(([\w./]+\.md)\)", text)]
    there = " ".join(" ".join(p.read_text(encoding="utf-8").split()) for p in pages)
    plain = re.sub(r"\]\(.*?\)|section \d+", "", text)
    figures = re.findall(r"\d[\d,]*\.\d+|\d{1,3}(?:,\d{3})+|\d+ (?:%|MB|GB)", plain)
    assert pages or not figures
    assert pages or "not measured here" in " ".join(text.lower().split())
    for figure in figures:
        found = rf"(?<![\d.,]){re.escape(figure.split(' ')[0])}(?![\d])"
        assert re.search(found, there), (title, figure)
