"""docs/settings.md, written from the declarations: python -m utils.settings_table."""

from dataclasses import fields
from typing import get_args

from utils.config import FIELDS, SECTIONS


def settings_table() -> str:
    """All settings as Markdown, the content of docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Written by `python -m utils.settings_table`; each is declared once, in code:",
    ]
    lines += ["a flag of `train.py` and `sweep.py`, and a key of `configs/tiny.yaml` and its like."]
    for section, cls in SECTIONS.items():
        lines += [
            "",
            f"## {section}",
            "",
            "| setting | default | what it is |",
            "| --- | --- | --- |",
        ]
        for f in [f for f in fields(cls) if f.name in FIELDS]:
            default = repr(f.default) if isinstance(f.default, str) else f.default
            choices = f" ({', '.join(get_args(f.type))})" if get_args(f.type) else ""
            lines.append(f"| `{f.name}` | `{default}` | {f.metadata['help']}{choices} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(settings_table(), end="")
