"""LoRA adapters as peft keeps them, and back: dictionaries in and out, no files.

peft's are by module of Hugging Face's model, ours by layer. LLaMA's q, k and v are one layer here:
adapters that they share go out with the same A three times; three of their own come in as one of
three times the rank, whose B has a block for each. Letters: A (r,in) and B (out,r) of a module.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model.adapt.lora_config import LoRAConfig
from model.config import GPTConfig
from model.convert import config_to_hf, gpt2, llama
from model.convert.names import State, rename

PREFIX = "base_model.model."
HALVES = ("lora_A", "lora_B")
QKV = "self_attn.qkv_proj"
READ = {"peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "bias"}
READ |= {"target_modules", "rank_pattern", "alpha_pattern", "init_lora_weights"}
READ |= {"auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"}
READ |= {"fan_in_fan_out", "megatron_core", "qalora_group_size", "runtime_config"}  # no matter
STARTS = [True, False, None, "gaussian", "eva"]  # of training; others change the base's weights
Config = dict[str, Any]
Pairs = dict[str, tuple[Tensor, Tensor]]  # layers.0.self_attn.q_proj: A, B
Rows = tuple[int, int, int]


def is_llama(config: GPTConfig) -> bool:
    """Whether a model is called LLaMA elsewhere, not GPT-2. ValueError if it is neither."""
    return bool(config_to_hf(config)["model_type"] == "llama")


def names_of(config: GPTConfig) -> tuple[dict[str, str], str]:
    """Hugging Face's names -> ours, and what stands before theirs."""
    return (llama.NAMES, "model.") if is_llama(config) else (gpt2.NAMES, "transformer.")


def rows_of(config: GPTConfig) -> Rows:
    """Rows of q, k and v in our one matrix."""
    D = config.head_size
    return config.n_head * D, config.kv_heads * D, config.kv_heads * D


def shapes_of(config: GPTConfig) -> dict[str, tuple[int, int]]:
    """The modules of a block that may have an adapter: what they give (out) and read (in)."""
    C, hidden = config.d_model, config.hidden
    q, k, v = rows_of(config)
    if not is_llama(config):
        attn = {"attn.c_attn": (3 * C, C), "attn.c_proj": (C, C)}
        return {**attn, "mlp.c_fc": (hidden, C), "mlp.c_proj": (C, hidden)}
    attn = {f"self_attn.{x}_proj": (n, C) for x, n in zip("qkv", (q, k, v), strict=True)}
    attn["self_attn.o_proj"] = C, q
    wide = {f"mlp.{x}_proj": (hidden, C) for x in ("gate", "up")}
    return {**attn, **wide, "mlp.down_proj": (C, hidden)}


def to_peft(state: State, lora: LoRAConfig, config: GPTConfig) -> tuple[State, Config]:
    """Our adapters -> weights of adapter_model.safetensors, and what adapter_config.json says.

    Raises ValueError for a model that is neither GPT-2 nor LLaMA elsewhere.
    """
    names, before = names_of(config)
    theirs = rename(state, {ours: name for name, ours in names.items()})
    modules = [key.removesuffix(".lora_A") for key in theirs if key.endswith("lora_A")]
    pairs = {name: (theirs[f"{name}.lora_A"], theirs[f"{name}.lora_B"]) for name in modules}
    if is_llama(config):
        pairs = parted(pairs, rows_of(config), lora.lora)
    odd = other_ranks({before + name: len(A) for name, (A, _) in pairs.items()}, lora.lora)
    weights = {
        f"{PREFIX}{before}{name}.{half}.weight": tensor.contiguous()
        for name, pair in pairs.items()
        for half, tensor in zip(HALVES, pair, strict=True)
    }
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora.lora,
        "lora_alpha": whole(lora.alpha),
        "lora_dropout": lora.lora_dropout,
        "use_rslora": lora.lora_rs,
        "target_modules": sorted({short(name) for name in pairs}),
        "rank_pattern": odd,
        "alpha_pattern": {name: whole(alpha_for(lora, rank)) for name, rank in odd.items()},
        "fan_in_fan_out": not is_llama(config),
        "bias": "none",
        "inference_mode": True,
    }
    return weights, said


def short(name: str) -> str:
    """A module's name in its block: layers.0.mlp.up_proj -> mlp.up_proj."""
    return ".".join(name.split(".")[-2:])


