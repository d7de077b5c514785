"""Settings as flags: defaults < recipe < YAML (--config) < --NAME VALUE.

What a training starts from (--init) has a say, too: its model and tokenizer are kept.
"""

from argparse import SUPPRESS, Namespace
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from data.phases import parse_counts
from model.config import GPTConfig
from tok.cli import Parser
from utils.config import (
    FIELDS,
    SECTIONS,
    DataConfig,
    Settings,
    coerce,
    flag_text,
    flat,
    read_yaml,
    recorded_settings,
    resolved,
    settings_from,
)
from utils.hub.pretrained import imported_name, is_run
from utils.objective_config import ObjectiveConfig
from utils.recipe import ENDING, fine_tuning, going_further, recipe, text_bytes
from utils.runs import RUNS, check_apart, has_model, run_dir

Values = dict[str, Any]
DEFAULT = Path(__file__).parent.parent / "configs" / "tiny.yaml"
BERT = DEFAULT.with_name("bert_tiny.yaml")  # the same where a BERT is to be trained
FREE = {"block_size", "dropout", "attn_dropout", "attn"}  # what --init leaves open of a model
OF_TEXT = {f.name for f in fields(DataConfig)} | {"next_sentence"}  # only documents have some
OBJECTIVE = [f.name for f in fields(ObjectiveConfig)]
KEPT = {f.name for f in fields(GPTConfig) if f.name in FIELDS} - FREE | {"vocab"}


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


def flags_of(args: Namespace) -> Values:
    """The settings among parsed flags."""
    return {name: value for name, value in vars(args).items() if name in FIELDS}


def is_default(config: str | None) -> bool:
    """Whether settings come from configs/tiny.yaml, which nobody needs to name."""
    return not config or Path(config).resolve() == DEFAULT.resolve()


def is_bert(values: Values) -> bool:
    """Whether values ask for a BERT."""
    return values.get("objective", "next") != "next"


def tiny(config: Path = DEFAULT) -> Values:
    """What configs/tiny.yaml says; its text is found from another directory, too."""
    values = read_yaml(config)
    if not Path(values["data"]).exists():
        values["data"] = str(DEFAULT.parent.parent / values["data"])
    return values


def check_alone(asked: Values) -> None:
    """Raise ValueError for what is wrong whatever a training starts from."""
    for name in asked.keys() & KEPT:
        coerce(name, asked[name])
    kept = KEPT if asked.get("init") else set()
    settings_from({name: value for name, value in asked.items() if name not in kept})


def asked_by(args: Namespace) -> Values:
    """What is asked for: flags over their --config. configs/tiny.yaml is a default, but its text.

    Raises ValueError, which names the config if it is wrong by itself.
    """
    flags = flags_of(args)
    if is_default(args.config):
        return {"data": tiny()["data"], **flags}
    values = read_yaml(args.config)
    try:
        given = {name: value for name, value in flags.items() if name in ("init", "lora")}
        check_alone({**values, **given})  # which other settings need
    except ValueError as e:
        raise ValueError(f"{args.config}: {e}") from None
    return {**values, **flags}


def run_name(args: Namespace) -> str:
    """The run that is asked for; else named by config or text, and by what it starts from."""
    asked, config = asked_by(args), Path(args.config or DEFAULT)
    by_text = is_default(args.config) and not asked.get("mixture")
    name = Path(asked["data"]).stem if by_text else config.stem
    init = str(asked.get("init", ""))
    return str(asked.get("run", "")) or (f"{name}-{imported_name(init)}" if init else name)


def until_told(chosen: Values, asked: Values) -> Values:
    """What a recipe has chosen; without ENDING, which suits its steps, if others are asked for."""
    told = "steps" in asked or "minutes" in asked
    return {name: value for name, value in chosen.items() if not (told and name in ENDING)}


def size_of(asked: Values) -> int:
    """Bytes of the text, or texts, that are asked for."""
    data = str(asked.get("data", FIELDS["data"].default))
    return text_bytes(data, str(flag_text(asked.get("mixture", ""))))


def for_text(asked: Values) -> Values:
    """configs/tiny.yaml; for another text than its own, with what `recipe` chooses by the length.

    Then how tiny.yaml's own text is read is left out. For a BERT, what bert_tiny.yaml says.
    """
    values = tiny(BERT if is_bert(asked) else DEFAULT)
    if asked.get("objective") == "classify":
        values = {name: value for name, value in values.items() if name not in OBJECTIVE}
    if Path(asked["data"]).resolve() == Path(values["data"]).resolve() and "mixture" not in asked:
        return values
    left = {name: values[name] for name in values.keys() - OF_TEXT}
    return left if is_bert(asked) else {**left, **until_told(recipe(size_of(asked)), asked)}


