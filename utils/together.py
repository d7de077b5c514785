"""Which settings of different sections do not go together. Without torch."""

from typing import Any


def check_lora(s: Any) -> None:
    """Raise ValueError for Settings that do not go with adapters."""
    rank, how = s.lora.lora, ""
    if s.train.parallel == "fsdp":
        how = "leaves little to shard; use --parallel ddp"
    if s.optim.optimizer == "muon":
        how = "trains thin matrices, which Muon is not for; use --optimizer adamw"
    if not s.train.init:
        how = "has nothing to adapt; name a model by --init, say --init smollm2"
    if s.train.keep_zeros:
        how = "fills zeros when it is merged; leave keep_zeros out"
    if s.quantize.bits:
        how = "trains no weight to be rounded; make a run of 4 bits, and name it by --init"
    if rank and how:
        raise ValueError(f"lora={rank} {how}")


def check_bert(s: Any) -> None:
    """Raise ValueError for Settings of a BERT that only a GPT has."""
    if s.objective.kind != "bert":
        return
    only = {"phases": s.data.phases, "lora": s.lora.lora, "watch": s.train.watch}
    only |= {"quantize": s.quantize.bits, "mup_width": s.optim.mup_width}
    for name, said in only.items():
        if said:
            raise ValueError(f"{name}={said} is for GPTs; leave it out, or --objective")
    if s.distill.teacher and s.objective.objective == "classify":
        raise ValueError(f"teacher={s.distill.teacher} teaches tokens, not classes; leave it out")
    if s.train.parallel == "fsdp":
        raise ValueError("parallel=fsdp is for GPTs; use --parallel ddp")
