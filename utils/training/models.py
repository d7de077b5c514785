"""A run's model from its files, mapped into memory; adapters stand on the model of another run."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import tok
from data.hashes import remembered
from data.store import TokenDataset
from model import MODELS, BertConfig, GPTConfig, TinyGPT
from model.adapt.lora import add_lora, frozen_to, load_lora, lora_state, merge_lora
from model.adapt.lora_config import LoRAConfig
from model.adapt.quant import dequantize, quantize, restore
from model.adapt.quant_config import QuantizeConfig
from tok.storage import fingerprint
from utils.config import Settings, flat, recorded_settings
from utils.runs import RUNS, check_apart, run_dir
from utils.training.checkpoint import fitting, load_checkpoint, model_config, same_model
from utils.training.mup import scale_init
from utils.training.shapes import as_found, shape_of, with_classifier

State = Mapping[str, Tensor]
WHAT = {  # of a model that is not of the kind that is needed
    "bert": "is a BERT, which reads and does not write: sample.py --fill, or utils.embed",
    "gpt": "is a GPT, which has no [MASK]: sample.py --prompt, or train with --objective masked",
}
Source = dict[str, str]  # a run, which of its checkpoints, and the sum of its weights


def checkpoint_path(run: Path, which: str) -> Path:
    """Where a run's best.pt or last.pt is. ValueError if there is no such run or file."""
    if not run.is_dir():
        raise ValueError(f"no run {run}; train it: python train.py --run {run.name}")
    if which == "best" and not (run / "best.pt").exists() and (run / "last.pt").exists():
        raise ValueError(f"{run} has not been evaluated, so it has no best.pt; use --ckpt last")
    return run / f"{which}.pt"


class NothingDrawn(TorchFunctionMode):
    """Within it nothing is initialised at random: weights are about to be replaced.

    On the meta device drawing would do nothing, too, but import torch._dynamo first: two seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def assembled(kind: str, config: GPTConfig, state: State) -> TinyGPT:
    """A model whose parameters are the very tensors of a state dict: nothing is drawn or copied.

    Of learned positions the first block_size count; ValueError if the state has fewer.
    """
    with torch.device("meta"), NothingDrawn():
        build: Any = MODELS[kind][1]
        model = restore(build(config), state)
    weights = dict(state)
    if config.pos == "learned":
        n, T = len(state["pos_emb.weight"]), config.block_size
        if n < T:
            raise ValueError(f"block_size={T}, but {n} positions were learned; lower it to {n}")
        weights["pos_emb.weight"] = state["pos_emb.weight"][:T]
    model.load_state_dict(weights, assign=True)  # strict
    if config.tie_weights and "head.weight" in state:
        model.head.weight = model.tok_emb.weight
    return model


def weights_sha256(path: Path) -> str:
    """SHA-256 of the names, shapes and values of a checkpoint's model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_checkpoint(path, mmap=True)["model"].items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def base_of(run: Path, which: str = "best", *, keep: bool = True) -> Source:
    """What a checkpoint says of the run that it started from, or that its adapters stand on."""
    sha256 = remembered(checkpoint_path(run, which), weights_sha256, keep=keep)
    return {"run": str(run), "ckpt": which, "sha256": sha256}


def holds(run: Path, base: Source) -> bool:
    """Whether a run is there with the weights of `base`, whole."""
    try:
        return base_of(run, base["ckpt"])["sha256"] == base["sha256"]
    except (ValueError, OSError):
        return False


def find_base(base: Source, near: Path) -> Path:
    """The run with the weights of `base`: where it was, in the directory `near`, or renamed there.

    Raises ValueError if none has them.
    """
    named = Path(base["run"]), near / Path(base["run"]).name
    others = sorted(file.parent for file in near.glob(f"[!.]*/{base['ckpt']}.pt"))  # none half-made
    for run in (*named, *others):
        if holds(run, base):
            return run
    if there := [run for run in named if run.is_dir()]:
        base_of(there[0], base["ckpt"])  # which says what is damaged
        raise ValueError(f"{there[0]} has other weights than this run began with; bring those back")
    raise ValueError(f"the run stands on {base['run']}, which is not there; bring it back")


