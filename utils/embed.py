"""Sentences as vectors, by a BERT of ours: which lines of a file are alike.

python -m utils.embed bert_tiny lines.txt                  # each line, and the line nearest to it
python -m utils.embed bert_tiny lines.txt --out lines.npy  # the vectors, to use elsewhere
python -m utils.embed bert_tiny lines.txt --pool cls
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tok.cli import Parser, run
from tok.files import replacing
from utils.runs import run_dir

if TYPE_CHECKING:
    from tok import Tokenizer

ROWS = 64  # lines that are read at once
POOLS = ("mean", "cls", "pooler")


def read_lines(path: str) -> list[str]:
    """The lines of a text file that are not blank. ValueError if they are less than two."""
    from data.text import read_text

    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if len(lines) < 2:
        raise ValueError(f"{path} has {len(lines)} line; give two or more to compare")
    return lines


def embed(model: Any, tokenizer: "Tokenizer", lines: Sequence[str], pool: str) -> np.ndarray:
    """A vector of length 1 for each line, (N,C) float32; the same whatever lines are beside it.

    mean averages the hidden states of the line's tokens (Reimers & Gurevych 2019), cls takes that
    of [CLS], pooler what next sentences are guessed from. ValueError for a line that is too long.
    """
    return np.concatenate(list(vectors(model, tokenizer, lines, pool)))


def vectors(
    model: Any, tokenizer: "Tokenizer", lines: Sequence[str], pool: str
) -> Iterator[np.ndarray]:
    """The same, ROWS lines at a time."""
    import torch

    from data.masking import vocabulary
    from data.rows import laid_out

    v, T = vocabulary(tokenizer), model.config.block_size
    ids = [np.array(tokenizer.encode(line), np.int64) for line in lines]
    longest = max(map(len, ids))
    if longest + 2 > T:
        raise ValueError(f"a line has {longest} tokens, but the model reads {T - 2}; cut it")
    device = model.tok_emb.weight.device
    for i in range(0, len(ids), ROWS):
        rows = laid_out([(part,) for part in ids[i : i + ROWS]], longest + 2, v)
        x, padding, text = (
            torch.from_numpy(t).to(device) for t in (rows.ids, rows.padding, rows.text)
        )
        with torch.no_grad():
            states = model.hidden_states(x, padding=padding)
            if pool == "mean":
                states = (states * text[..., None]).sum(1)  # / n, which the norm takes out
            else:
                states = states[:, 0] if pool == "cls" else model.pooler(states)
        yield torch.nn.functional.normalize(states.float(), dim=-1).cpu().numpy()


def nearest(e: np.ndarray) -> list[tuple[int, float]]:
    """For each of N vectors (N,C) the nearest other one, and the cosine of their angle."""
    likeness = e @ e.T
    np.fill_diagonal(likeness, -np.inf)
    return [(int(row.argmax()), float(row.max())) for row in likeness]


def main(argv: Sequence[str] | None = None) -> None:
    """Print each line beside its nearest, and write the vectors if a file is named."""
    p = Parser(prog="python -m utils.embed", description=__doc__)
    p.add_argument("run", help="a name under runs/, or a path")
    p.add_argument("file", help="a text file, a sentence a line")
    p.add_argument("--pool", choices=POOLS, default="mean", help="default mean")
    p.add_argument("--out", metavar="FILE.npy", help="write the vectors, float32 (lines, width)")
    p.add_argument("--ckpt", choices=("best", "last"), default="best", help="default best")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    a = p.parse_args(argv)
    if a.out and Path(a.out).suffix != ".npy":
        raise ValueError(f"--out {a.out} must end in .npy")
    lines = read_lines(a.file)

    from utils.device import pick_device
    from utils.training.models import load_model

    model, tokenizer, _ = load_model(run_dir(a.run), a.ckpt, kind="bert")
    e = embed(model.to(pick_device(a.device).device).eval(), tokenizer, lines, a.pool)
    for line, (other, cosine) in zip(lines, nearest(e), strict=True):
        print(f"{line}\n  {cosine:.3f}  {lines[other]}")
    if a.out:
        with replacing(a.out) as part, open(part, "wb") as file:
            np.save(file, e)


if __name__ == "__main__":
    run(main)
