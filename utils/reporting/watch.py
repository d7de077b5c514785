"""What happens inside a model while it learns: watch.csv, a row each layer at each evaluation.

A layer is the embedding, a block, or the head. Letters: B batch, T time, H heads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from data.loader import ordered_batches
from model import TinyGPT
from model.inside import attention_weights
from model.moe import MoE
from utils.device import Device
from utils.reporting.csv import Table
from utils.reporting.events import Callback, Evaluation, Event, Step, Watched
from utils.training.objective import Batch, next_token

COLUMNS = ["step", "layer", "update_ratio", "grad_norm"]
COLUMNS += ["activation", "attention_entropy", "dead_units"]
MOST = 2048  # tokens of the validation text that are looked at
DEAD = 1e-3  # of the layer's size: a unit that never gets above it adds nothing
Params = dict[str, list[nn.Parameter]]
Row = dict[str, Any]


def probe(tokens: np.ndarray, T: int, B: int) -> Batch:
    """The first windows of a text, the same at each call: at most B, and some MOST tokens."""
    rows = max(1, min(B, MOST // T))
    return next(ordered_batches(tokens, block_size=T, batch_size=rows))


def layers(model: TinyGPT) -> Params:
    """The parameters that are trained, by layer; a tied head is the embedding."""
    blocks = {f"block {i}": block for i, block in enumerate(model.blocks, 1)}
    inside = {id(p) for block in blocks.values() for p in block.parameters()}
    head = {id(p) for part in (model.norm, model.head) for p in part.parameters()}
    head -= {id(model.tok_emb.weight)}
    found: Params = {"embedding": [], **{name: [] for name in blocks}, "head": []}
    for p in model.parameters():
        if p.requires_grad and id(p) not in inside:
            found["head" if id(p) in head else "embedding"].append(p)
    for name, block in blocks.items():
        found[name] = [p for p in block.parameters() if p.requires_grad]
    return found


def norm(tensors: list[Tensor]) -> float:
    """The length of all of them as one vector."""
    return float(nn.utils.get_total_norm([t.float() for t in tensors]))


def entropy(p: Tensor, window: int = 0) -> float:
    """How evenly attention p (B,H,T,T) is spread: its entropy over the most it could be, ln n.

    A position has n keys in sight. 1 is an average of all of them, 0 a single one.
    """
    n = torch.arange(1, p.size(-1) + 1, device=p.device)
    most = (n.clamp(max=window) if window else n).log()[1:]  # the first has no choice
    return float((torch.special.entr(p).sum(-1)[..., 1:] / most).mean())


def dead(hidden: Tensor) -> float:
    """The share of units of hidden (B,T,F), what an MLP's last matrix reads, that do nothing."""
    size = hidden.float().square().mean().sqrt()
    return float((hidden.abs().flatten(0, 1).amax(0) <= DEAD * size).float().mean())


def size(x: Tensor) -> float:
    """The root mean square of x."""
    return float(x.detach().float().square().mean().sqrt())


def listen(block: Any, row: Row) -> list[RemovableHandle]:
    """Let a block note its figures in a row each time that it reads something."""

    @torch.no_grad()
    def attends(attn: Any, args: Any) -> None:
        x, rope, *_ = args
        if x.size(1) > 1:
            p = attention_weights(attn, x, rope)
            row["attention_entropy"] = entropy(p.float(), attn.window)

    def multiplies(_: Any, args: Any) -> None:
        row["dead_units"] = dead(args[0].detach())

    def ends(_: Any, args: Any, y: Tensor) -> None:
        row["activation"] = size(y)

    hooks = [block.attn.register_forward_pre_hook(attends), block.register_forward_hook(ends)]
    if not isinstance(block.mlp, MoE):  # each of whose units sees but some positions
        hooks.append(block.mlp.down.register_forward_pre_hook(multiplies))
    return hooks


@contextmanager
def noting(model: TinyGPT) -> Iterator[dict[str, Row]]:
    """Within it a pass through the model notes each layer's figures."""
    rows: dict[str, Row] = {name: {} for name in layers(model)}

    def begins(_: Any, args: Any) -> None:
        rows["embedding"]["activation"] = size(args[0])

    hooks = [model.blocks[0].register_forward_pre_hook(begins)]
    for i, block in enumerate(model.blocks, 1):
        hooks += listen(block, rows[f"block {i}"])
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def measure(model: TinyGPT, batch: Batch, device: Device) -> dict[str, Row]:
    """{layer: grad_norm, activation, attention_entropy, dead_units} while it reads a batch (B,T).

    activation is the residual stream's size after it; see `entropy`, `dead`. Without dropout, and
    no gradient is left behind: a training goes on as if nobody had looked.
    """
    training, own = model.training, layers(model)
    model.eval()
    params = [p for group in own.values() for p in group]
    with noting(model) as rows, torch.enable_grad():
        with device.autocast():
            nats, count = next_token(model, device.move(batch))
        grads = torch.autograd.grad(nats / count, params, allow_unused=True)
    model.train(training)
    found = dict(zip(map(id, params), grads, strict=True))
    for name, group in own.items():
        got = [g for p in group if (g := found[id(p)]) is not None]
        if got:
            rows[name]["grad_norm"] = norm(got)
    return rows


class Watch:
    """Writes watch.csv at each evaluation: what `measure` finds, and how far a step moves weights.

    update_ratio is |change| / |weights| of a layer's matrices in the step before the evaluation;
    it is left out where that step was not taken in this process. `tell` hears the figures, too.
    """

    def __init__(
        self,
        run: Path,
        model: TinyGPT,
        batch: Batch,
        device: Device,
        every: int,
        step: int = 0,
        tell: Sequence[Callback] = (),
    ):
        self.model, self.batch, self.device, self.every = model, batch, device, every
        self.tell = tell
        self.table = Table(run / "watch.csv", COLUMNS, step)
        self.before: dict[str, list[Tensor]] = {}
        self.ratios: dict[str, float] = {}

    def matrices(self) -> dict[str, list[Tensor]]:
        """The matrices of each layer that are trained."""
        found = layers(self.model)
        return {k: [p.detach() for p in ps if p.ndim >= 2] for k, ps in found.items()}

    def due(self, step: int, steps: int) -> bool:
        """Whether an evaluation follows this step."""
        return step % self.every == 0 or step >= steps

    def __call__(self, event: Event) -> None:
        """Note weights before the step that an evaluation follows, their change, and a row each."""
        if isinstance(event, Step):
            self.ratios = self.changes() if self.before else {}
            due = self.due(event.step + 1, event.steps)
            kept = self.matrices() if due else {}
            self.before = {name: [w.clone() for w in ws] for name, ws in kept.items()}
        if isinstance(event, Evaluation):
            rows = measure(self.model, self.batch, self.device)
            for layer, ratio in self.ratios.items():
                rows[layer]["update_ratio"] = ratio
            self.table.write(*({"step": event.step, "layer": k, **v} for k, v in rows.items()))
            for hear in self.tell:
                hear(Watched(event.step, rows))

    def changes(self) -> dict[str, float]:
        """|change| / |weights before| of each layer that has matrices."""
        now = self.matrices()
        return {
            name: norm([w - b for w, b in zip(now[name], before, strict=True)]) / norm(before)
            for name, before in self.before.items()
            if before
        }

    def close(self) -> None:
        """Close the file."""
        self.table.close()
