"""Settings of a run: each is declared once, as a dataclass field: YAML key, flag and help line.

Defaults < YAML (--config) < flags. Keys and flags are flat, and an unknown one names its neighbour.
"""

import dataclasses
import math
from argparse import SUPPRESS
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from data.prepare import END
from model.config import GPTConfig, check_choices, setting
from tok.cli import Parser, unknown_name

DEFAULT = Path(__file__).parent.parent / "configs" / "tiny.yaml"


@dataclass(frozen=True)
class DataConfig:
    """Which text, and how it becomes tokens."""

    data: str = setting("data/tiny.txt", "a text file, or a directory written by data.prepare")
    tokenizer: str = setting("bpe", "char, bpe, or the path of a tokenizer's file")
    vocab: int = setting(1000, "size of the BPE vocabulary to train")
    doc_sep: str = setting(END, "what stands between two documents of the text")
    sampling: Literal["shuffle", "random"] = setting(
        "shuffle", "each window once per epoch, or windows drawn with replacement"
    )
    mixture: str = setting("", "texts and weights in place of data: a.txt=3 b.txt=1")
    phases: str = setting("", "weights and block_size by step: until=200 block_size=64 a=1; b=1")

    def __post_init__(self):
        check_choices(self)

    @property
    def text(self) -> dict[str, str | int]:
        """What shapes the tokens, for `open_sources`."""
        names = ("data", "tokenizer", "vocab", "doc_sep", "mixture")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer, and its learning rate over time."""

    optimizer: Literal["adamw", "muon"] = setting(
        "adamw", "muon moves the blocks' matrices, AdamW the rest"
    )
    lr: float = setting(1e-3, "highest learning rate")
    min_lr: float = setting(1e-4, "learning rate where the schedule ends")
    schedule: Literal["cosine", "linear", "trapezoid"] = setting(
        "cosine", "how the learning rate falls from lr to min_lr"
    )
    warmup: int = setting(100, "steps over which the learning rate rises to lr")
    cooldown: float = setting(0.4, "share of the steps over which a trapezoid falls")
    weight_decay: float = setting(0.1, "decay of matrices; vectors have none")
    beta1: float = setting(0.9, "AdamW's memory of the gradient")
    beta2: float = setting(0.99, "AdamW's memory of the squared gradient")
    momentum: float = setting(0.95, "Muon's memory of the gradient")
    grad_clip: float = setting(1.0, "largest norm of the gradient; 0 = no limit")

    def __post_init__(self):
        check_choices(self)
        if self.lr <= 0:
            raise ValueError(f"lr={self.lr} must be positive; try 0.001")
        if not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"min_lr={self.min_lr} must be in [0, lr={self.lr}]; lower it, too")
        if not 0 <= self.cooldown <= 1:
            raise ValueError(f"cooldown={self.cooldown} must be in [0, 1], a share of the steps")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, 1)")
        for name in ("warmup", "weight_decay", "grad_clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")


@dataclass(frozen=True)
class TrainConfig:
    """How long, in what portions, where, and how often to look."""

    run: str = setting("", "a name under runs/, or a path; default: the name of the config or text")
    steps: int = setting(1000, "optimizer steps")
    minutes: float = setting(0.0, "minutes to train, in place of steps; 0 = no limit")
    patience: int = setting(0, "stop after so many evaluations without a better one; 0 = never")
    batch_size: int = setting(16, "sequences per micro-batch")
    accum: int = setting(1, "micro-batches per step and process (gradient accumulation)")
    eval_every: int = setting(250, "steps between evaluations, each of which saves")
    keep: int = setting(0, "newest evaluations whose checkpoint is kept as stepN.pt, too")
    log_every: int = setting(10, "steps between lines of metrics.csv")
    sample: int = setting(60, "tokens of text to write at each evaluation; 0 = none")
    seed: int = setting(1337, "of the weights, the batches and the dropout")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "of the matrix products; auto = the best of the device"
    )
    compile: bool = setting(False, "torch.compile the model")
    parallel: Literal["ddp", "fsdp"] = setting(
        "ddp", "under torchrun: each process holds the model, or a slice of it"
    )
    recompute: bool = setting(
        False, "activations again in the backward pass: less memory, a third more work"
    )

    def __post_init__(self):
        check_choices(self)
        for name in ("steps", "batch_size", "accum", "eval_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must be in [0, 2**63)")
        for name in ("sample", "minutes", "patience", "keep"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")
        if self.parallel == "fsdp" and self.sample:
            raise ValueError(f"parallel=fsdp cannot write sample={self.sample}; use --sample 0")


@dataclass(frozen=True)
class Settings:
    """All settings of a run. Build with `settings_from`; change with dataclasses.replace."""

    model: GPTConfig
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig

    def __post_init__(self):
        if self.train.parallel == "fsdp" and self.optim.optimizer == "muon":
            raise ValueError("optimizer=muon needs whole matrices; use --parallel ddp, or adamw")


SECTIONS = {"model": GPTConfig, "data": DataConfig, "optim": OptimConfig, "train": TrainConfig}
FIELDS = {  # vocab_size follows from the tokenizer, so it is no setting of a run
    f.name: f for cls in SECTIONS.values() for f in fields(cls) if f.name != "vocab_size"
}


def one_line(value: Any) -> Any:
    """YAML's mapping, or list of mappings, as a flag's text: [{a: 1, b: 2}, {}] -> "a=1 b=2; "."""
    if isinstance(value, list):
        return "; ".join(str(one_line(part)) for part in value)
    if isinstance(value, dict):
        return " ".join(f"{name}={one_line(part)}" for name, part in value.items())
    return value


def coerce(name: str, value: Any) -> Any:
    """Turn a flag's text, or YAML's value (it reads 1e-3 as text), into the field's type."""
    kind: Any = FIELDS[name].type
    if name in ("mixture", "phases"):
        value = one_line(value)
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


