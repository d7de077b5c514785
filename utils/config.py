"""Settings of a run: each is declared once, as a dataclass field: YAML key, flag and help line.

Keys and flags are flat, and an unknown one names its neighbour.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from model.adapt.lora_config import LoRAConfig
from model.adapt.quant_config import QuantizeConfig
from model.config import GPTConfig
from model.setting import check_choices, setting
from tok import END_OF_TEXT
from tok.cli import unknown_name
from tok.train import TRAINERS
from utils.distill_config import DistillConfig
from utils.mup_config import check_mup
from utils.objective_config import ObjectiveConfig
from utils.together import check_bert, check_lora


@dataclass(frozen=True)
class DataConfig:
    """Which text, and how it becomes tokens."""

    data: str = setting("data/tiny.txt", "a text file, or a directory written by data.prepare")
    tokenizer: str = setting("bpe", "char, bpe, unigram, wordpiece, or a tokenizer's file")
    vocab: int = setting(1000, "size of the vocabulary to train")
    doc_sep: str = setting(END_OF_TEXT, "separator between two documents of the text")
    sampling: Literal["shuffle", "random"] = setting(
        "shuffle", "each window once per epoch, or windows drawn with replacement"
    )
    mixture: str = setting("", "several texts with weights, instead of data: a.txt=3 b.txt=1")
    phases: str = setting(
        "", "change weights and block_size by step: until=200 block_size=64 a=1; b=1"
    )

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer, and its learning rate over time."""

    optimizer: Literal["adamw", "muon"] = setting(
        "adamw", "adamw, or muon for the blocks' matrices and AdamW for the rest"
    )
    lr: float = setting(1e-3, "highest learning rate")
    min_lr: float = setting(-1.0, "learning rate at the end of the schedule; -1 = lr / 10")
    schedule: Literal["cosine", "linear", "trapezoid"] = setting(
        "cosine", "shape of the decay from lr to min_lr"
    )
    warmup: int = setting(100, "steps over which the learning rate rises to lr")
    cooldown: float = setting(0.4, "share of the steps in which a trapezoid decays")
    weight_decay: float = setting(0.1, "weight decay of matrices; vectors have none")
    beta1: float = setting(0.9, "decay of AdamW's mean of the gradient")
    beta2: float = setting(0.99, "decay of AdamW's mean of the squared gradient")
    momentum: float = setting(0.95, "decay of Muon's mean of the gradient")
    mup_width: int = setting(
        0, "muP: the width whose learning rate this one shares, at one head size; 0 = none"
    )
    grad_clip: float = setting(1.0, "clip the gradient's norm to this; 0 = never")

    def __post_init__(self) -> None:
        check_choices(self)
        if self.lr <= 0:
            raise ValueError(f"lr={self.lr} must be positive; try 0.001")
        if self.min_lr != -1 and not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"min_lr={self.min_lr} must be in [0, lr={self.lr}]; lower it, too")
        if not 0 <= self.cooldown <= 1:
            raise ValueError(f"cooldown={self.cooldown} must be in [0, 1], a share of the steps")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, 1)")
        for name in ("warmup", "weight_decay", "grad_clip", "mup_width"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")

    @property
    def last_lr(self) -> float:
        """Learning rate at the end of the schedule."""
        return self.lr / 10 if self.min_lr == -1 else self.min_lr


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, in what batches, where, and how often to evaluate and save."""

    run: str = setting("", "a name under runs/, or a path; default: the name of the config or text")
    init: str = setting(
        "", "start from a model: a run, a Hugging Face directory, a GGUF file, or smollm2"
    )
    keep_zeros: bool = setting(False, "leave weights at 0 that begin there, as pruning made them")
    steps: int = setting(1000, "optimizer steps")
    minutes: float = setting(0.0, "minutes to train, instead of steps; 0 = no limit")
    patience: int = setting(0, "stop after this many evaluations without a better loss; 0 = never")
    batch_size: int = setting(16, "sequences per micro-batch")
    accum: int = setting(1, "micro-batches per step and process (gradient accumulation)")
    eval_every: int = setting(250, "steps between evaluations, each of which saves")
    save_minutes: float = setting(5.0, "save last.pt this often between evaluations; 0 = never")
    keep: int = setting(0, "keep the checkpoints of the newest evaluations as stepN.pt")
    log_every: int = setting(10, "steps between lines of metrics.csv")
    watch: bool = setting(
        False, "note each layer's norms, updates, attention and dead units in watch.csv"
    )
    tensorboard: bool = setting(False, "write for TensorBoard, too, into the run's directory")
    sample: int = setting(60, "write a text of this many tokens at each evaluation; 0 = none")
    seed: int = setting(1337, "seed of weights, batches and dropout")
    device: str = setting("auto", "device: auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "precision of the matrix products; auto = the best of the device, on a CPU by trial",
    )
    compile: bool = setting(False, "torch.compile the model")
    parallel: Literal["ddp", "fsdp"] = setting(
        "ddp", "under torchrun: each process holds the model (ddp) or a shard of it (fsdp)"
    )
    recompute: bool = setting(
        False, "activation checkpointing: less memory, a third more computation"
    )

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("steps", "batch_size", "accum", "eval_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must be in [0, 2**63)")
        for name in ("sample", "minutes", "patience", "keep", "save_minutes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")
        if self.parallel == "fsdp" and self.sample:
            raise ValueError(f"parallel=fsdp cannot write sample={self.sample}; use --sample 0")
        if self.parallel == "fsdp" and self.watch:
            raise ValueError("parallel=fsdp has no whole layers to watch; use --parallel ddp")


@dataclass(frozen=True)
class Settings:
    """All settings of a run. Build with `settings_from`; change with dataclasses.replace."""

    model: GPTConfig
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    lora: LoRAConfig
    distill: DistillConfig
    quantize: QuantizeConfig
    objective: ObjectiveConfig

    def __post_init__(self) -> None:
        if self.train.parallel == "fsdp" and self.optim.optimizer == "muon":
            raise ValueError("optimizer=muon needs full matrices; use --parallel ddp, or adamw")
        if self.train.parallel == "fsdp" and self.quantize.bits:
            raise ValueError("quantize rounds whole rows, not shards; use --parallel ddp")
        tied, sharded = self.model.tie_weights, self.train.parallel == "fsdp"
        check_mup(self.optim.mup_width, tied=tied, lora=self.lora.lora, sharded=sharded)
        check_bert(self)
        check_lora(self)

    @property
    def text(self) -> dict[str, Any]:
        """What shapes the tokens, for `data.mixture.open_mixture`."""
        names = ("data", "tokenizer", "vocab", "doc_sep", "mixture")
        return {name: getattr(self.data, name) for name in names} | self.objective.text

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one process learns from in an optimizer step."""
        return self.train.batch_size * self.train.accum * self.model.block_size


SECTIONS = {
    "model": GPTConfig,
    "data": DataConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
    "lora": LoRAConfig,
    "distill": DistillConfig,
    "quantize": QuantizeConfig,
    "objective": ObjectiveConfig,
}
FIELDS = {  # vocab_size follows from the tokenizer, so it is no setting of a run
    f.name: f for cls in SECTIONS.values() for f in fields(cls) if f.name != "vocab_size"
}


def flag_text(value: Any) -> Any:
    """YAML's mapping, or list of mappings, as a flag's text: [{a: 1, b: 2}, {}] -> "a=1 b=2; "."""
    if isinstance(value, list):
        return "; ".join(str(flag_text(part)) for part in value)
    if isinstance(value, dict):
        return " ".join(f"{name}={flag_text(part)}" for name, part in value.items())
    return value


def coerce(name: str, value: Any) -> Any:
    """Turn a flag's text, or YAML's value (it reads 1e-3 as text), into the field's type."""
    kind: Any = FIELDS[name].type
    if name in ("mixture", "phases"):
        value = flag_text(value)
    if get_args(kind):  # Literal: its choices are checked by the dataclass
        return str(value)
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind is str and isinstance(value, str | int | float):
        return str(value)
    if kind in (int, float) and not isinstance(value, bool):
        try:
            number = kind(value if isinstance(value, str) or kind is float else str(value))
            if math.isfinite(number):
                return number
        except (TypeError, ValueError, OverflowError):
            pass
    wanted = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}[
        kind
    ]
    raise ValueError(f"{name}={value!r} is not {wanted}; the default is {FIELDS[name].default!r}")