def other_ranks(ranks: Mapping[str, int], r: int) -> dict[str, int]:
    """Ranks other than r: by the name in a block if all blocks agree, else by the whole name."""
    found: dict[str, set[int]] = {}
    for name, rank in ranks.items():
        found.setdefault(short(name), set()).add(rank)
    odd = {name: rank for name, rank in ranks.items() if rank != r}
    return {short(n) if len(found[short(n)]) == 1 else n: rank for n, rank in odd.items()}


def whole(x: float) -> float:
    """A number without its fraction, if that is 0."""
    return int(x) if float(x).is_integer() else x


def alpha_for(lora: LoRAConfig, rank: int) -> float:
    """The alpha by which adapters of another rank count as much as ours."""
    return lora.scale * (rank**0.5 if lora.lora_rs else rank)


def columns_of(used: Mapping[str, Tensor], r: int) -> dict[str, Tensor]:
    """Which columns of each B are of q, of k and of v: (3,n) each, from which rows they reach.

    A column that is 0 tells nothing. So where `stacked` has put adapters of rank r side by side,
    their order tells, if it agrees with the columns that are not 0. Else all columns are of all.
    """
    alike = len({tuple(u.any(1).tolist()) for u in used.values()}) == 1  # in each block
    if alike and all(bool((u.sum(0) == 1).all()) for u in used.values()):
        return dict(used)
    for names in ("qkv", "qv", "qk", "kv"):
        one = torch.tensor([[x == name for name in names] for x in "qkv"])
        side_by_side = one.repeat_interleave(r, 1)  # (3, r * len(names))
        if all(
            u.shape == side_by_side.shape and not (u & ~side_by_side).any() for u in used.values()
        ):
            return dict.fromkeys(used, side_by_side)
    return {name: torch.ones_like(u) for name, u in used.items()}


def parted(pairs: Pairs, rows: Rows, r: int) -> Pairs:
    """Give q, k and v adapters each: their own, as `columns_of` finds them."""
    used = {
        name: torch.stack([block.count_nonzero(0) > 0 for block in B.split(rows)])  # (3,n)
        for name, (_, B) in pairs.items()
        if name.endswith(QKV)
    }
    mine = columns_of(used, r)
    out: Pairs = {}
    for name, (A, B) in pairs.items():
        if name not in used:
            out[name] = A, B
            continue
        for x, block, columns in zip("qkv", B.split(rows), mine[name], strict=True):
            if columns.any():
                out[name.replace("qkv_proj", f"{x}_proj")] = A[columns], block[:, columns]
    return out


def joined(pairs: Pairs, rows: Rows) -> Pairs:
    """Undo `parted`: what there is of q, k and v as one adapter in each block."""
    out = dict(pairs)
    for block in sorted({n.partition("self_attn.")[0] for n in pairs if "self_attn." in n}):
        keys = [f"{block}self_attn.{x}_proj" for x in "qkv"]
        parts = [out.pop(key, None) for key in keys]
        if any(part is not None for part in parts):
            out[block + QKV] = stacked(parts, rows)
    return out


def stacked(parts: list[tuple[Tensor, Tensor] | None], rows: Rows) -> tuple[Tensor, Tensor]:
    """One A and B of three: of the same rank if all have the same A, else with a block for each."""
    found = [part for part in parts if part is not None]
    As, Bs = [A for A, _ in found], [B for _, B in found]
    if len(found) == 3 and all(torch.equal(A, As[0]) for A in As):
        return As[0], torch.cat(Bs)
    B, row, column = As[0].new_zeros(sum(rows), sum(map(len, As))), 0, 0
    for part, n in zip(parts, rows, strict=True):
        if part is not None:
            B[row : row + n, column : column + len(part[0])] = part[1]
            column += len(part[0])
        row += n
    return torch.cat(As), B


def from_peft(
    weights: State, said: Mapping[str, Any], config: GPTConfig
) -> tuple[dict[str, Tensor], LoRAConfig]:
    """peft's weights and adapter_config.json -> our adapters.

    Raises ValueError, naming it, for a weight that is missing, unknown or of another shape, and
    for all that a config may say and our adapters lack.
    """
    check_said(said)
    pairs = pairs_of(weights, config)
    lora = LoRAConfig(
        lora=said["r"],
        lora_alpha=float(said["lora_alpha"]),
        lora_dropout=float(said.get("lora_dropout") or 0),
        lora_rs=bool(said.get("use_rslora")),
    )
    check_pairs(pairs, said, lora, config)
    pairs = joined(pairs, rows_of(config)) if is_llama(config) else pairs
    theirs = {f"{name}.{x}": t for name, p in pairs.items() for x, t in zip(HALVES, p, strict=True)}
    state = rename(theirs, names_of(config)[0])
    targets = " ".join(sorted({name.split(".")[-2] for name in state}))
    return state, LoRAConfig(**{**vars(lora), "lora_targets": targets})


