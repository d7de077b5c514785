"""The model card of an exported run: what it learnt from, how well, and how to load it."""

import json
from pathlib import Path
from typing import Any

from model import BertConfig, GPTConfig, TinyGPT
from utils.hub.pretrained import Pretrained
from utils.reporting.summary import commit

SHOWN: tuple[str, ...] = (
    "optimizer",
    "lr",
    "schedule",
    "steps",
    "batch_size",
    "accum",
    "block_size",
    "dropout",
)
SHOWN += ("seed", "dtype", "init", "lora")


def read(path: Path) -> dict[str, Any]:
    """A JSON object, or nothing where there is no file. ValueError if it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {**found}
    except (ValueError, TypeError) as e:
        raise ValueError(f"{path} is damaged ({e}); remove it") from None


def loader(config: GPTConfig) -> tuple[str, str]:
    """(transformers' class that loads a model, what hubs say that it does)."""
    if not isinstance(config, BertConfig):
        return "AutoModelForCausalLM", "text-generation"
    if config.classes:
        return "AutoModelForSequenceClassification", "text-classification"
    return "AutoModelForPreTraining", "fill-mask"


def model_card(
    run: Path, name: str, model: TinyGPT, origin: Pretrained, checkpoint: dict[str, Any]
) -> str:
    """The README.md of an export, with the front matter that hubs read."""
    c, data, settings = model.config, checkpoint["data"], checkpoint["settings"]
    summary, scores = read(run / "summary.json"), read(run / "eval.json")
    if scores.get("step") != checkpoint["step"]:  # of another checkpoint
        scores = {}
    license = [f"license: {origin.license}"] if origin.license else []
    auto, task = loader(c)
    front = ["---", *license, f"pipeline_tag: {task}", "library_name: transformers", "---"]
    shape = f"{c.n_layer} blocks, {c.n_head} heads, width {c.d_model}, context {c.block_size:,}"
    lines = [*front, "", f"# {name}", ""]
    what = "BERT" if isinstance(c, BertConfig) else "language model"
    lines += [f"A {what} of {model.n_params():,} parameters ({shape}), written by llm-tiny."]
    if origin.source != run.name:
        lines += ["", f"It started from {origin.source}."]
    if "train_tokens" in data:
        n, held = data["train_tokens"], data["val_tokens"]
        text = f"{data['name'] or 'one text'}: {n:,} tokens to train on, {held:,} to validate on"
        lines += ["", "## Data", "", f"{text} (SHA-256 of the text: `{data['text_sha256']}`)."]
    if checkpoint["step"]:
        lines += ["", "## Training", "", "| setting | value |", "| --- | --- |"]
        lines += [f"| {k} | {settings[k]} |" for k in SHOWN if settings.get(k) not in ("", 0, None)]
        lines += ["", f"Step {checkpoint['step']:,} of the run `{run.name}`."]
    if scores:
        lines += ["", "## Scores", "", "| | loss (nats) | perplexity | bits per byte |"]
        lines += ["| --- | --- | --- | --- |"]
        rows = {k: v for k, v in scores.items() if isinstance(v, dict)}
        try:
            for row, v in rows.items():
                bits = f"{v['bits_per_byte']:.4f}" if "bits_per_byte" in v else ""  # masked tokens
                numbers = f"{v['val_loss']:.4f} | {v['ppl']:.2f} | {bits}"
                lines += [f"| {row} | {numbers} |"]
        except (KeyError, TypeError, ValueError) as e:
            raise ValueError(f"{run / 'eval.json'} is damaged ({e}); run eval.py again") from None
        lines += ["", f"On the validation split of {scores.get('text', 'its text')}."]
    elif checkpoint["step"]:
        lines += ["", f"Best validation loss {checkpoint['best_val_loss']:.4f} nats a token."]
    made = summary.get("commit") or commit()["commit"]
    lines += ["", "## Use", "", "```python", f"from transformers import {auto}"]
    lines += ["from transformers import AutoTokenizer", ""]
    lines += [f'tokenizer = AutoTokenizer.from_pretrained("{name}")']
    lines += [f'model = {auto}.from_pretrained("{name}")', "```", ""]
    lines += [f"Made from commit {made} of llm-tiny." if made else "Made by llm-tiny.", ""]
    return "\n".join(lines)
