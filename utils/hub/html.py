"""A run as one HTML file that runs its model in a browser: no server, no network.

The page is the files of utils/hub/page, put together. It holds one JSON object (`header`: config,
table of tensors, tokenizer, what to check) and one base64 text, the weights. Matrices are float16,
int8 with a float32 scale for each row, or int4 with a scale and a zero for 32; vectors are float32.
"""

import base64
import hashlib
import html
import json
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import regex
import torch

from data.store import end_id
from model import GPTConfig, TinyGPT, generate
from model.adapt.quant import count
from model.rope_scaling import scaled_frequencies
from tok import BPETokenizer, CharTokenizer, Tokenizer
from tok.bpe.merges import MergeTable
from tok.files import replacing
from utils.hub.exporter import megabytes, named
from utils.hub.packed import TYPES, own_state, packed
from utils.training.models import assembled, in_floats, load_model
from utils.writing.defaults import SAMPLING
from utils.writing.text import start_ids

LARGEST = 12_000_000  # parameters: 24 MB in float16, and a second for 50 tokens of a prompt
PAGE = Path(__file__).parent / "page"
PARTS = ("style.css", "tokenizer.js", "draw.js", "show.js", "ui.js")
WORKER = ("weights.js", "model.js", "sampling.js", "worker.js")
CLASSES = {"letters": r"\p{L}", "digits": r"\p{N}", "spaces": r"\s"}
SPLITS = ("gpt2", "gpt2_digits", "gpt4", "llama3", "none")  # that tokenizer.js can do
CHECKED = 24  # tokens that the page computes again when it is opened
PROMPT = "Once upon a time"  # what stands in the text box at first
DIGITS = 7  # of the logits that it then compares


