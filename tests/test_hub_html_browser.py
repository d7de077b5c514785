"""An exported page in a real Chromium: opened as a file, used by keyboard, it sends nothing."""

import json
import re

import pytest
from browser import CHROMIUM, Browser
from html_pages import CONFIGS, make_run, model, tokenizer

from model import generate
from tok import CharTokenizer
from utils.hub.__main__ import main
from utils.hub.packed import own_state, packed
from utils.training.models import assembled

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="apt-get install chromium: opens the page as a person does"
)
TEXT = "the dog and the fox"
CONTROL = 2


def exported(tok=None, *flags, **change):
    """Export a random model; what its page should compute with."""
    tok = tok or tokenizer()
    built = model(**{"vocab_size": max(300, tok.vocab_size), **change})
    make_run("runs/a", built, tok)
    main(["export", "a", "--to", "html", "a.html", *flags])
    return assembled("gpt", built.config, packed(own_state(built), "f16")[2]).eval(), tok


def opened(**size):
    """The page, when the model has read its first text."""
    page = Browser("a.html", **size)
    page.wait("document.querySelectorAll('#lens td').length > 0")
    return page


def ids_of(page):
    """The ids of the chips."""
    keys = page.evaluate("[...document.querySelectorAll('.chip')].map((c) => c.dataset.key)")
    return [int(key.split(":")[1]) for key in keys]


def text_of(page, selector):
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def fill(page, text):
    """Replace the text, as by selecting all and typing; wait until it is read."""
    page.evaluate("document.querySelector('#text').select()")
    page.click("#text")
    page.evaluate("document.querySelector('#text').select()")
    page.type(text)


def only_itself(page):
    """No request but for the file and the worker's own text, and nothing went wrong."""
    assert [url.split(":")[0] for url in page.requests] == ["file", "blob"]
    assert not page.problems


def test_it_reads_writes_and_shows_without_a_request():
    twin, tok = exported(**CONFIGS["slides"])
    start = [tok.special_tokens["<|endoftext|>"], *tok.encode(TEXT)]
    with opened() as page:
        assert re.search(r"PyTorch's to \de-\d", text_of(page, "#checked"))
        fill(page, TEXT)
        page.wait(f"document.querySelectorAll('.chip').length === {len(start)}")
        assert ids_of(page) == start
        page.wait("document.querySelector('#caption').textContent.startsWith('Block 1, head 1')")
        pixels = "c.getContext('2d').getImageData(0, 0, c.width, c.width).data"
        dark = (
            f"(() => {{ const c = document.querySelector('.head canvas'); return new Set({pixels})"
        )
        dark += ".size; })()"
        assert page.evaluate(dark) > 10
        assert page.evaluate("document.querySelectorAll('#next tbody tr').length") == 10
        page.evaluate("document.querySelector('#count').value = 20")
        page.click("#write")
        page.wait("document.querySelector('#status').textContent.includes('written')")
        sampling = {"temperature": 0.3, "top_k": 50, "seed": 0}
        drawn = generate(twin, [start], 20, vocab_size=tok.vocab_size, **sampling)
        assert ids_of(page) == [*start, *map(int, drawn)]
        before = page.evaluate("document.querySelector('#next tbody').textContent")
        page.click(".head[data-layer='0'][data-head='2'] input")
        page.wait("document.querySelector('#effect').textContent.startsWith('1 switched off')")
        page.wait(f"document.querySelector('#next tbody').textContent !== {json.dumps(before)}")
        page.click("#all-on")
        page.wait(f"document.querySelector('#next tbody').textContent === {json.dumps(before)}")
        only_itself(page)


