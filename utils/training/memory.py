"""How much memory training will take: a step on tensors without contents, and a ledger of them.

It runs the very operations of a step, so that every choice of architecture counts, in no time.
"""

import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model import MODELS, GPTConfig, TinyGPT
from model.adapt.lora_config import LoRAConfig
from model.adapt.qat import round_layers
from model.adapt.quant_config import QuantizeConfig
from utils.config import OptimConfig
from utils.device import Device, peak_memory
from utils.distill_config import DistillConfig
from utils.training.models import adapted
from utils.training.objective import Batch, Objective
from utils.training.optim import make_optimizer, muon_groups
from utils.training.teacher import objective_of


class Ledger(TorchDispatchMode):
    """Counts the bytes of all tensors made inside `with Ledger() as ledger:`; see `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, int] = {}  # bytes of each living storage
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.note(leaf.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def note(self, storage: torch.UntypedStorage) -> None:
        """Count a storage until it dies; views share one."""
        key = storage._cdata
        if key not in self.held:
            self.held[key] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self.forget, key)

    def forget(self, key: int) -> None:
        """Strike out a storage."""
        self.now -= self.held.pop(key)


def tables_to(model: TinyGPT, device: torch.device) -> None:
    """Move a model's tables of positions, which are made on the CPU."""
    for name, table in list(model.named_buffers()):
        setattr(model, name, table.to(device))


def build(config: GPTConfig) -> TinyGPT:
    """A model of a config, of whatever kind."""
    model: Any = next(cls for kind, cls in MODELS.values() if type(config) is kind)
    return model(config)


def step_memory(
    config: GPTConfig,
    optim: OptimConfig,
    device: Device,
    batch_size: int,
    recompute: bool,
    lora: LoRAConfig | None = None,
    distill: DistillConfig | None = None,
    teacher: GPTConfig | None = None,
    bits: QuantizeConfig | None = None,
    learn: tuple[Objective, Batch] | None = None,
) -> int:
    """Most bytes of tensors in a training step: weights, gradients, AdamW's state, activations.

    A teacher and what it computes count, too; what the allocator loses between tensors does not.
    `learn` is another objective than the next token, with a batch; that step is taken for real,
    since how many positions it predicts depends on the batch.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # here: importing it takes a while

    with nullcontext() if learn else FakeTensorMode(), Ledger() as ledger, device.device:
        model = build(config)
        tables_to(model, device.device)
        adapted(model, lora or LoRAConfig(), 0, device.dtype)
        if bits:
            round_layers(model, *bits.how)
        model.activation_checkpointing = recompute
        matrices = muon_groups(model) if optim.optimizer == "muon" else None
        optimizer = make_optimizer(model.parameters(), optim, matrices=matrices)
        teaches = build(teacher).eval().requires_grad_(False) if teacher else None
        if teaches:
            tables_to(teaches, device.device)
        idx = torch.zeros(batch_size, config.block_size, dtype=torch.long)
        objective, batch = learn or (objective_of(distill or DistillConfig(), teaches), (idx, idx))
        for _ in range(2):  # the optimizer's state is there from the second on
            with device.autocast():
                nats, _ = objective(model, device.move(batch))
            nats.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return ledger.peak


def resident() -> int:
    """Bytes of main memory that this process holds; its peak where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_memory()
    held = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(held.split()[1]) * 1024
