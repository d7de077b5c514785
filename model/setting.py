"""How a setting is declared: a dataclass field with its line of help, its choices checked."""

from dataclasses import field, fields
from typing import Any, get_args


def setting(default: Any, help: str) -> Any:
    """Declare a field with the line of help that the flag, `--help` and the docs show."""
    return field(default=default, metadata={"help": help})


def check_choices(config: Any) -> None:
    """Raise ValueError for a field of type Literal[...] whose value is not one of its choices."""
    for f in fields(config):
        value, choices = getattr(config, f.name), get_args(f.type)
        if choices and value not in choices:
            raise ValueError(f"{f.name}={value!r} is not one of {', '.join(map(str, choices))}")
