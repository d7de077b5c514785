"""LoRA adapters as peft keeps them, and back: dictionaries in and out, no files.

peft's are by module of Hugging Face's model, ours by layer. LLaMA's q, k and v are one layer here:
adapters that they share go out with the same A three times; three of their own come in as one of
three times the rank, whose B has a block for each.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model.adapt.lora_config import LoRAConfig
from model.config import GPTConfig
from model.convert import gpt2, llama
from model.convert.names import State, rename

PREFIX = "base_model.model."
QKV = "self_attn.qkv_proj."
FALSE: tuple[str, ...] = (
    "use_dora",
    "modules_to_save",
    "layers_to_transform",
    "lora_bias",
    "layer_replication",
)
FALSE += ("trainable_token_indices", "target_parameters", "exclude_modules", "use_qalora")
Config = dict[str, Any]


def is_llama(config: GPTConfig) -> bool:
    """Whether a model is called LLaMA elsewhere, not GPT-2."""
    return config.pos == "rope"


def names_of(config: GPTConfig) -> tuple[dict[str, str], str]:
    """Hugging Face's names -> ours, and what stands before theirs."""
    return (llama.NAMES, "model.") if is_llama(config) else (gpt2.NAMES, "transformer.")


def rows_of(config: GPTConfig) -> tuple[int, int, int]:
    """Rows of q, k and v in our one matrix."""
    D = config.d_model // config.n_head
    return config.n_head * D, config.kv_heads * D, config.kv_heads * D


def to_peft(state: State, lora: LoRAConfig, config: GPTConfig) -> tuple[State, Config]:
    """Our adapters -> weights of adapter_model.safetensors, and what adapter_config.json says."""
    names, before = names_of(config)
    theirs = rename(state, {ours: name for name, ours in names.items()})
    if is_llama(config):
        for key in [key for key in theirs if QKV in key and key.endswith("lora_A")]:
            A, B = theirs.pop(key), theirs.pop(key[:-1] + "B")
            theirs |= parted(key.removesuffix("lora_A"), A, B, rows_of(config))
    ranks = {k.rpartition(".")[0]: len(t) for k, t in theirs.items() if k.endswith("lora_A")}
    modules = {".".join(name.split(".")[-2:]): rank for name, rank in ranks.items()}
    odd = {module: rank for module, rank in modules.items() if rank != lora.lora}
    weights = {f"{PREFIX}{before}{k}.weight": t.contiguous() for k, t in theirs.items()}
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora.lora,
        "lora_alpha": whole(lora.alpha),
        "lora_dropout": lora.lora_dropout,
        "use_rslora": lora.lora_rs,
        "target_modules": sorted(modules),
        "rank_pattern": odd,
        "alpha_pattern": {name: whole(alpha_for(lora, rank)) for name, rank in odd.items()},
        "fan_in_fan_out": not is_llama(config),
        "bias": "none",
        "inference_mode": True,
    }
    return weights, said


def whole(x: float) -> float:
    """A number without its fraction, if that is 0."""
    return int(x) if float(x).is_integer() else x


def alpha_for(lora: LoRAConfig, rank: int) -> float:
    """The alpha by which adapters of another rank count as much as ours."""
    return lora.scale * (rank**0.5 if lora.lora_rs else rank)


def parted(name: str, A: Tensor, B: Tensor, rows: tuple[int, int, int]) -> dict[str, Tensor]:
    """Adapters of q, k and v from one of all three; their own, if each column of B is of one."""
    blocks = dict(zip("qkv", B.split(rows), strict=True))
    used = {x: block.count_nonzero(0) > 0 for x, block in blocks.items()}  # columns (r,)
    own = bool((sum(u.int() for u in used.values()) == 1).all())
    out: dict[str, Tensor] = {}
    for x, block in blocks.items():
        columns = used[x] if own else torch.ones_like(used[x])
        if columns.any():
            key = name.replace("qkv_proj", f"{x}_proj")
            out |= {f"{key}lora_A": A[columns].clone(), f"{key}lora_B": block[:, columns].clone()}
    return out


