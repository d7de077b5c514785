"""What a run keeps of the pretrained model that it comes from: pretrained.json."""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tok import END_OF_TEXT, Tokenizer
from tok.files import as_text, replacing
from utils.hub.package import SMOLLM2
from utils.runs import has_model, run_dir
from utils.writing.template import ChatTemplate

NAME = "pretrained.json"
VERSION = 1


@dataclass(frozen=True)
class Pretrained:
    """Where a model comes from, and how people talk to it; special tokens as texts."""

    source: str
    license: str = ""
    architecture: str = ""  # gpt2 or llama
    bos: str | None = None
    eos: str | None = None
    chat_template: str | None = None  # Jinja
    sha256: str = ""  # of what was imported


def imported_name(source: str) -> str:
    """The run that `--init SOURCE` makes, or is: models/my.gguf -> my."""
    return Path(os.path.abspath(source)).name.removesuffix(".gguf")


def is_run(source: str) -> bool:
    """Whether --init names a run: no model from elsewhere goes by that name, and one is there."""
    elsewhere = source == SMOLLM2 or (Path(source) / "config.json").exists()
    return not elsewhere and has_model(run_dir(source))


def ends(tokenizer: Tokenizer, origin: Pretrained) -> dict[str, str]:
    """The special tokens that begin and end a text, bos and eos, as far as there are any."""
    known = END_OF_TEXT if END_OF_TEXT in tokenizer.special_tokens else None
    found = {"bos": origin.bos or known, "eos": origin.eos or known}
    return {name: token for name, token in found.items() if token}


def write_pretrained(run: Path, pretrained: Pretrained) -> None:
    """Write the file into a run's directory."""
    values = {"version": VERSION, **asdict(pretrained)}
    with replacing(run / NAME) as part:
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        Path(part).write_text(text, encoding="utf-8")


def read_pretrained(run: Path) -> Pretrained | None:
    """Read the file, or None where a run has none. ValueError if it is damaged or too new."""
    path = run / NAME
    if not path.exists():
        return None
    try:
        values = json.loads(as_text(path.read_bytes(), str(path)))
        version = values.pop("version")
        known = {f.name for f in fields(Pretrained)}
        if version != VERSION or set(values) - known:
            raise ValueError(f"version {version!r}, this program reads {VERSION}")
        if not all(v is None or isinstance(v, str) for v in values.values()):
            raise ValueError("a value is no text")
        return Pretrained(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"{path} is damaged ({e}); import the model again") from None


def read_template(run: Path) -> ChatTemplate:
    """The chat template that an imported run came with. ValueError for a run that has none."""
    pretrained = read_pretrained(run)
    if pretrained is None or pretrained.chat_template is None:
        raise ValueError(f"{run} has no chat template; --interactive writes on from what you type")
    return ChatTemplate(pretrained.chat_template, pretrained.bos, pretrained.eos)
