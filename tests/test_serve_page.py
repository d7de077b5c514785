"""The page at / in a real Chromium, against a real server, used by mouse and keys."""

import json

import pytest
from browser import CHROMIUM, Browser
from page_tools import (
    CONTROL,
    IDLE,
    MARKUP,
    TOKENS,
    choose,
    contrast,
    fill,
    make_runs,
    opened,
    serving,
    text_of,
    write,
    written,
)

httpx = pytest.importorskip("httpx", reason="pip install httpx")
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="apt-get install chromium: opens the page as a person does"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def server(runs):
    with serving(*runs.values()) as server:
        yield server


def test_it_streams_what_the_api_answers(server):
    """To the character, though a random model writes halves of characters."""
    how = {"temperature": 1.2, "top_k": 60, "seed": 3}
    want = server.ask(
        model="fox", prompt="The quick", max_tokens=150, logprobs=5, return_token_ids=True, **how
    )["choices"][0]
    with opened(server) as page:
        choose(page, **how, count=150)
        page.evaluate(
            "window.sizes = new Set(); new MutationObserver(() => sizes.add("
            "document.querySelectorAll('.tok').length))"
            ".observe(document.querySelector('.out'), {childList: true, subtree: true})"
        )
        write(page, "The quick")
        assert page.evaluate("sizes.size") > 3  # it came bit by bit
        assert text_of(page, ".given") == "The quick"
        assert written(page) == want["text"]
        n = len(want["token_ids"])
        assert page.evaluate(f"{TOKENS}.length") == n
        figure = text_of(page, ".figure")
        assert figure.startswith(f"{n} tokens · first one after ")
        assert " tokens/s · " in figure
        heats = page.evaluate(f"{TOKENS}.map((t) => +t.style.getPropertyValue('--heat'))")
        bits = [-t["logprob"] / 0.6931471805599453 for t in want["logprobs"]["content"]]
        assert heats == pytest.approx([min(1, b / 8) for b in bits], abs=1e-5)
        assert text_of(page, "#said") == want["text"]  # to those who hear the page
        assert not page.problems


def test_a_stop_string_and_an_end_are_not_of_the_text(server):
    how = {"temperature": 0, "top_k": 50}
    whole = server.text(model="fox", prompt="dog", max_tokens=60, **how)
    stop = whole[20:23]
    with opened(server) as page:
        choose(page, temperature=0, count=60, stop=stop)
        write(page, "dog")
        assert written(page) == whole[: whole.index(stop)]
        assert "ended here by itself" in text_of(page, ".figure")
        assert page.evaluate("document.querySelector('.on').hidden")


def test_the_token_that_ends_a_text_is_shown_apart(server):
    ask = {"model": "gnu", "temperature": 2, "max_tokens": 200, "prompt": "dog"}
    for seed in range(40):
        want = server.ask(**ask, seed=seed)["choices"][0]
        if want["finish_reason"] == "stop" and want["text"]:
            break
    with opened(server) as page:
        choose(page, model="gnu", temperature=2, top_k=0, seed=seed, count=200)
        write(page, "dog")
        assert written(page) == want["text"]
        assert page.evaluate(f"{TOKENS}.at(-1).matches('.cut[data-mark]')")
        assert "ended here by itself" in text_of(page, ".figure")


def test_stop_frees_the_server(server):
    with opened(server) as page:
        for stop in (lambda: page.press("Escape"), lambda: page.click(".stop")):
            choose(page, temperature=0, count=2000)
            fill(page, "#prompt", "dog")
            page.click(".go")
            page.wait(f"document.querySelector('.writing') && {TOKENS}.length > 20")
            stop()
            page.wait(IDLE)
            assert text_of(page, ".figure").endswith("stopped")
            n = page.evaluate(f"{TOKENS}.length")
            assert n < 1900
        page.wait("fetch('/metrics').then((a) => a.text())"
                  ".then((t) => t.includes('llm_tiny_running 0'))")  # fmt: skip
        assert page.evaluate(f"{TOKENS}.length") == n