def settings_from(values: dict[str, Any]) -> Settings:
    """Build settings from flat values. ValueError for an unknown name or an impossible value."""
    for name in values:
        if name == "vocab_size":
            raise ValueError("vocab_size follows from the tokenizer; set vocab instead")
        if name not in FIELDS:
            raise ValueError(unknown_name("setting", str(name), list(FIELDS)))
    values = {name: coerce(name, value) for name, value in values.items()}
    sections: dict[str, Any] = {
        section: cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
        for section, cls in SECTIONS.items()
    }
    return Settings(**sections)


def recorded_settings(values: dict[str, Any], run: Path | None = None) -> Settings:
    """The settings that a run has recorded, in any version; its tokenizer is its copy in `run`.

    0.1.0 drew windows at random, and up to 0.2.0 `dropout` was of attention weights, too.
    """
    before = {"sampling": "random", "attn_dropout": values.get("dropout", 0.0)}
    settings = settings_from({**before, **values})
    if run is None or settings.data.tokenizer in TRAINERS:
        return settings
    own = replace(settings.data, tokenizer=str(run / "tokenizer.json"))
    return replace(settings, data=own)


def resolved(config: GPTConfig) -> dict[str, Any]:
    """A model's shape with the widths that a 0 stands for: equal shapes are equal here."""
    widths = {"d_ff": config.hidden, "n_kv_head": config.kv_heads, "head_dim": config.head_size}
    return {**asdict(config), **widths}


def flat(settings: Settings) -> dict[str, Any]:
    """All settings as one dict, what `settings_from` takes."""
    every = {k: v for section in asdict(settings).values() for k, v in section.items()}
    return {name: every[name] for name in FIELDS}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a config. Raises ValueError if it is not YAML, or not a mapping of settings."""
    if not Path(path).is_file():
        raise ValueError(f"no config file {path}; see configs/")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} is not YAML: {e}") from None
    if values is not None and not isinstance(values, dict):
        raise ValueError(f"{path} must hold `name: value` lines, not {type(values).__name__}")
    return values or {}


def write_yaml(settings: Settings, path: str | Path) -> None:
    """Write all settings, by section, so that `--config` reads them back."""
    values, lines = flat(settings), []
    for section, cls in SECTIONS.items():
        lines.append(f"# {section}")
        own = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        lines.append(yaml.safe_dump(own, sort_keys=False, allow_unicode=True))
    Path(path).write_text("\n".join(lines), encoding="utf-8")
