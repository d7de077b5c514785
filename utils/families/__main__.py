"""GPT-2, LLaMA and BERT side by side: one size, one text, equal compute, several seeds.

python -m utils.families                          # 28 trainings: half an hour of one core
python -m utils.families --flops 1e11 --seeds 1 --only llama modern
python -m utils.families --optimizer muon

Each family's learning rate is searched with one seed, then it is trained with more. Runs lie in
runs/families; started again, it goes on where it stopped.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any

from tok.cli import Parser, run
from tok.files import replacing

VOCAB, HELD, WIDTH, EACH, K = 1000, 12, 48, 8, 32
ROWS = {  # figure -> how it is told, whether as a percentage
    "params": ("parameters", False),
    "flops": ("operations to train on a token", False),
    "steps": ("steps", False),
    "lr": ("learning rate", False),
    "next_loss": ("validation: the next token, nats", False),
    "bits_per_byte": ("bits per byte", False),
    "masked_loss": ("validation: masked tokens, nats", False),
    "accuracy": ("named right", True),
    "perplexity": (f"perplexity, or pseudo-perplexity, of {WIDTH} tokens", False),
    "left": (f"one gap, {K} candidates: from the left alone", True),
    "both": ("the same, each candidate scored with all that follows", True),
    "one_pass": ("the same, in one pass that sees both sides", True),
}
Figures = dict[str, float]


def tokenizer_of(text: str, path: Path) -> str:
    """One tokenizer for all, learnt once from the nine tenths that all train on."""
    from tok import BPETokenizer, load
    from tok.base import END_OF_TEXT
    from tok.special import BERT_TOKENS

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        specials = [END_OF_TEXT, *BERT_TOKENS]
        documents = text[: len(text) * 9 // 10].split("\n\n")
        BPETokenizer.train(documents, VOCAB, special_tokens=specials).save(path)
    load(path)
    return str(path)


def questions(text: str, tokenizer: Any) -> Any:
    """Gaps in texts of the last twelfth, on which nothing trains.

    ValueError for fewer documents than that, or if those are more than a tenth of the text.
    """
    from utils.families.gaps import gaps

    texts = text.split("\n\n")
    held = texts[len(texts) - len(texts) // HELD :]
    if not held or len("\n\n".join(held)) > 0.095 * len(text):
        cure = "give one with a blank line between many short documents"
        raise ValueError(f"a text of {len(texts)} documents leaves none to ask about; {cure}")
    ids = [tokenizer.encode(t)[:WIDTH] for t in held]
    pool = tokenizer.encode("\n\n".join(texts[: len(texts) // 2]))
    return gaps([row for row in ids if len(row) == WIDTH], pool, EACH, K, seed=0)


def trained(pool: Any, plan: Any, asked: Any) -> Figures:
    """A plan's figures: trained now, or read from before."""
    from utils.families.gaps import ask_bert, ask_gpt
    from utils.families.plan import settings
    from utils.training.models import load_model

    file = plan.path / "families.json"
    if file.exists():
        found: Figures = json.loads(file.read_text(encoding="utf-8"))
        return found
    figures = pool.train(settings(plan, plan.steps))
    model, tokenizer, checkpoint = load_model(plan.path, kind="")
    masked = checkpoint.get("kind") == "bert"
    ask = ask_bert if masked else ask_gpt
    n, flops = plan.shape
    told = {"params": n, "flops": flops, "steps": plan.steps, "lr": plan.lr}
    told |= {"masked_loss" if masked else "next_loss": figures["val_loss"]}
    told |= {k: x for k in ("accuracy", "bits_per_byte") if isfinite(x := figures[k])}
    told |= ask(model.eval(), asked, tokenizer.special_tokens)
    with replacing(file) as part:
        Path(part).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    for name in ("best.pt", "last.pt"):
        (plan.path / name).unlink(missing_ok=True)
    return told


def loss(figures: Figures) -> float:
    """What the learning rate is searched by."""
    return figures.get("next_loss", figures.get("masked_loss", float("inf")))


def cell(figures: Sequence[Figures], key: str, percent: bool) -> str:
    """Mean and standard deviation over seeds; one figure where all are the same."""
    from utils.spread import mean, sd

    xs = [f[key] * (100 if percent else 1) for f in figures if key in f]
    if not xs:
        return ""
    unit = " %" if percent else ""
    if len(set(xs)) == 1:
        x = xs[0]
        shown = f"{x:,.0f}" if x >= 100 and x == int(x) else f"{x:.1f}" if percent else f"{x:.4g}"
        return shown + unit
    digits = 1 if percent or mean(xs) >= 10 else 3
    return f"{mean(xs):.{digits}f} ± {sd(xs):.{digits}f}{unit}"


def table(found: dict[str, list[Figures]]) -> str:
    """A column for each family, in Markdown."""
    lines = ["| " + " | ".join(["", *found]) + " |", "| --- " * (len(found) + 1) + "|"]
    for key, (title, percent) in ROWS.items():
        cells = [cell(figures, key, percent) for figures in found.values()]
        if any(cells):
            lines.append("| " + " | ".join([title, *cells]) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Train the families, ask all of them, print a table."""
    p = Parser(prog="python -m utils.families", description=__doc__)
    add: Any = p.add_argument
    add("--data", default="data/tiny.txt", help="a text with blank lines between its documents")
    add("--flops", type=float, default=1.5e12, help="what each training may cost (default 1.5e12)")
    add("--seeds", type=int, default=3, help="trainings of each (default 3)")
    add("--optimizer", choices=("adamw", "muon"), default="adamw", help="of all (default adamw)")
    add("--only", nargs="+", metavar="NAME", help="of gpt2, llama, bert, modern")
    add("--out", default="runs/families", help="directory (default runs/families)")
    a = p.parse_args(argv)
    if a.seeds < 1 or not 0 < a.flops < float("inf"):
        raise ValueError(f"seeds={a.seeds}, flops={a.flops:g}: give 1 or more, and above 0")

    import tok
    from tok.files import read_text
    from utils.families.plan import FAMILIES, RATES, Plan
    from utils.sweep.workers import Pool

    names = [f.name for f in FAMILIES]
    if wrong := set(a.only or ()) - set(names):
        raise ValueError(f"only={min(wrong)}; families are {', '.join(names)}")
    out, text = Path(a.out), read_text(a.data)
    file = tokenizer_of(text, out / "tokenizer.json")
    asked = questions(text, tok.load(file))
    found: dict[str, list[Figures]] = {}
    # this command stands above the scripts, as sweep.py does
    with Pool(import_module("train").run, jobs=1) as pool:
        for family in FAMILIES:
            if a.only and family.name not in a.only:
                continue
            first = Plan(family, a.optimizer, 0.0, 1, a.flops, a.data, file, out)
            tried = []
            for lr in RATES[a.optimizer]:
                tried.append((plan := replace(first, lr=lr), trained(pool, plan, asked)))
                print(f"{plan.name}: {loss(tried[-1][1]):.4f} nats, {plan.steps} steps", flush=True)
            best, figures = min(tried, key=lambda pair: loss(pair[1]))
            found[family.title] = [figures]
            for seed in range(2, a.seeds + 1):
                found[family.title].append(trained(pool, replace(best, seed=seed), asked))
    print(f"\n{len(asked.at)} gaps in {len(asked.rows)} texts\n\n{table(found)}")
    with replacing(out / "table.md") as part:
        Path(part).write_text(table(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