def joined(parts: Mapping[str, tuple[Tensor, Tensor]], rows: tuple[int, int, int]) -> State:
    """One adapter of q, k and v from those that there are, A (r,in) and B (rows,r) each."""
    As = [A for A, _ in parts.values()]
    same = len(parts) == 3 and all(A.shape == As[0].shape and torch.equal(A, As[0]) for A in As)
    if same:
        return {"lora_A": As[0], "lora_B": torch.cat([parts[x][1] for x in "qkv"])}
    blocks, done, r = [], 0, sum(map(len, As))
    for x, n in zip("qkv", rows, strict=True):
        block = As[0].new_zeros(n, r)
        if x in parts:
            B = parts[x][1]
            block[:, done : done + B.size(1)] = B
            done += B.size(1)
        blocks.append(block)
    return {"lora_A": torch.cat(As), "lora_B": torch.cat(blocks)}


def check_said(said: Mapping[str, Any]) -> None:
    """Raise ValueError for adapters of another kind than ours."""
    if said.get("peft_type") != "LORA":
        raise ValueError(f"peft_type={said.get('peft_type')!r}; only LORA can be read")
    if said.get("bias", "none") != "none":
        raise ValueError(f"bias={said['bias']!r}: our adapters leave biases alone")
    for key in FALSE:
        if said.get(key):
            raise ValueError(f"{key}={said[key]!r}, which our adapters lack")


def from_peft(
    weights: State, said: Mapping[str, Any], config: GPTConfig
) -> tuple[State, LoRAConfig]:
    """peft's weights and adapter_config.json -> our adapters. ValueError for what does not fit."""
    check_said(said)
    names, before = names_of(config)
    theirs: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}  # layer -> q_proj.lora_A and so on
    for key, tensor in weights.items():
        name = key.removeprefix(PREFIX + before).removesuffix(".weight")
        if name == key or not name.endswith(("lora_A", "lora_B")):
            raise ValueError(f"{key} is no adapter of {PREFIX}{before}...")
        if any(f"self_attn.{x}_proj." in name for x in "qkv") and is_llama(config):
            layer, _, rest = name.partition(".self_attn.")
            parts.setdefault(layer, {})[rest] = tensor
        else:
            theirs[name] = tensor
    for layer, found in parts.items():
        if odd := [k for k in found if k[:-1] + "BA"[k.endswith("B")] not in found]:
            raise ValueError(f"{layer}.self_attn.{odd[0]} is there without its other half")
        rows = rows_of(config)
        pairs = {k[0]: (found[k], found[k[:-1] + "B"]) for k in sorted(found) if k.endswith("A")}
        pairs = {x: pairs[x] for x in "qkv" if x in pairs}
        for x, n in zip("qkv", rows, strict=True):
            if x in pairs and pairs[x][1].shape != (n, len(pairs[x][0])):
                shape = tuple(pairs[x][1].shape)
                raise ValueError(f"{layer}: lora_B of {x}_proj is {shape}, not ({n},r)")
        both = joined(pairs, rows)
        theirs |= {f"{layer}.{QKV}{half}": tensor for half, tensor in both.items()}
    state = rename(theirs, names)
    targets = {name.split(".")[-2] for name in state}
    lora = LoRAConfig(
        lora=int(said["r"]),
        lora_alpha=float(said["lora_alpha"]),
        lora_dropout=float(said.get("lora_dropout", 0.0)),
        lora_targets=" ".join(sorted(targets)),
        lora_rs=bool(said.get("use_rslora", False)),
    )
    for name, rank in (said.get("rank_pattern") or {}).items():
        alpha = (said.get("alpha_pattern") or {}).get(name, said["lora_alpha"])
        if abs(alpha - alpha_for(lora, rank)) > 1e-6 * alpha:
            raise ValueError(
                f"{name} counts differently (alpha {alpha}, rank {rank}) from the rest"
            )
    return state, lora
