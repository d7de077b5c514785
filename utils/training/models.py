"""A run's model from its files, mapped into memory; adapters stand on the model of another run."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import tok
from data.hashes import remembered
from model import MODELS, GPTConfig, TinyGPT
from model.adapt.lora import add_lora, frozen_to, load_lora, lora_state, merge_lora
from model.adapt.lora_config import LoRAConfig
from tok.storage import fingerprint
from utils.config import Settings, settings_from
from utils.flags import own_values
from utils.runs import run_dir
from utils.training.checkpoint import fitting, load_checkpoint, model_config

State = Mapping[str, Tensor]


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

    Of learned positions the first block_size count, if the config has fewer than the state.
    """
    with torch.device("meta"), NothingDrawn():
        model = MODELS[kind][1](config)
    weights = dict(state)
    if config.pos == "learned":
        weights["pos_emb.weight"] = state["pos_emb.weight"][: config.block_size]
    model.load_state_dict(weights, assign=True)  # strict
    if config.tie_weights:
        model.head.weight = model.tok_emb.weight
    return model


def weights_sha256(path: Path) -> str:
    """SHA-256 of the names, shapes and values of a checkpoint's model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_checkpoint(path, mmap=True)["model"].items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def base_of(run: Path, which: str = "best") -> dict[str, str]:
    """What a checkpoint of adapters says of the run they stand on."""
    sha256 = remembered(checkpoint_path(run, which), weights_sha256)
    return {"run": str(run), "ckpt": which, "sha256": sha256}


def base_model(base: Mapping[str, str], config: GPTConfig, near: Path = Path("runs")) -> TinyGPT:
    """The model that adapters stand on, shaped by their config.

    Raises ValueError if it is gone, or has other weights than they were trained on.
    """
    run = Path(base["run"])
    run = run if run.is_dir() else near / run.name
    if not run.is_dir():
        raise ValueError(f"the adapters stand on {base['run']}, which is not there; bring it back")
    if base_of(run, base["ckpt"])["sha256"] != base["sha256"]:
        raise ValueError(f"{run} has other weights than the adapters learnt on; bring those back")
    return build_model(load_checkpoint(checkpoint_path(run, base["ckpt"]), mmap=True), config, near)


def build_model(
    checkpoint: dict[str, Any], config: GPTConfig | None = None, near: Path = Path("runs")
) -> TinyGPT:
    """The model of a checkpoint, shaped by its config or another; adapters stand on their base.

    A base that has been moved is looked for in the directory `near`, too.
    """
    config = config or model_config(checkpoint)
    base = checkpoint.get("base")
    if base is None:
        return assembled(checkpoint.get("kind", "gpt"), config, checkpoint["model"])
    model = base_model(base, config, near)
    add_lora(model, settings_from(own_values(checkpoint["settings"])).lora)
    load_lora(model, checkpoint["model"], any_rank=True)
    return model


def load_model(run: Path, which: str = "best") -> tuple[TinyGPT, tok.Tokenizer, dict[str, Any]]:
    """Load a run's best.pt or last.pt: (model on the CPU, tokenizer, the whole checkpoint).

    Weights are mapped: read from the file when they are used, and not in memory a second time.
    """
    path, file = checkpoint_path(run, which), run / "tokenizer.json"
    checkpoint = load_checkpoint(path, mmap=True)
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


def adapted(model: TinyGPT, lora: LoRAConfig, seed: int, dtype: torch.dtype) -> TinyGPT:
    """The model with adapters to train, if the config has a rank; what is frozen is in dtype.

    Products are in bfloat16 all the same if that is dtype: half the memory, and no casts.
    """
    if lora.lora:
        add_lora(model, lora, generator=torch.Generator().manual_seed(seed))
    if lora.lora and dtype == torch.bfloat16:
        frozen_to(model, dtype)
    return model


def pretrained_model(
    settings: Settings, config: GPTConfig, tokenizer_sha256: str, dtype: torch.dtype
) -> tuple[TinyGPT, dict[str, str] | None]:
    """What a run with `init` starts from: its model, and with `lora` the base of its adapters.

    Raises ValueError if the text's tokenizer is not the one that the model knows.
    """
    run = run_dir(settings.train.init)
    if run.resolve() == run_dir(settings.train.run).resolve():
        raise ValueError(f"--run must name another run than {run}, which --init starts from")
    source = load_checkpoint(checkpoint_path(run, "best"), mmap=True)
    if source["data"]["tokenizer_sha256"] != tokenizer_sha256:
        cure = f"leave --tokenizer out, or prepare it with {run / 'tokenizer.json'}"
        raise ValueError(f"the text has another tokenizer than {run}; {cure}")
    config = replace(config, vocab_size=model_config(source).vocab_size)
    if not settings.lora.lora:
        model = merged(build_model(source, config, run.parent))
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return assembled(source.get("kind", "gpt"), config, own), None
    if source.get("base"):
        raise ValueError(
            f"{run} has adapters itself; merge them: python -m utils.hub import --help"
        )
    base = base_of(run)
    model = adapted(base_model(base, config), settings.lora, settings.train.seed, dtype)
    if dtype == torch.bfloat16:  # most weights are copies now: the file need not stay mapped
        for p in model.parameters():
            p.data = p.data.clone()
    return model, base
