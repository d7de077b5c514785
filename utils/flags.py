"""Settings as flags: defaults < recipe < YAML (--config) < --NAME VALUE."""

from argparse import SUPPRESS, Namespace
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from model.config import GPTConfig
from tok.cli import Parser
from utils.config import (
    FIELDS,
    SECTIONS,
    DataConfig,
    Settings,
    coerce,
    flat,
    one_line,
    read_yaml,
    settings_from,
)
from utils.recipe import ENDING, fine_tuning, recipe, text_bytes
from utils.runs import run_dir

DEFAULT = Path(__file__).parent.parent / "configs" / "tiny.yaml"
FREE = ("block_size", "dropout", "attn_dropout", "attn")  # what --init leaves open of a model


def add_settings(parser: Parser) -> None:
    """Give a parser --config and one flag per setting, grouped by section."""
    defaults = read_yaml(DEFAULT)  # what holds when there is no --config
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
            if defaults.get(f.name, f.default) != f.default:
                shown = f"{shown}; in tiny.yaml {defaults[f.name]!r}"
            if f.name in recipe(0):
                shown = f"{shown}; by the length of a text of yours"
            group.add_argument(
                f"--{f.name}",
                default=SUPPRESS,
                metavar=choices or getattr(f.type, "__name__", "").upper(),
                help=f"{f.metadata['help']} (default {shown})",
                **bare,
            )


def own_values(values: dict[str, Any]) -> dict[str, Any]:
    """A run's own settings: 0.1.0 drew windows at random, and up to 0.2.0 `dropout` was of all."""
    return {"sampling": "random", "attn_dropout": values.get("dropout", 0.0), **values}


def started_from(init: str, values: dict[str, Any], n_bytes: int) -> dict[str, Any]:
    """Settings of a training that starts from the run `init`: its model, tokenizer, `fine_tuning`.

    Raises ValueError if there is no such run, or if values ask for another model than it holds.
    """
    run = run_dir(init)
    if not (run / "config.yaml").is_file():
        raise ValueError(f"init={init}: {run} is no run; see python -m utils.hub import --help")
    source = flat(settings_from(own_values(read_yaml(run / "config.yaml"))))
    shape = {f.name: source[f.name] for f in fields(GPTConfig) if f.name in FIELDS}
    for name in shape:
        if name in values and name not in FREE and coerce(name, values[name]) != shape[name]:
            asked = f"{name}={values[name]}, but {run} has {name}={shape[name]}"
            raise ValueError(f"{asked}, which --init keeps; leave it out")
    rank = coerce("lora", values.get("lora", 0))
    chosen = fine_tuning(n_bytes, rank > 0, shape["block_size"])
    return {**shape, "tokenizer": str(run / "tokenizer.json"), **chosen}


def values_of(config: Path, flags: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What a config says, with what the text and `init` choose; and the name of the run.

    For another text than tiny.yaml's, `recipe` chooses by its length, and how tiny.yaml's own is
    read is left out. With init, `started_from` chooses, and all of tiny.yaml is left out.
    """
    values, name = read_yaml(config), config.stem
    default = config.resolve() == DEFAULT.resolve()
    if default and not Path(values["data"]).exists():  # called from another directory
        values["data"] = str(DEFAULT.parent.parent / values["data"])
    own_text, init = values.get("data", ""), str(flags.get("init", values.get("init", "")))
    both = {**values, **flags}
    data, mixture = str(both.get("data", "")), str(one_line(both.get("mixture", "")))
    other = Path(data).resolve() != Path(own_text).resolve() or "mixture" in flags
    chosen: dict[str, Any] = {}
    if default and (other or init):
        name = name if mixture else Path(data).stem
        left_out = values.keys() - {"data"} if init else {f.name for f in fields(DataConfig)}
        values = {k: v for k, v in values.items() if k not in left_out}
    if init:
        name = f"{name}-{run_dir(init).name}"
        chosen = started_from(init, {**values, **flags}, text_bytes(data, mixture))
    elif default and other:
        chosen = recipe(text_bytes(data, mixture))
    if "steps" in flags or "minutes" in flags:  # then it ends when it was told to
        chosen = {k: v for k, v in chosen.items() if k not in ENDING}
    return ({**chosen, **values} if init else {**values, **chosen}), name


def settings_of(args: Namespace, base: Path | None = None) -> Settings:
    """Settings of parsed flags over a config: `args.config`, else `base`, else configs/tiny.yaml.

    `base` is the config of a run that goes on: all is said there.
    """
    flags = {name: value for name, value in vars(args).items() if name in FIELDS}
    config = Path(args.config or base or DEFAULT)
    own = config == base
    values, name = (own_values(read_yaml(config)), config.stem) if own else values_of(config, flags)
    try:
        settings = settings_from(values)  # on its own first, so that an error names the right file
    except ValueError as e:
        raise ValueError(f"{config}: {e}") from None
    settings = settings_from({**values, **flags})
    if not settings.train.run:
        settings = replace(settings, train=replace(settings.train, run=name))
    return settings


def overfitting(settings: Settings) -> Settings:
    """The same for a run of its own that learns one batch by heart: no dropout, one evaluation."""
    s, model = settings.train, replace(settings.model, dropout=0.0, attn_dropout=0.0)
    own = replace(s, run=f"{s.run.rstrip('/')}-overfit", eval_every=s.steps, patience=0)
    return replace(settings, model=model, train=own)
