"""What the newest checkpoint shows inside: dead or exploding layers, a model that looks ahead."""

from collections.abc import Iterator
from itertools import pairwise

import torch

from model import TinyGPT
from utils.device import pick_device
from utils.doctor.record import Finding, Record
from utils.reporting.watch import Row, measure, probe
from utils.training.objective import Batch

HALF = 0.5  # of a layer's units
GROWTH = 1000.0  # of the residual stream in one block; the first one's may well be 100
APART = 100.0  # gradients of two blocks


def looks_ahead(model: TinyGPT, x: torch.Tensor) -> float:
    """How much the first half of hidden states changes with the last token of x (B,T).

    In units of their size: 0 if the model is causal.
    """
    other = x.clone()
    other[:, -1] = (other[:, -1] + 1) % model.config.vocab_size
    with torch.no_grad():
        a, b = (model.eval().hidden_states(ids)[:, : x.size(1) // 2] for ids in (x, other))
    return float((a - b).abs().max() / a.square().mean().sqrt()) if a.numel() else 0.0


def ahead(model: TinyGPT, batch: Batch) -> Finding | None:
    """A missing mask: a loss that is too good."""
    if not (change := looks_ahead(model, batch[0])) > 1e-3:  # less is rounding
        return None
    seen = f"another last token changes the first half of a window's hidden states, by {change:.2g}"
    cure = "mend the mask (model/attention.py): what is learnt is to copy the answer"
    return Finding("serious", "the model looks ahead", seen, cure)


def not_finite(model: TinyGPT) -> Finding | None:
    """Weights that are no numbers."""
    bad = [name for name, p in model.named_parameters() if not p.isfinite().all()]
    if not bad:
        return None
    seen = f"{len(bad)} parameters, the first is {bad[0]}"
    return Finding("serious", "weights that are not finite", seen, "go on from best.pt; lower --lr")


def dead(blocks: dict[str, Row], mlp: str) -> Iterator[Finding]:
    """Blocks most of whose hidden units do nothing."""
    for name, row in blocks.items():
        if row.get("dead_units", 0) > HALF:
            seen = f"{row['dead_units']:.0%} of the MLP's units do nothing at any position"
            more = " or --mlp gelu" if mlp.startswith("relu") else " and a longer --warmup"
            yield Finding("warning", f"dead layer: {name}", seen, f"a lower --lr,{more}")


def exploding(rows: dict[str, Row], norm_at: str) -> Iterator[Finding]:
    """A residual stream that a block makes GROWTH times as large, or more."""
    names = [name for name in rows if "activation" in rows[name]]
    cure = ("--norm_at pre, " if norm_at == "post" else "") + "a lower --lr, --weight_decay 0.1"
    for a, b in pairwise(names):
        before, after = rows[a]["activation"], rows[b]["activation"]
        if not after <= GROWTH * before:  # also if it is no number
            seen = f"the residual stream grows from {before:.3g} to {after:.3g} there"
            yield Finding("serious", f"exploding layer: {b}", seen, cure)


def gradients(blocks: dict[str, Row], norm_at: str) -> Finding | None:
    """Blocks whose gradients differ by APART times or more: some of them learn nothing."""
    norms = {name: row["grad_norm"] for name, row in blocks.items() if "grad_norm" in row}
    if len(norms) < 2 or max(norms.values()) < APART * min(norms.values()):
        return None
    low, high = min(norms, key=norms.__getitem__), max(norms, key=norms.__getitem__)
    seen = f"gradient norm {norms[low]:.2g} in {low}, {norms[high]:.2g} in {high}"
    cure = "--norm_at pre" if norm_at == "post" else "a lower --lr; fewer layers"
    return Finding("warning", f"no gradient reaches {low}", seen, cure)


def check(r: Record) -> list[Finding]:
    """All of these, by one pass of the newest checkpoint over the beginning of validation."""
    if r.model is None:
        return []
    if bad := not_finite(r.model):
        return [bad]
    if r.data is None or not isinstance(r.model, TinyGPT):
        return []
    batch = probe(r.data.val, r.model.config.block_size, r.settings.train.batch_size)
    model, m = r.model.requires_grad_(True), r.settings.model
    rows = measure(model, batch, pick_device("cpu", "float32"))
    blocks = {name: row for name, row in rows.items() if name.startswith("block")}
    single = [ahead(model, batch), gradients(blocks, m.norm_at)]
    return [*(f for f in single if f), *dead(blocks, m.mlp), *exploding(rows, m.norm_at)]