def base_model(base: Source, config: GPTConfig, near: Path = RUNS) -> TinyGPT:
    """The model that a run started from or its adapters stand on, shaped by their config.

    Raises ValueError as `find_base`.
    """
    run = find_base(base, near)
    checkpoint = load_checkpoint(checkpoint_path(run, base["ckpt"]), mmap=True)
    with fitting(str(run)):
        return dequantize(build_model(checkpoint, config, near))  # adapters stand on floats


def source_model(source: Source, config: GPTConfig, near: Path = RUNS) -> TinyGPT:
    """The model that a run started from, of its own shape, which pruning changes.

    Raises ValueError as `find_base`.
    """
    file = checkpoint_path(find_base(source, near), source["ckpt"])
    own = model_config(load_checkpoint(file, mmap=True))
    return base_model(source, replace(own, block_size=config.block_size), near)


def trained_bits(checkpoint: dict[str, Any]) -> QuantizeConfig | None:
    """How training has rounded the weights that a checkpoint holds as they are, if it has."""
    if checkpoint.get("quantized") or "quantize" not in checkpoint["settings"]:
        return None
    how = recorded_settings(checkpoint["settings"]).quantize
    return how if how.bits else None


def build_model(
    checkpoint: dict[str, Any], config: GPTConfig | None = None, near: Path = RUNS
) -> TinyGPT:
    """The model of a checkpoint, shaped by its config or another; adapters stand on their base.

    A base that has been moved is looked for in the directory `near`, too. Weights that were
    trained to be rounded are in integers.
    """
    config = config or model_config(checkpoint)
    base = checkpoint.get("base")
    if base is None:
        model = assembled(checkpoint.get("kind", "gpt"), config, checkpoint["model"])
        how = trained_bits(checkpoint)
        return quantize(model, *how.how) if how else model
    model = base_model(base, config, near)
    add_lora(model, recorded_settings(checkpoint["settings"]).lora)
    load_lora(model, checkpoint["model"], any_rank=True)
    return model


def load_model(
    run: Path, which: str = "best", kind: str = "gpt"
) -> tuple[TinyGPT, tok.Tokenizer, dict[str, Any]]:
    """Load a run's best.pt or last.pt: (model on the CPU, tokenizer, the whole checkpoint).

    Weights are mapped: read from the file when they are used, and not in memory a second time.
    Raises ValueError for a model of another kind than `kind`, if that is not empty.
    """
    path, file = checkpoint_path(run, which), run / "tokenizer.json"
    checkpoint = load_checkpoint(path, mmap=True)
    if kind and kind != (found := checkpoint.get("kind", "gpt")):
        raise ValueError(f"{run} {WHAT.get(found, f'holds a {found}')}")
    with fitting(str(path)):
        model = build_model(checkpoint, near=run.parent)
    if not file.exists():
        raise ValueError(f"{run} has no tokenizer.json; copy that of its data there")
    if fingerprint(file) != checkpoint["data"]["tokenizer_sha256"]:
        raise ValueError(f"{file} is not the one that the model learnt with; bring that back")
    return model, tok.load(file), checkpoint


def merged(model: TinyGPT) -> TinyGPT:
    """The model without adapters, their products added to its weights; itself if it has none."""
    return merge_lora(model) if lora_state(model) else model


def in_floats(model: TinyGPT) -> TinyGPT:
    """The model without adapters and integers: the weights that it computes with, float32."""
    return dequantize(merged(model))


def adapted(model: TinyGPT, lora: LoRAConfig, seed: int, dtype: torch.dtype) -> TinyGPT:
    """The model with adapters to train, if the config has a rank; what is frozen is in dtype.

    Products are in bfloat16 all the same if that is dtype: half the memory, and no casts.
    """
    if lora.lora:
        add_lora(model, lora, generator=torch.Generator().manual_seed(seed))
    if lora.lora and dtype == torch.bfloat16:
        frozen_to(model, dtype)
    return model


def on_base(
    base: Source, config: GPTConfig, settings: Settings, dtype: torch.dtype, near: Path
) -> TinyGPT:
    """The base with adapters to train."""
    model = adapted(base_model(base, config, near), settings.lora, settings.train.seed, dtype)
    if dtype == torch.bfloat16:  # most weights are copies now: the file need not stay mapped
        for p in model.parameters():
            p.data = p.data.clone()
    return model