def test_another_token_branches(server):
    """By mouse: over a token, into its card, on another; by ids, as the API would go on."""
    with opened(server) as page:
        choose(page, temperature=0, count=12)
        write(page, "The fox")
        before = page.evaluate(f"{TOKENS}.map((t) => t.textContent)")
        x, y = page.evaluate(
            f"(() => {{ const r = {TOKENS}[4].getClientRects()[0];"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        page.wait("!document.querySelector('#card').hidden")
        rows = "document.querySelectorAll('#card .row')"
        assert page.evaluate(f"{rows}.length") == 5
        assert page.evaluate(f"{rows}[0].classList.contains('drawn')")  # at temperature 0
        page.click("#card .row:nth-of-type(3)")
        page.wait(IDLE + f" && {TOKENS}[4].classList.contains('chosen')")
        asked = {"model": "fox", "temperature": 0, "top_k": 50, "return_token_ids": True}
        first = server.ask(prompt="The fox", max_tokens=12, logprobs=5, **asked)["choices"][0]
        other = first["logprobs"]["content"][4]["top_logprobs"][2]["id"]
        ids = [*first["prompt_token_ids"], *first["token_ids"][:4], other]
        rest = server.ask(prompt=ids, max_tokens=12, **asked)["choices"][0]
        kept = page.evaluate("JSON.parse(localStorage['llm-tiny.history'])")
        assert [t["id"] for t in kept[0]["panes"][0]["written"]["tokens"]] == [
            *first["token_ids"][:4], other, *rest["token_ids"]]  # fmt: skip
        assert page.evaluate(f"{TOKENS}.map((t) => t.textContent)")[:4] == before[:4]
        assert len(kept) == 2  # the text before is not lost
        page.click(".on")
        page.wait(IDLE + f" && {TOKENS}.length === 29")
        assert not page.problems


def test_a_reload_loses_nothing(server):
    with opened(server) as page:
        choose(page, model="gnu", temperature=0.7, seed=5, count=9)
        for prompt in "the dog", "the fox":
            write(page, prompt)
        text = written(page)
        page.call("Page.reload")
        page.wait("document.querySelector('.go')?.disabled === false")
        assert (written(page), text_of(page, ".given")) == (text, "the fox")
        assert page.evaluate("document.querySelectorAll('.entry').length") == 2
        page.click("li:nth-child(2) .entry")
        assert page.evaluate("document.querySelector('#prompt').value") == "the dog"
        assert page.evaluate("document.querySelector('select').value") == "gnu"
        assert page.evaluate("document.querySelector(\"[id$='-seed']\").value") == "5"
        assert page.evaluate("document.querySelector(\"[id$='-temperature']\").value") == "0.7"
        page.click("#clear")
        assert page.evaluate("document.querySelectorAll('.entry').length") == 2  # it asks
        page.click("#clear")
        assert page.evaluate("document.querySelectorAll('.entry').length") == 0
        page.call("Page.reload")
        page.wait("document.querySelector('.go')?.disabled === false")
        assert page.evaluate("document.querySelectorAll('.entry').length") == 0


def test_what_another_version_kept_does_no_harm(server):
    with opened(server) as page:
        kept = '[{"id": 1, "panes": [{"written": {"tokens": [{"id": 3}]}}]}, 7, null]'
        kept = kept[:-1] + ', {"id": 2, "at": 1, "title": "a", "panes": [null]}'
        kept += ', {"id": 3, "at": "x", "title": "a", "panes": [{"model": "m"}]}]'
        page.evaluate(f"localStorage['llm-tiny.history'] = {json.dumps(kept)}")
        page.evaluate("localStorage['llm-tiny.page'] = '{\"entry\": 1, \"setups\": 3}'")
        page.call("Page.reload")
        page.wait("document.querySelector('.go')?.disabled === false")
        write(page, "a")
        page.evaluate("localStorage['llm-tiny.history'] = '{'")
        write(page, "a")
        assert page.evaluate("document.querySelectorAll('.entry').length") == 1


def test_a_narrow_screen_does_not_scroll_sideways(server):
    with opened(server, width=360, height=740) as page:
        page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        for mode in "write", "chat":
            page.click(f"[name=mode][value={mode}]")
            page.click("#compare")
            if mode == "write":
                write(page, "The quick brown fox " * 9)
            page.evaluate(f"{TOKENS}.at(-1)?.focus()")
            assert page.evaluate("document.documentElement.scrollWidth") == 360
            parts = "[...document.querySelectorAll('button, input, textarea, p, .card, #card')]"
            wide = f"{parts}.filter((e) => e.getBoundingClientRect().right > 360).length"
            assert page.evaluate(wide) == 0
        assert not page.problems


def test_it_works_by_keyboard_alone(server):
    with opened(server) as page:

        def focused(selector):
            return page.evaluate(f"document.activeElement.matches({json.dumps(selector)})")

        def tab_to(selector):
            for _ in range(40):
                if focused(selector):
                    return
                page.press("Tab")
            raise AssertionError(f"Tab does not reach {selector}")

        tab_to("#prompt")
        page.press("End")
        page.type(" there was")
        tab_to("[id$='-temperature']")
        page.press("Home")
        page.press("Enter", modifiers=CONTROL)
        page.wait(IDLE + f" && {TOKENS}.length > 9")
        page.evaluate("document.querySelector('#prompt').focus()")
        tab_to(".tok")
        page.press("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft")
        assert page.evaluate(f"{TOKENS}.indexOf(document.activeElement)") == 2
        assert not page.evaluate("document.querySelector('#card').hidden")
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) == "solid"
        page.press("Enter", "ArrowDown", "ArrowDown", "ArrowUp")
        assert page.evaluate("document.activeElement.matches('#card .row:nth-of-type(2)')")
        page.press("Escape")
        assert page.evaluate(f"{TOKENS}.indexOf(document.activeElement)") == 2
        page.press("Enter", "ArrowDown", "Enter")
        page.wait(IDLE + f" && {TOKENS}[2].classList.contains('chosen')")
        assert page.evaluate(f"{TOKENS}.indexOf(document.activeElement)") == 2
        tab_to(".on")
        n = page.evaluate(f"{TOKENS}.length")
        page.press("Enter")
        page.wait(IDLE + f" && {TOKENS}.length > {n}")
        tab_to(".entry")
        page.press("Enter")
        unnamed = """[...document.querySelectorAll('input, textarea, select')]
          .filter((e) => !e.labels.length).length"""
        assert page.evaluate(unnamed) == 0
        assert not page.problems


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_are_legible(server, dark):
    """Text, soft text and errors on a card: at least 4.5, WCAG's level AA."""
    with opened(server) as page:
        page.dark(dark)
        style = "getComputedStyle(document.querySelector({!r})).{}"
        card = page.evaluate(style.format(".card", "backgroundColor"))
        for selector in "#prompt", ".hint", ".error", ".main":
            colour = page.evaluate(style.format(selector, "color"))
            behind = page.evaluate(style.format(selector, "backgroundColor"))
            behind = card if behind == "rgba(0, 0, 0, 0)" else behind
            assert contrast(colour, behind) >= 4.5, (selector, colour, behind)
        assert (contrast(card, "rgb(0, 0, 0)") < 3) == dark