def test_nothing_can_be_fetched_and_no_token_becomes_markup():
    """The vocabulary holds a script, and the text too."""
    exported()
    with opened() as page:
        fill(page, "</script><script>alert(1)</script><b>x</b> <!--")
        page.wait("document.querySelector('#tokens').textContent.includes('<b>')")
        assert page.evaluate("document.querySelectorAll('b').length") == 0
        only_itself(page)
        tried = """Promise.all(["https://example.com/", "data:,x", location.href].map((url) =>
          fetch(url).then(() => "fetched", () => "refused")))"""
        assert page.evaluate(tried) == ["refused"] * 3
        run = (
            "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        )
        run += "document.body.append(s); return window.ran; })()"
        assert page.evaluate(run) is None
        assert any("Content Security Policy" in problem for problem in page.problems)


def test_a_narrow_screen_does_not_scroll_sideways():
    exported(**CONFIGS["speedrun"], n_layer=2, n_head=4, d_model=32)
    with opened(width=360, height=740) as page:
        fill(page, TEXT * 3)
        page.wait("document.querySelectorAll('.chip').length > 12")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        parts = "[...document.querySelectorAll('button, input, textarea, p, canvas, .card')]"
        outside = "(e) => !e.closest('.scroll, #heads') && e.getBoundingClientRect().right > 360"
        wide = f"{parts}.filter({outside}).length"
        assert page.evaluate(wide) == 0
        only_itself(page)


def test_it_works_by_keyboard_alone():
    exported(block_size=64)
    with opened() as page:

        def focused(selector):
            return page.evaluate(f"document.activeElement.matches({json.dumps(selector)})")

        def tab_to(selector):
            for _ in range(40):
                if focused(selector):
                    return
                page.press("Tab")
            raise AssertionError(f"Tab does not reach {selector}")

        tab_to("#text")
        page.type(" and a dog")
        n = len(tokenizer().encode("Once upon a time and a dog")) + 1
        page.wait(f"document.querySelectorAll('.chip').length === {n}")
        tab_to("#step")
        page.press("Enter")
        page.wait(f"document.querySelectorAll('.chip').length === {n + 1}")
        tab_to("#temperature")
        page.press("Home")
        page.wait("document.querySelector('#kept').textContent.startsWith('1 of')")
        tab_to(".chip")
        page.press("ArrowLeft", "ArrowLeft")
        assert focused(f".chip:nth-child({n - 1})[aria-pressed='true']")
        page.wait("document.querySelector('#next-where').textContent.startsWith(', after')")
        page.press("End")
        tab_to(".head button")
        page.press("ArrowDown", "ArrowRight")
        assert focused("[data-layer='1'][data-head='1'] button[aria-pressed='true']")
        page.wait("document.querySelector('#caption').textContent.startsWith('Block 2, head 2')")
        tab_to("[data-layer='1'][data-head='1'] input")
        page.press(" ")
        page.wait("document.querySelector('.head.off') !== null")
        page.press("Enter", modifiers=CONTROL)
        page.wait("document.querySelector('#write').textContent === 'Stop'")
        page.wait(f"document.querySelectorAll('.chip').length > {n + 3}")
        page.press("Escape")
        page.wait("document.querySelector('#write').textContent === 'Write'")
        only_itself(page)


def test_characters_that_are_unknown_and_texts_that_are_too_long():
    tok = CharTokenizer.train(["Once upon a time the dog and the fox"])
    exported(tok, "--type", "int8", vocab_size=tok.vocab_size)
    with opened() as page:
        fill(page, "the ж")
        page.wait("!document.querySelector('#error').hidden")
        assert "“ж” (U+0436) was not in the text" in text_of(page, "#error")
        fill(page, "the fox and the dog and the fox")  # 31, and 24 are read
        page.wait("document.querySelectorAll('.chip').length === 24")
        assert page.evaluate("document.querySelector('#error').hidden")
        assert "the first 7 are beyond its context" in text_of(page, "#surprise")
        page.click("#next tbody button")
        page.wait("document.querySelector('#text').value.length === 32")
        page.click("#undo")
        page.wait("document.querySelector('#text').value.length === 31")
        only_itself(page)
