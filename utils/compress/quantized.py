"""A run with its weights in integers, from a run: written whole or not at all."""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import TinyGPT
from model.adapt.quant import QuantLinear, count, quantize, quantized_layers
from utils.compress.calibrate import calibrated, calibration_ids
from utils.config import Settings, flat, recorded_settings, write_yaml
from utils.hub.pretrained import NAME as PRETRAINED
from utils.runs import new_run
from utils.training.models import base_of, load_model, merged, trained_bits


@dataclass(frozen=True)
class Bits:
    """How a run's weights are rounded."""

    bits: int
    group: int = 32  # of 4 bits
    embedding_bits: int = 8  # of tok_emb and head; 32 leaves them as they are
    method: str = ""  # awq, gptq, or both: rounded by what layers read

    def __str__(self) -> str:
        """In words: `4 bits in groups of 32, embeddings 8 bits`."""
        groups = f" in groups of {self.group}" if self.bits == 4 else ""
        other = f", embeddings {self.embedding_bits} bits" * (self.embedding_bits != self.bits)
        return f"{self.bits} bits{groups}{other}" + f" by {self.method}" * bool(self.method)


def compress(
    source: Path, out: Path, bits: Bits, which: str = "best", text: Path | None = None
) -> None:
    """Make the run `out` of the run `source` with rounded weights, and say what it is.

    Methods need a calibration text. Raises ValueError for a run that is quantized, or has a layer
    that cannot be, or a text that is too short.
    """
    if out.resolve() == source.resolve():
        raise ValueError(f"--out must name another run than {source}, which stays as it is")
    model, tokenizer, checkpoint = load_model(source, which)
    if checkpoint.get("quantized"):
        raise ValueError(f"{source} is quantized already; compress the run that it was made from")
    check_trained(source, checkpoint, bits)
    model = merged(model).eval()
    before, made = size_of(model), {}
    if text is not None:
        ids = calibration_ids(text, tokenizer, model)
        made = calibrated(model, ids, bits.group, bits.method)
    if trained_bits(checkpoint):  # it is in integers as it was trained
        before = sum(t.nbytes for t in checkpoint["model"].values())
    else:
        quantize(model, bits.bits, bits.group, bits.embedding_bits, made)
    settings = recorded_settings(checkpoint["settings"])
    kept = {**checkpoint, "quantized": asdict(bits)}
    write(source, out, model, kept, base_of(source, which), settings)
    report(out, model, before, bits)


def check_trained(source: Path, checkpoint: dict[str, Any], bits: Bits) -> None:
    """Raise ValueError if a run was trained to be rounded in another way."""
    how = trained_bits(checkpoint)
    if how and bits != (own := Bits(*how.how)):
        flags = f"--{how.quantize}" + f" --group {own.group}" * (own.bits == 4)
        cure = f"{flags} --embedding-bits {own.embedding_bits}"
        raise ValueError(f"{source} was trained for {own}; make that of it: {cure}")


def own_state(model: TinyGPT) -> dict[str, Tensor]:
    """The state dict, without what it would keep of a larger tensor; a tied head stays one."""
    state, made = model.state_dict(), {}
    for name, t in state.items():
        if not name.endswith((".q", ".scale", ".zero")) and t.data_ptr() not in made:
            made[t.data_ptr()] = t.clone()
    return {name: made.get(t.data_ptr(), t) for name, t in state.items()}


def write(
    source: Path,
    out: Path,
    model: TinyGPT,
    checkpoint: dict[str, Any],
    base: dict[str, str],
    settings: Settings,
) -> None:
    """Write the run: what the source has, but for its model and what training needs.

    summary.json goes along where the checkpoint knows of a training.
    """
    settings = replace(settings, train=replace(settings.train, run=out.name))
    parts = {"model": own_state(model), "base": None, "source": base}
    kept = {**checkpoint, "settings": flat(settings), "optimizer": {}, "scaler": {}, **parts}
    with new_run(out) as new:
        for name in ("tokenizer.json", PRETRAINED, *["summary.json"] * bool(checkpoint["step"])):
            if (source / name).exists():
                shutil.copyfile(source / name, new / name)
        write_yaml(settings, new / "config.yaml")
        try:
            torch.save(kept, new / "best.pt")
        except RuntimeError as e:  # torch's word for a disk that is full
            raise OSError(f"cannot write {out}; is the disk full? ({str(e)[:60]})") from None


def size_of(model: TinyGPT) -> int:
    """Bytes of all weights; those that two layers share count once."""
    return sum({t.data_ptr(): t.nbytes for t in model.state_dict().values()}.values())


def slow_layers(model: TinyGPT) -> list[str]:
    """Names of the quantized layers that no kernel multiplies here."""
    found = quantized_layers(model).items()
    return [name for name, m in found if isinstance(m, QuantLinear) and not m.kernel]


def report(out: Path, model: TinyGPT, before: int, bits: Bits) -> None:
    """Say what has been made, and which of its layers are smaller, but not faster."""
    if slow := slow_layers(model):
        said = f"{len(slow)} of its layers ({slow[0]})"
        print(f"note    this CPU has no kernel for {said}: smaller, not faster")
    size, n = size_of(model), count(model)
    print(
        f"weights {size / 1e6:,.1f} MB, {8 * size / n:.2f} bits each; {before / 1e6:,.1f} MB before"
    )
    print(f"run     {out}: {bits}; next: python eval.py --run {out}")