def test_html_that_a_model_writes_stays_text(server):
    with opened(server) as page:
        choose(page, model="evil", temperature=0.7, count=12)
        page.click("#token-view summary")
        write(page, MARKUP[0])
        texts = page.evaluate(f"{TOKENS}.map((t) => t.textContent)")
        assert set(texts) <= set(MARKUP)
        page.evaluate(f"{TOKENS}[3].focus()")
        assert text_of(page, "#card .token") == texts[3].replace(" ", "·")
        page.wait("document.querySelectorAll('#prompt-tokens li').length > 3")
        page.click("[name=mode][value=chat]")
        fill(page, "#message", MARKUP[0])
        page.press("Enter")
        page.wait(IDLE)
        assert text_of(page, ".user .says") == MARKUP[0]
        page.call("Page.reload")  # and from the history
        page.wait("document.querySelectorAll('.entry').length === 2")
        assert text_of(page, ".entry").startswith(MARKUP[0])
        made = "document.querySelectorAll('main img, main script, #card img, #said img').length"
        assert page.evaluate(made) == 0
        assert page.evaluate("window.ran") is None
        assert not page.problems
        run = "(() => { const s = document.createElement('script'); s.textContent = 'ran = 1';"
        run += "document.body.append(s); document.body.innerHTML += '<img src=x onerror=ran=1>';"
        page.evaluate(run + "})()")
        page.wait("document.querySelector('body > img')?.complete")
        assert page.evaluate("window.ran") is None  # and if it did not: the policy
        assert any("Content Security Policy" in problem for problem in page.problems)
        fetched = "fetch('https://example.com/').then(() => 'fetched', () => 'refused')"
        assert page.evaluate(fetched) == "refused"
        page.requests = [url for url in page.requests if url != "https://example.com/"]


