"""peft's adapters in and out: adapter_config.json and adapter_model.safetensors."""

from dataclasses import asdict, replace
from pathlib import Path

from model.adapt.lora import add_lora, load_lora, lora_state
from model.convert.peft import from_peft, to_peft
from utils.config import flat, recorded_settings, settings_from
from utils.hub.exporter import free_directory, write_json
from utils.hub.importer import report, write_checkpoint, write_run
from utils.hub.pretrained import Pretrained, read_pretrained
from utils.hub.sources import Found, read_json
from utils.hub.weights import read_safetensors, write_safetensors
from utils.runs import run_dir
from utils.training.models import base_of, in_floats, load_model, merged

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def export_adapters(run: Path, path: Path, which: str = "best") -> None:
    """Write a run's adapters as peft reads them, and say what was written.

    Raises ValueError if the run has none.
    """
    model, _, checkpoint = load_model(run, which)
    base = checkpoint.get("base")
    if not base:
        raise ValueError(f"{run} has no adapters; train some with --lora, or export it --to hf")
    lora = recorded_settings(checkpoint["settings"]).lora
    weights, said = to_peft(lora_state(model), lora, model.config)
    origin = read_pretrained(run)
    name = origin.source.split(",")[0] if origin else base["run"]
    if not origin or Path(name).is_absolute():  # a path of this machine helps nobody else
        name = Path(name).name
    with free_directory(path) as new:
        write_json(new / CONFIG, {**said, "base_model_name_or_path": name})
        write_safetensors(new / WEIGHTS, dict(weights))
    n = sum(t.numel() for t in weights.values())
    print(f"{path}: adapters of {n:,} parameters for {name}; PeftModel.from_pretrained reads them")


def import_adapters(source: Path, path: Path, base: str | None, merge: bool) -> Path:
    """Make a run of peft's adapters on the run `base`, or with merge of both together.

    Raises ValueError for what is missing, unknown, or does not fit the base.
    """
    if base is None:
        raise ValueError(f"{source} has adapters; name the run that they stand on by --base")
    if not (source / WEIGHTS).exists():
        raise ValueError(f"{source} has no {WEIGHTS}; save the adapters as safetensors")
    if path.resolve() == run_dir(base).resolve():
        raise ValueError(f"--run must name another run than the base, {base}")
    model, tokenizer, below = load_model(run_dir(base))
    if below.get("base"):
        raise ValueError(f"{base} has adapters itself; give its base")
    model = in_floats(model)
    try:
        said = read_json(source / CONFIG)
        state, lora = from_peft(read_safetensors(source / WEIGHTS), said, model.config)
        add_lora(model, lora)
        load_lora(model, state, any_rank=True)
    except (KeyError, TypeError) as e:
        raise ValueError(f"{source}: {CONFIG} is damaged ({type(e).__name__}: {e})") from None
    except ValueError as e:
        raise ValueError(f"{source}: {e}") from None
    origin = read_pretrained(run_dir(base)) or Pretrained(Path(base).name)
    if merge:
        origin = replace(origin, sha256="")  # the sum of the base alone
        found = Found(model.config, merged(model).state_dict(), tokenizer, origin)
        write_run(path, found)
        report(path, found)
        return path
    values = {**flat(recorded_settings(below["settings"])), **asdict(lora)}
    settings = settings_from({**values, "init": base, "run": path.name, "optimizer": "adamw"})
    state = {name: tensor.clone() for name, tensor in lora_state(model).items()}
    parts = {"model": state, "base": base_of(run_dir(base))}
    write_checkpoint(path, settings, model.config, tokenizer, origin, parts)
    n = sum(t.numel() for t in state.values())
    print(f"run     {path}: adapters of {n:,} parameters on {base}")
    return path