def from_run(asked: Values) -> Values:
    """Settings that start from the run asked["init"]: its model and tokenizer, and `fine_tuning`.

    Of its layers n_layer may take some. Raises ValueError if there is no such run, or if another
    model than it holds is asked for.
    """
    run = run_dir(str(asked["init"]))
    if not (run / "config.yaml").is_file():
        raise ValueError(f"init={asked['init']}: {run} has no config.yaml; import or train it anew")
    source = recorded_settings(read_yaml(run / "config.yaml"))
    values, model = flat(source), source.model
    for name in sorted(asked.keys() & KEPT):
        if name == "n_layer" and 0 < coerce(name, asked[name]) < model.n_layer:
            continue
        if coerce(name, asked[name]) not in (values[name], resolved(model).get(name)):
            said = f"{name}={asked[name]}, but {run} has {name}={values[name]}"
            raise ValueError(f"{said}, which --init keeps; leave it out")
    rank, own = coerce("lora", asked.get("lora", 0)), {name: values[name] for name in OBJECTIVE}
    objective = asked.get("objective", own["objective"])
    goal = own if own["objective"] == objective else {"objective": objective}
    if is_bert(goal):
        chosen = until_told(going_further(objective, size_of(asked), model.block_size), asked)
    else:
        chosen = until_told(fine_tuning(size_of(asked), rank > 0, model.block_size), asked)
    least = max(model.window + 1, model.emb_conv)  # of block_size, that the model can be built
    chosen["block_size"] = max(chosen["block_size"], least)
    kept = {name: values[name] for name in KEPT}
    zeros = {"keep_zeros": source.train.keep_zeros and not rank}  # which adapters would fill
    return {**kept, **goal, **zeros, "tokenizer": str(run / "tokenizer.json"), **chosen}


def tokens_of(asked: Values) -> Values:
    """The tokenizer of the run asked["teacher"], which its student must have, if none is asked for.

    Raises ValueError if there is no such run.
    """
    if not asked.get("teacher") or "tokenizer" in asked:
        return {}
    run = run_dir(str(asked["teacher"]))
    if not has_model(run):
        cure = "train it, or import it: python -m utils.hub import --help"
        raise ValueError(f"teacher={asked['teacher']}: no run {run}; {cure}")
    return {"tokenizer": str(run / "tokenizer.json")}


def imported(asked: Values, runs: Path) -> Values:
    """What is asked for, where `init` is a run: one that is imported into `runs` if it is none yet.

    Raises ValueError or OSError before that for what is wrong whatever it holds.
    """
    from data.prepare import check_source

    check_alone(asked)
    init, run = str(asked["init"]), run_dir(asked["run"])
    data = str(asked.get("data", FIELDS["data"].default))
    named = parse_counts(str(flag_text(asked.get("mixture", ""))), "mixture")
    for path in named or [data] * (asked.get("objective") != "classify"):  # whose is a folder
        check_source(Path(path))
    if is_run(init):
        return asked
    check_apart(run, run_dir(imported_name(init)))
    from utils.hub.importer import as_run  # needs torch: here, after all that does not

    return {**asked, "init": as_run(init, runs)}


def going_on(flags: Values, base: Path) -> Settings:
    """Settings of a run that goes on, whose config is `base`, with flags over them."""
    try:
        recorded = flat(recorded_settings(read_yaml(base), base.parent))
    except ValueError as e:
        raise ValueError(f"{base}: {e}") from None
    init = str(flags.get("init", ""))
    if init and not is_run(init):  # it has long been imported
        flags = {**flags, "init": imported_name(init)}
    return settings_from({**recorded, **flags})


def settings_of(args: Namespace, base: Path | None = None, runs: Path = RUNS) -> Settings:
    """Settings of parsed flags over a config: `args.config`, else `base`, else configs/tiny.yaml.

    `base` is the config of a run that goes on: all is said there. What `init` names becomes a run
    in the directory `runs` if it is none yet.
    """
    if base and not args.config:
        return going_on(flags_of(args), base)
    asked = {**asked_by(args), "run": run_name(args)}
    if asked.get("init"):
        asked = imported(asked, runs)
        below = from_run(asked)
    else:
        below = for_text(asked) if is_default(args.config) else {}
        below |= tokens_of(asked)
    return settings_from({**below, **asked})


def overfitting(settings: Settings) -> Settings:
    """The same for a run of its own that learns one batch by heart: no dropout, one evaluation."""
    lora = replace(settings.lora, lora_dropout=0.0)
    s, model = settings.train, replace(settings.model, dropout=0.0, attn_dropout=0.0)
    own = replace(s, run=f"{s.run.rstrip('/')}-overfit", eval_every=s.steps, patience=0)
    return replace(settings, model=model, train=own, lora=lora)
