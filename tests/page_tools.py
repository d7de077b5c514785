"""What the tests of the served page share: servers, models, a page to type and click in."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import hub_models
import pytest
import torch
from browser import Browser
from conftest import TOY, make_text

from tok import BPETokenizer
from utils.hub.importer import write_run
from utils.hub.pretrained import Pretrained
from utils.hub.sources import Found

pytest.importorskip("fastapi", reason="pip install 'llm-tiny[serve]'")
httpx = pytest.importorskip("httpx", reason="pip install httpx")
ROOT = Path(__file__).parent.parent
CONTROL = 2
TOKENS = "[...document.querySelectorAll('.pane:not([hidden]) .tok')]"
IDLE = "document.querySelector('.stop').disabled && !document.querySelector('.go').disabled"
MARKUP = ["<img src=x onerror=ran=1>", "<script>ran=1</script>"]


class Server:
    """`python -m utils.serve`, in a process of its own."""

    def __init__(self, *runs, port=0, flags=()):
        command = [sys.executable, "-m", "utils.serve", "--run", *map(str, runs), "--device", "cpu"]
        command += ["--port", str(port), "--grace", "0.2", *flags]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env, encoding="utf-8")
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://")
        self.port = int(self.url.rpartition(":")[2])

    def ask(self, path="/v1/completions", **body):
        """What the API answers."""
        answer = httpx.post(self.url + path, json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def text(self, **body):
        return self.ask(**body)["choices"][0]["text"]

    def running(self):
        """How many texts are being written."""
        text = httpx.get(self.url + "/metrics").text
        return float(text.split("\nllm_tiny_running ")[1].split()[0])

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def serving(*runs, **how):
    server = Server(*runs, **how)
    try:
        yield server
    finally:
        server.kill()


def save(path, built, tok):
    origin = Pretrained("here", "mit", "llama", "<|start|>", "<|end|>", hub_models.TEMPLATE)
    write_run(path, Found(built.config, built.state_dict(), tok, origin))


def endless(path):
    """A random model that says no special token where the likeliest is taken."""
    built, tok = hub_models.model("llama", block_size=2048), hub_models.tokenizer()
    with torch.no_grad():
        built.head.weight[list(tok.special_tokens.values())] = 0
    save(path, built, tok)


def evil(path):
    """A model that knows two tokens of HTML; it always says one of them."""
    special = ["<|endoftext|>", "<|start|>", "<|end|>", *MARKUP]
    tok = BPETokenizer.train([hub_models.TEXT], 290, special_tokens=special)
    built = hub_models.model("llama", block_size=160)
    one, other = (tok.special_tokens[text] for text in MARKUP)
    with torch.no_grad():
        built.head.weight[one] = 99 * torch.randn(64)
        built.head.weight[other] = -built.head.weight[one]
    save(path, built, tok)


def make_runs(folder):
    """`fox`, `gnu` and `evil`, random models that can chat, and `plain`, trained for 6 steps."""
    import train

    endless(folder / "fox")
    hub_models.make_run(folder / "gnu", "gpt2", seed=1, block_size=256)
    evil(folder / "evil")
    (folder / "plain.txt").write_text(make_text(), encoding="utf-8")
    flags = ["--data", "plain.txt", "--steps", "6", "--eval_every", "6", *TOY]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("data.hashes.CACHE", folder / "cache")
        assert train.main([*flags, "--block_size", "64"]) == 0
    names = {"fox": "fox", "gnu": "gnu", "evil": "evil", "plain": "runs/plain"}
    return {name: folder / path for name, path in names.items()}


@contextmanager
def opened(server, **size):
    """The page, once it knows what is served; in the end nothing has left the server."""
    with Browser(server.url, **size) as page:
        page.wait("document.querySelector('.go')?.disabled === false")
        yield page
        assert all(url.startswith(server.url) for url in page.requests)


def text_of(page, selector):
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def written(page):
    """The text that was written, without the marks of the style sheet."""
    return page.evaluate(f"{TOKENS}.map((t) => t.textContent).join('')")


def fill(page, selector, text):
    """Replace a text, as by selecting all and typing."""
    page.click(selector)
    page.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
    page.type(text)


def choose(page, pane=1, **values):
    """Set a pane's model and settings."""
    for name, value in values.items():
        place = "select" if name == "model" else f"[id$='-{name}']"
        page.evaluate(
            f'(() => {{ const e = document.querySelector(".pane:nth-child({pane}) {place}");'
            f"e.value = {json.dumps(value)};"
            "for (const kind of ['input', 'change'])"
            "e.dispatchEvent(new Event(kind, { bubbles: true })); })()"
        )


def write(page, prompt):
    """Let it write after a prompt, to the end."""
    fill(page, "#prompt", prompt)
    page.press("Enter", modifiers=CONTROL)
    page.wait(IDLE + " && document.querySelector('.figure').textContent !== ''")


def contrast(a, b):
    """WCAG's contrast of two colours "rgb(1, 2, 3)"."""

    def light(colour):
        parts = [int(c) / 255 for c in colour[4:-1].split(",")]
        r, g, b = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    dark, bright = sorted((light(a), light(b)))
    return (bright + 0.05) / (dark + 0.05)