def check_said(said: Mapping[str, Any]) -> None:
    """Raise ValueError for adapters of another kind than ours."""
    if said.get("peft_type") != "LORA":
        raise ValueError(f"peft_type={said.get('peft_type')!r}; only LORA can be read")
    known: dict[str, list[Any]] = {"task_type": [None, "CAUSAL_LM"], "bias": [None, "none"]}
    for key, values in {**known, "init_lora_weights": STARTS}.items():
        if said.get(key) not in values:
            raise ValueError(f"{key}={said[key]!r}; our adapters know {values[-1]!r}")
    for key in sorted(said.keys() - READ):
        if said[key]:
            raise ValueError(f"{key}={said[key]!r}, which our adapters lack")
    r = said.get("r")
    if not isinstance(r, int) or r < 1:
        raise ValueError(f"r={r!r} is no rank; it must be a whole number of 1 or more")
    alpha = said.get("lora_alpha")
    if not isinstance(alpha, int | float) or not 0 < alpha < float("inf"):
        raise ValueError(f"lora_alpha={alpha!r} must be a number above 0")
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(said.get(key) or {}, dict):
            raise ValueError(f"{key}={said[key]!r} is no object, name of a module -> number")
        for name in said.get(key) or {}:
            if not re.fullmatch(r"\^?[\w.]+", name):  # peft takes any regular expression
                raise ValueError(f"{key} has {name!r}; only names of modules can be read")


def pairs_of(weights: State, config: GPTConfig) -> Pairs:
    """Both halves of each adapter. ValueError unless all blocks have the same, and no more."""
    before, modules = names_of(config)[1], shapes_of(config)
    block = before + ("layers" if is_llama(config) else "h")
    left, pairs = dict(weights), Pairs()
    for module in [name for name in modules if any(f".{name}.lora_" in key for key in weights)]:
        for i in range(config.n_layer):
            keys = [f"{PREFIX}{block}.{i}.{module}.{half}.weight" for half in HALVES]
            if missing := [key for key in keys if key not in left]:
                raise ValueError(f"{missing[0]} is missing")
            pairs[f"{block}.{i}.{module}".removeprefix(before)] = left.pop(keys[0]), left.pop(
                keys[1]
            )
    if left:
        raise ValueError(f"{min(left)} is no adapter of {PREFIX}{block}.N. {', '.join(modules)}")
    return pairs


def check_pairs(pairs: Pairs, said: Mapping[str, Any], lora: LoRAConfig, config: GPTConfig) -> None:
    """Raise ValueError for adapters that are not shaped as the config says, or count otherwise."""
    before, shapes = names_of(config)[1], shapes_of(config)
    for name, pair in pairs.items():
        r = by_pattern(said.get("rank_pattern"), before + name, lora.lora)
        alpha = by_pattern(said.get("alpha_pattern"), before + name, lora.alpha)
        rows, columns = shapes[short(name)]
        for half, tensor, shape in zip(HALVES, pair, ((r, columns), (rows, r)), strict=True):
            if tensor.shape != shape:
                raise ValueError(f"{name}.{half}.weight is {tuple(tensor.shape)}, not {shape}")
        if abs(alpha - alpha_for(lora, r)) > 1e-6 * alpha:
            usual = f"the others {whole(lora.alpha)} at {lora.lora}"
            raise ValueError(
                f"{name} counts alpha={alpha} at rank {r}, {usual}; one factor for all"
            )
    targets = said.get("target_modules")
    for target in targets if isinstance(targets, list) else ():  # else a regular expression
        if not any(f".{before}{name}".endswith(f".{target}") for name in pairs):
            raise ValueError(f"target_modules has {target!r}, but the weights have no such adapter")


def by_pattern(values: Mapping[str, Any] | None, name: str, otherwise: float) -> Any:
    """What rank_pattern or alpha_pattern says of a module: its first key that ends the name."""
    for key, value in (values or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):  # as peft has it
            return value
    return otherwise