def test_tokens_of_the_prompt(server):
    text = "dog 🦊\n<|end|>"
    want = server.ask("/tokenize", prompt=text, model="fox")
    with opened(server) as page:
        page.click("#token-view summary")
        fill(page, "#prompt", text)
        page.wait(
            f"document.querySelector('#token-count').textContent.startsWith('{want['count']} ')"
        )
        tiles = page.evaluate(
            "[...document.querySelectorAll('#prompt-tokens li')]"
            ".map((li) => [...li.children].map((e) => e.textContent))"
        )
        assert [(int(i), bytes.fromhex(b)) for _, i, b in tiles] == [
            (p["id"], bytes(p["bytes"])) for p in want["pieces"]
        ]
        assert tiles[1][0] == want["pieces"][1]["token"]


def test_a_conversation(server):
    ask = {"model": "fox", "temperature": 0, "top_k": 50, "max_tokens": 8}
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the dog?"}]
    answers = []
    for message in "and the fox?", None:
        answer = server.ask("/v1/chat/completions", messages=talk, **ask)["choices"][0]["message"]
        answers.append(answer["content"])
        talk += [{"role": "assistant", "content": answer["content"]}]
        talk += [{"role": "user", "content": message}]
    with opened(server) as page:
        page.click("[name=mode][value=chat]")
        choose(page, model="plain")
        assert "it has no chat template" in text_of(page, ".out")
        assert page.evaluate("document.querySelector('#chat-composer .go').disabled")
        choose(page, model="fox", temperature=0, count=8)
        page.click("#system-box summary")
        fill(page, "#system", "Be brief.")
        for message in "the dog?", "and the fox?":
            fill(page, "#message", message)
            page.press("Enter")
            page.wait(IDLE)
        said = page.evaluate("[...document.querySelectorAll('.says')].map((e) => e.textContent)")
        assert said == ["the dog?", answers[0], "and the fox?", answers[1]]
        page.evaluate("document.querySelectorAll('.turn:nth-child(2) .tok')[3].focus()")
        page.press("Enter", "ArrowDown", "Enter")  # another answer, from its fourth token on
        page.wait(IDLE + " && document.querySelectorAll('.turn').length === 2")
        page.wait(f"{TOKENS}[3].classList.contains('chosen')")
        fill(page, "#message", "why?")
        page.press("Enter")
        page.wait(IDLE + " && document.querySelectorAll('.turn').length === 4")
        page.call("Page.reload")
        page.wait("document.querySelectorAll('.turn').length === 4")
        page.wait("!document.querySelector('#chat-composer .go').disabled")
        choose(page, temperature=0, count=1500)
        fill(page, "#message", "and then?")
        page.press("Enter")
        page.wait("document.querySelectorAll('.turn').length === 6")
        page.click("#new-chat")  # in the middle of an answer
        page.wait(IDLE)
        assert page.evaluate("document.querySelectorAll('.turn').length") == 0
        assert not page.problems


