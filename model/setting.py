"""How a setting is declared: a dataclass field with its line of help, its choices checked."""

from dataclasses import field, fields
from numbers import Integral, Real
from typing import Any, get_args

KINDS = {int: (Integral, "whole number"), float: (Real, "number"), str: (str, "text")}


def setting(default: Any, help: str) -> Any:
    """Declare a field with the line of help that the flag, `--help` and the docs show."""
    return field(default=default, metadata={"help": help})


def check_choices(config: Any) -> None:
    """Raise ValueError for a value of another type, or not among those of a Literal[...]."""
    for f in fields(config):
        value, choices = getattr(config, f.name), get_args(f.type)
        if f.type in KINDS and not isinstance(value, KINDS[f.type][0]):
            raise ValueError(f"{f.name}={value!r} is no {KINDS[f.type][1]}")
        if choices and value not in choices:
            raise ValueError(f"{f.name}={value!r} is not one of {', '.join(map(str, choices))}")