def spread(have: int, keep: int) -> list[int]:
    """Which layers to keep, first and last among them: 12, 6 -> [0, 2, 4, 7, 9, 11].

    As DistilBERT starts (Sanh et al. 2019, section 3): layers in between are near their neighbours.
    """
    return [round(i * (have - 1) / max(keep - 1, 1)) for i in range(keep)]


def pretrained_model(
    settings: Settings, config: GPTConfig, tokenizer_sha256: str, dtype: torch.dtype, keep: bool
) -> tuple[TinyGPT, Source]:
    """The model of the run `init`, or with `lora` adapters on it; and what is noted of that run.

    Raises ValueError if the text's tokenizer is not the one that the model knows.
    """
    run = run_dir(settings.train.init)
    check_apart(run_dir(settings.train.run), run)
    checkpoint = load_checkpoint(checkpoint_path(run, "best"), mmap=True)
    if checkpoint["data"]["tokenizer_sha256"] != tokenizer_sha256:
        cure = f"leave --tokenizer out, or prepare it with {run / 'tokenizer.json'}"
        raise ValueError(f"the text has another tokenizer than {run}; {cure}")
    found, config = model_config(checkpoint), as_found(config, checkpoint)
    whole = replace(config, n_layer=max(config.n_layer, found.n_layer))
    if isinstance(whole, BertConfig):
        whole = replace(whole, classes=found.classes)  # type: ignore[attr-defined]
    source = base_of(run, keep=keep)
    if settings.lora.lora:
        if config.n_layer < whole.n_layer:
            raise ValueError(f"n_layer={config.n_layer}: adapters stand on all layers of {run}")
        if checkpoint.get("base"):
            cure = "merge them: python -m utils.hub import --help"
            raise ValueError(f"{run} has adapters itself; {cure}")
        return on_base(source, config, settings, dtype, run.parent), source
    with fitting(str(run)):
        model = in_floats(build_model(checkpoint, whole, run.parent))
    model.blocks = nn.ModuleList(model.blocks[i] for i in spread(whole.n_layer, config.n_layer))
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return assembled(checkpoint.get("kind", "gpt"), config, with_classifier(own, config)), source


def check_start(last: dict[str, Any], settings: Settings) -> None:
    """Raise ValueError if a run that goes on is asked for another start, or for other adapters."""
    then = recorded_settings(last["settings"])
    old, new = flat(then), flat(settings)
    kept = ["objective", "init", "teacher", "mup_width"]
    kept += ["lora", "lora_alpha", "lora_targets", "lora_rs"]
    for name in (*kept, *(f.name for f in fields(QuantizeConfig))):
        same = old[name] == new[name]
        if name in ("init", "teacher") and old[name] and new[name]:
            same = run_dir(old[name]).resolve() == run_dir(new[name]).resolve()
        if name == "lora_alpha":
            same = then.lora.alpha == settings.lora.alpha
        if not same:
            raise ValueError(f"{name}={new[name]!r}, but the run has {old[name]!r}; leave it out")


def first_model(
    settings: Settings,
    data: TokenDataset,
    last: dict[str, Any] | None,
    dtype: torch.dtype,
    keep: bool,
) -> tuple[TinyGPT, Source | None]:
    """A model to train, and what is noted of the run that it starts from, if any.

    Of a checkpoint `last` it has the shape, and the base of its adapters; the rest is yet to be
    loaded. Raises ValueError if the settings ask for another model or start than it has.
    """
    config = shape_of(settings, data)
    build: Any = MODELS[settings.objective.kind][1]
    if last is None and settings.train.init:
        return pretrained_model(settings, config, data.meta["tokenizer_sha256"], dtype, keep)
    if last is None:
        return scale_init(build(config), settings.optim), None
    check_start(last, settings)
    if settings.train.init:  # a pretrained model may have ids that no token has
        config = as_found(config, last)
    same_model(last, config)
    base, near = last.get("base"), run_dir(settings.train.run).parent
    model = on_base(base, config, settings, dtype, near) if base else build(config)
    return model, last.get("source") or base