def flat(settings: Settings) -> dict[str, Any]:
    """All settings as one dict, what `settings_from` takes."""
    every = {k: v for section in asdict(settings).values() for k, v in section.items()}
    return {name: every[name] for name in FIELDS}


def read_yaml(path) -> dict[str, Any]:
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


def write_yaml(settings: Settings, path) -> None:
    """Write all settings, by section, so that `--config` reads them back."""
    values, lines = flat(settings), []
    for section, cls in SECTIONS.items():
        lines.append(f"# {section}")
        own = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        lines.append(yaml.safe_dump(own, sort_keys=False, allow_unicode=True))
    Path(path).write_text("\n".join(lines), encoding="utf-8")


def add_settings(parser: Parser) -> None:
    """Give a parser --config and one flag per setting, grouped by section."""
    lent = read_yaml(DEFAULT)  # what holds when there is no --config
    parser.add_argument(
        "--config", metavar="YAML", help="settings over these defaults (default configs/tiny.yaml)"
    )
    for section, cls in SECTIONS.items():
        group = parser.add_argument_group(section)
        for f in fields(cls):
            if f.name not in FIELDS:
                continue
            choices = "|".join(get_args(f.type))
            bare: dict[str, Any] = {"nargs": "?", "const": "true"} if f.type is bool else {}
            shown = repr(f.default) if f.default == "" else f.default
            if lent.get(f.name, f.default) != f.default:
                shown = f"{shown}; in tiny.yaml {lent[f.name]!r}"
            group.add_argument(
                f"--{f.name}",
                default=SUPPRESS,
                metavar=choices or getattr(f.type, "__name__", "").upper(),
                help=f"{f.metadata['help']} (default {shown})",
                **bare,
            )


def settings_of(args, base: Path | None = None) -> Settings:
    """Settings of parsed flags over a config: `args.config`, else `base`, else configs/tiny.yaml.

    With another text, tiny.yaml lends its model and training, not how its own text is read.
    """
    flags = {name: value for name, value in vars(args).items() if name in FIELDS}
    config = Path(args.config or base or DEFAULT)
    values = read_yaml(config)
    if config == base:  # a run's own: where it names no sampling, 0.1.0 began it
        values = {"sampling": "random", **values}
    default = config.resolve() == DEFAULT.resolve()
    if default and not Path(values["data"]).exists():  # called from another directory
        values["data"] = str(DEFAULT.parent.parent / values["data"])
    text = Path(flags.get("data", values.get("data", ""))).resolve()
    other_text = default and text != Path(values["data"]).resolve()
    if other_text:
        own = {f.name for f in fields(DataConfig)}
        values = {k: v for k, v in values.items() if k not in own}
    try:
        settings = settings_from(values)  # on its own first, so that an error names the right place
    except ValueError as e:
        raise ValueError(f"{config}: {e}") from None
    settings = settings_from({**values, **flags})
    if not settings.train.run:
        named = Path(settings.data.data) if other_text else config
        train = dataclasses.replace(settings.train, run=named.stem)
        settings = dataclasses.replace(settings, train=train)
    return settings


def run_dir(name: str) -> Path:
    """Where a run lives: runs/NAME, or the path itself if the name has a slash."""
    path = Path(name)
    return (
        path if len(path.parts) > 1 or path.is_absolute() or name in (".", "..") else "runs" / path
    )


def settings_table() -> str:
    """All settings as Markdown, the content of docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Written by `python -m utils.config`; a setting is declared once, in code.",
    ]
    lines += [
        "Each is a flag of `train.py` and `sweep.py` and a key of `configs/tiny.yaml` and its like."
    ]
    for section, cls in SECTIONS.items():
        lines += [
            "",
            f"## {section}",
            "",
            "| setting | default | what it is |",
            "| --- | --- | --- |",
        ]
        for f in fields(cls):
            if f.name in FIELDS:
                default = repr(f.default) if isinstance(f.default, str) else f.default
                choices = f" ({', '.join(get_args(f.type))})" if get_args(f.type) else ""
                lines.append(f"| `{f.name}` | `{default}` | {f.metadata['help']}{choices} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(settings_table(), end="")