def export_html(run: Path, path: Path, dtype: str = "F16", which: str = "best") -> None:
    """Write a run's page to `path`, whole or not at all, and say what was written.

    Raises ValueError for a model that is too large, or what a page can't say.
    """
    model, tokenizer, checkpoint = load_model(run, which)
    if (kind := checkpoint.get("kind", "gpt")) != "gpt":
        raise ValueError(f"{run} is a model of kind {kind}; a page can run kind gpt only")
    if model.config.experts:
        raise ValueError(f"experts={model.config.experts}: a page has no router; train without")
    if (n := count(model)) > LARGEST:
        cure = "train a smaller one, or take --to gguf"
        raise ValueError(f"{run} has {n:,} parameters, a page at most {LARGEST:,}; {cure}")
    if path.exists():
        raise ValueError(f"{path} exists; choose another, or remove it")
    text, gap = page(run.name, in_floats(model).eval(), tokenizer, checkpoint, dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    with named(path), replacing(path) as part:
        Path(part).write_text(text, encoding="utf-8", newline="\n")
    rounding = f"{TYPES[dtype]} moves a logit by {gap:.1g} at most"
    print(f"{path}: {megabytes(path)}, open it in a browser; {rounding} (of {CHECKED} tokens)")


def page(
    name: str, model: TinyGPT, tokenizer: Tokenizer, checkpoint: dict[str, Any], dtype: str
) -> tuple[str, float]:
    """The text of the page, and how far rounding moves a logit of the tokens that it checks."""
    config = model.config
    end = end_id(checkpoint["data"], tokenizer)
    start = start_ids(tokenizer, "", end)
    table, data, state = packed(own_state(model), TYPES[dtype])
    rounded = assembled("gpt", config, state).eval()
    ids, logits, gap = checked(model, rounded, start, tokenizer.vocab_size)
    known = min(tokenizer.vocab_size, config.vocab_size)
    header = {
        "config": {**asdict(config), "slides": config.slides},
        "rope": waves(config),
        "tensors": table,
        "tokenizer": tokenizer_data(tokenizer),
        "known": known,
        "start": start,
        "end": end,
        "text": first_text(tokenizer),
        "sampling": SAMPLING,
        "check": {"ids": ids, "logits": logits},
        "facts": {**facts(name, model, checkpoint), "type": TYPES[dtype]},
    }
    return put_together(name, header, base64.b64encode(data).decode()), gap


@torch.no_grad()
def checked(
    model: TinyGPT, rounded: TinyGPT, start: list[int], known: int
) -> tuple[list[int], list[float], float]:
    """A text of the model's own, the rounded one's last logits, and how far rounding moved them."""
    n = min(CHECKED, model.config.block_size) - len(start)
    known = min(known, model.config.vocab_size)
    ids = start + [int(i) for i in generate(model, [start], n, seed=0, vocab_size=known)]
    x = torch.tensor([ids])
    logits, exact = rounded(x)[0][0], model(x)[0][0]
    last = [float(f"{z:.{DIGITS}g}") for z in logits[-1].tolist()]
    return ids, last, float((logits - exact).abs().max())


def first_text(tokenizer: Tokenizer) -> str:
    """PROMPT, or nothing where the tokenizer lacks one of its characters."""
    try:
        tokenizer.encode(PROMPT)
    except ValueError:
        return ""
    return PROMPT


def waves(config: GPTConfig) -> dict[str, Any]:
    """Frequencies in radians a position, and what cosines and sines are times (`rope_table`)."""
    if config.pos == "rope":
        D, theta, scaling, T = config.rope
    else:
        D, theta, scaling, T = config.d_model, 10000.0, "", 0
    frequency, size = scaled_frequencies(torch.arange(0, D, 2) / D, theta, scaling, T)
    return {"frequencies": frequency.tolist(), "size": size}


def tokenizer_data(tokenizer: Tokenizer) -> dict[str, Any]:
    """What tokenizer.js makes a tokenizer of. ValueError for a pattern that it lacks."""
    special = list(tokenizer.special_tokens.items())
    if isinstance(tokenizer, CharTokenizer):
        return {"kind": "char", "chars": tokenizer.chars, "special": special}
    if not isinstance(tokenizer, BPETokenizer):
        raise ValueError(f"a page has no {type(tokenizer).__name__}; train with bpe or char")
    if tokenizer.pattern not in SPLITS:
        known = ", ".join(SPLITS)
        raise ValueError(f"a page can't split words by {tokenizer.pattern!r}; known: {known}")
    table = MergeTable(tokenizer.merges)
    ids = {token: i for i, token in tokenizer.vocab.items()}
    rows = zip(table.pair, table.made, strict=True)
    numbers = [[ord(pair[0]), ord(pair[1]), ord(made)] for pair, made in rows]
    own = {token: ids.get(text.encode("latin-1")) for text, token in table.char.items()}
    return {
        "kind": "bpe",
        "pattern": tokenizer.pattern,
        "classes": {
            "letters": ranges(r"\p{L}"),
            "digits": ranges(r"\p{N}"),
            "spaces": ranges(r"\s"),
        },
        "merges": numbers,
        "ids": [own.get(chr(i)) for i in range(256 + len(numbers))],
        "special": special,
    }


@cache
def ranges(expression: str) -> list[int]:
    """First, last, first, last, ... of the characters that an expression matches."""
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    found = (m[0] for m in regex.finditer(f"(?:{expression})+", text))
    return [ord(c) for run in found for c in (run[0], run[-1])]


def facts(name: str, model: TinyGPT, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What the page says of the run."""
    loss = checkpoint["best_val_loss"] if checkpoint["step"] else None
    text = checkpoint["data"].get("name")
    return {"name": name, "params": model.n_params(), "text": text, "val_loss": loss}


def source_of(text: str) -> str:
    """What a Content-Security-Policy says to let exactly this text run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def put_together(name: str, header: dict[str, Any], weights: str) -> str:
    """The page: each <!--NAME--> of page.html is replaced by the file, the data or the policy."""
    text = {part: (PAGE / part).read_text(encoding="utf-8") for part in PARTS}
    text["worker.js"] = "".join((PAGE / part).read_text(encoding="utf-8") for part in WORKER)
    hashes = {
        part: base64.b64encode(hashlib.sha256(text[part].encode()).digest()) for part in PARTS
    }
    allowed = {part: f"'sha256-{hashes[part].decode()}'" for part in PARTS}
    scripts = " ".join(allowed[part] for part in PARTS[1:])
    policy = f"default-src 'none'; script-src {scripts}; style-src {allowed['style.css']}; "
    policy += "worker-src blob:; connect-src 'none'; base-uri 'none'; form-action 'none'"
    text["policy"], text["title"], text["weights"] = policy, html.escape(name), weights
    # a `<` in a vocabulary must not end the script that the JSON stands in
    text["header"] = json.dumps(header, separators=(",", ":")).replace("<", "\\u003c")
    template = (PAGE / "page.html").read_text(encoding="utf-8")
    return re.sub("<!--([a-z.]+)-->", lambda m: text[m[1]], template)