def test_two_stand_side_by_side(server):
    """Two models, and two settings of one, on the same prompt."""
    panes = "[...document.querySelectorAll('.pane')].map((p) => [...p.querySelectorAll('.tok')]"
    panes += ".map((t) => t.textContent).join(''))"
    how = {"prompt": "the fox", "max_tokens": 20, "top_k": 50}
    with opened(server) as page:
        choose(page, temperature=0, count=20)
        page.click("#compare")
        models = page.evaluate("[...document.querySelectorAll('.pane select')].map((s) => s.value)")
        assert models == ["fox", "gnu"]
        write(page, "the fox")
        assert page.evaluate(panes) == [
            server.text(model=model, temperature=0, **how) for model in models
        ]
        choose(page, 2, model="fox", temperature=1.5, seed=8)
        write(page, "the fox")
        hot = server.text(model="fox", temperature=1.5, seed=8, **how)
        assert page.evaluate(panes)[1] == hot
        xs = page.evaluate("[...document.querySelectorAll('.pane .work')].map((p) => p.offsetTop)")
        assert xs[0] == xs[1]
        page.call("Page.reload")
        page.wait("document.querySelectorAll('.pane:not([hidden])').length === 2")
        assert page.evaluate(panes)[1] == hot
        assert not page.problems


def test_what_there_is_no_room_for(server):
    with opened(server) as page:
        choose(page, model="plain", temperature=0, count=500)
        write(page, "the cat")
        assert "all 64 tokens that it reads are used" in text_of(page, ".figure")
        fill(page, "#prompt", "the cat sat " * 99)
        page.click(".go")
        page.wait("!document.querySelector('.work .error').hidden")
        assert "fill all that the model reads (64)" in text_of(page, ".work .error")
        page.click("[name=mode][value=chat]")
        choose(page, model="evil")  # says nothing but HTML, and that for ever
        fill(page, "#message", "the dog?")
        page.press("Enter")
        page.wait(IDLE + " && document.querySelectorAll('.turn').length === 2")
        assert "all 160 tokens that it reads are used" in text_of(page, ".figure")


@pytest.mark.slow
def test_the_server_goes_and_comes_back(runs):
    with serving(runs["fox"]) as server, opened(server) as page:
        choose(page, temperature=0, count=2000)
        fill(page, "#prompt", "dog")
        page.click(".go")
        page.wait(f"{TOKENS}.length > 5")
        server.kill()
        page.wait("!document.querySelector('#away').hidden")
        assert "The connection broke off" in text_of(page, ".work .error")
        assert f"--run fox --port {server.port}" in text_of(page, "#away")
        page.wait(IDLE)
        assert text_of(page, ".figure").endswith("broken off")
        n = page.evaluate(f"{TOKENS}.length")
        page.click(".go")
        page.wait("document.querySelector('.work .error').textContent.includes('does not answer')")
        assert page.evaluate(f"{TOKENS}.length") == n  # what came is kept
        with serving(runs["fox"], port=server.port):
            page.wait("document.querySelector('#away').hidden")
            choose(page, count=7)
            page.click(".on")
            page.wait(IDLE + f" && {TOKENS}.length === {n + 7}")


@pytest.mark.slow
def test_a_key_and_a_busy_server(runs):
    flags = ["--api-key", "open sesame", "--rows", "1", "--queue", "0"]
    with serving(runs["fox"], flags=flags) as server, Browser(server.url) as page:
        page.wait("document.querySelector('#key-form')?.hidden === false")
        for key in "sesame", "open sesame":
            fill(page, "#key", key)
            page.press("Enter")
            if key == "sesame":
                page.wait("!document.querySelector('#key-error').hidden")
        page.wait("document.querySelector('.go').disabled === false")
        assert page.evaluate("document.querySelector('#key-form').hidden")
        assert page.evaluate("Object.values(localStorage).join().includes('sesame')") is False
        body = {
            "model": "fox",
            "prompt": "dog",
            "max_tokens": 2000,
            "stream": True,
            "temperature": 0,
        }
        headers = {"Authorization": "Bearer open sesame"}
        url = server.url + "/v1/completions"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=30) as other:
            lines = other.iter_lines()  # a generator that is dropped closes its stream
            next(lines)
            page.click(".go")
            page.wait("!document.querySelector('.work .error').hidden")
        assert "The server is busy" in text_of(page, ".work .error")
        assert "Try again in 1 s" in text_of(page, ".work .error")
        page.call("Page.reload")  # the tab keeps its key
        page.wait("document.querySelector('.go')?.disabled === false")
        write(page, "dog")
