"""What the tests of exported pages share: models of every flag, node to run their scripts."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from model import GPTConfig, TinyGPT
from tok import BPETokenizer
from utils.hub.importer import write_run
from utils.hub.pretrained import Pretrained
from utils.hub.sources import Found

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(not NODE, reason="apt-get install nodejs: runs the page's scripts")
BASE = {"vocab_size": 300, "block_size": 24, "n_layer": 2, "n_head": 4, "d_model": 32}
ORIGINAL = "original_max_position_embeddings=8"
LLAMA = {"pos": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False, "tie_weights": False}
LLAMA |= {"n_kv_head": 2, "rope_theta": 5e4, "norm_eps": 1e-6, "d_ff": 40}
# fmt: off
CONFIGS = {  # together: every choice of every setting
    "gpt2": {"mlp": "gelu_tanh"},
    "default": {"dropout": 0.1, "attn_dropout": 0.1, "attn": "naive"},
    "no bias": {"bias": False, "attn": "sdpa"},
    "llama": LLAMA,
    "fewer heads": {**LLAMA, "n_head": 2, "n_kv_head": 1, "head_dim": 8},
    "linear": {**LLAMA, "rope_scaling": "linear factor=2"},
    "ntk": {**LLAMA, "rope_scaling": f"ntk factor=2 {ORIGINAL}"},
    "yarn": {**LLAMA, "rope_scaling": f"yarn factor=4 {ORIGINAL}"},
    "llama3": {
        **LLAMA,
        "rope_scaling": f"llama3 factor=8 low_freq_factor=1 high_freq_factor=4 {ORIGINAL}",
    },
    "attention is all you need": {"pos": "sinusoidal", "norm_at": "post", "mlp": "relu"},
    "speedrun": {
        "pos": "rope", "mlp": "relu2", "qk_norm": True, "zero_init": True, "emb_std": 0.1,
        "emb_conv": 3, "tie_weights": False, "bias": False,
    },
    "slides": {"pos": "rope", "window": 5, "n_kv_head": 1, "mlp": "geglu", "emb_conv": 2},
    "no positions": {"pos": "none", "window": 6, "norm": "rmsnorm", "qk_norm": True},
    "window": {"pos": "learned", "window": 7, "norm_at": "post", "norm": "rmsnorm"},
    "odd": {"d_model": 20, "n_layer": 3, "d_ff": 33},  # rows that four does not divide
    "spare rows": {
        "vocab_size": 320, "pos": "rope", "window": 5, "rope_scaling": "linear factor=3",
    },
}
# fmt: on


def tokenizer():
    """A BPE of 300 tokens with hostile special tokens."""
    special = ["<|endoftext|>", "</script><script>alert(1)</script>", "<!--"]
    text = "the dog and the fox, the fox and the dog; naïve 漢字 </script> <!-- it's 12 345 "
    return BPETokenizer.train([text * 5], 300, special_tokens=special)


def model(seed=0, **change):
    """A model whose weights are all random, far from their start."""
    torch.manual_seed(seed)
    built = TinyGPT(GPTConfig(**{**BASE, **change})).eval()
    with torch.no_grad():
        for p in built.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return built


def make_run(path, built, tok):
    """A run that holds a model and a tokenizer."""
    write_run(Path(path), Found(built.config, built.state_dict(), tok, Pretrained("here")))


class Scripts(HTMLParser):
    """The script elements of a page by their id, and the others in a list."""

    def __init__(self, text):
        super().__init__()
        self.named, self.plain, self.into = {}, [], None
        self.policy = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "script":
            self.into = attributes.get("id", "")
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]

    def handle_endtag(self, tag):
        self.into = None

    def handle_data(self, data):
        if self.into:
            self.named[self.into] = self.named.get(self.into, "") + data
        elif self.into == "":
            self.plain.append(data)


def scripts_of(path):
    """The scripts of a page."""
    return Scripts(Path(path).read_text(encoding="utf-8"))


def node(source, given=None):
    """What a script gives back: `source` is the body of an async function of `given`."""
    wrapped = f"""
const postMessage = () => {{}};
let onmessage;
{source[0]}
(async (given) => {{ {source[1]} }})(JSON.parse(require("fs").readFileSync(0, "utf-8"))).then(
  (value) => console.log(JSON.stringify(value, (_, v) =>
    ArrayBuffer.isView(v) ? Array.from(v) : v)));
"""
    Path("run.js").write_text(wrapped, encoding="utf-8")
    done = subprocess.run(
        [NODE, "run.js"], input=json.dumps(given), capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def worker(path, body, given=None):
    """Run a page's worker in node: `body` sees `model`, `answers` and `ask(name, arguments)`."""
    page = scripts_of(path)
    opened = f"""
const header = {page.named["header"]};
answers.open({{ header, weights: "{page.named["weights"]}" }});
const ask = (name, more = {{}}) => answers[name]({{ id: 0, ...more }});
{body}"""
    return node((page.named["worker"], opened), given)


def with_tokenizer(path, body, given=None):
    """Run a page's tokenizer in node: `body` sees `tokenizer`."""
    page = scripts_of(path)
    made = f"const tokenizer = makeTokenizer(({page.named['header']}).tokenizer);\n{body}"
    return node((page.plain[0], made), given)
