"""Pretrained models in, trained ones out.

python -m utils.hub import smollm2 --run smollm2            # a model of 135 million parameters
python -m utils.hub import DIRECTORY --run gpt2             # Hugging Face: GPT-2, LLaMA, BERT
python -m utils.hub import model.gguf --run llama           # llama.cpp
python -m utils.hub import ADAPTERS --base smollm2 --run my # peft's LoRA adapters
python -m utils.hub import my --merge --run whole           # a run's adapters, added to its weights
python -m utils.hub export my --to hf exported              # transformers reads it
python -m utils.hub export my --to gguf my.gguf --type Q8_0 # llama.cpp reads it
python -m utils.hub export my --to peft adapters
python -m utils.hub export my --to html my.html --type f16  # a page that runs the model by itself
"""

from collections.abc import Sequence
from pathlib import Path

from tok.cli import Parser, run
from utils.runs import run_dir

TYPES = {  # what weights may be written as; the first unless --type says otherwise
    "hf": ("F32",),
    "gguf": ("F32", "F16", "Q8_0"),
    "peft": ("F32",),
    "html": ("F16", "INT8", "INT4"),
}


def weights_type(to: str, given: str | None) -> str:
    """The type of weights that an export writes. ValueError for one that the format lacks."""
    if given is not None and given not in TYPES[to]:
        takers = " and ".join(name for name, types in TYPES.items() if given in types)
        raise ValueError(f"--type {given} is for {takers}; {to} takes {', '.join(TYPES[to])}")
    return given or TYPES[to][0]


def parser() -> Parser:
    """The flags of both commands."""
    p = Parser(prog="python -m utils.hub", description=__doc__)
    ways = p.add_subparsers(dest="way", required=True, metavar="import|export")
    a = ways.add_parser("import", help="make a run of a pretrained model")
    a.add_argument("source", metavar="SOURCE", help="smollm2, a directory, a .gguf file, or a run")
    a.add_argument("--run", help="the run to make (default: the source's name)")
    a.add_argument("--base", metavar="RUN", help="the run that peft's adapters stand on")
    a.add_argument("--merge", action="store_true", help="add adapters to the weights")
    b = ways.add_parser("export", help="write a run for other programs")
    b.add_argument("source", metavar="RUN", help="a name under runs/, or a path")
    b.add_argument("--to", required=True, choices=TYPES, help="the format")
    b.add_argument("path", metavar="PATH", help="the directory (hf, peft) or file to write")
    types = sorted({kind for kinds in TYPES.values() for kind in kinds})
    about = "weights of gguf: F32 (default), F16, Q8_0; of html: F16 (default), INT8, INT4"
    b.add_argument("--type", type=str.upper, choices=types, help=about)
    b.add_argument("--ckpt", default="best", choices=("best", "last"), help="which checkpoint")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Import or export."""
    a = parser().parse_args(argv)
    if a.way == "import":
        adapters = (Path(a.source) / "adapter_config.json").exists()
        if a.base and not adapters:
            raise ValueError(
                f"--base is for peft's adapters; {a.source} has no adapter_config.json"
            )
        if adapters:
            from utils.hub.adapters import import_adapters

            run = run_dir(a.run or Path(a.source).name)
            import_adapters(Path(a.source), run, a.base, a.merge)
        else:
            from utils.hub.importer import import_source

            import_source(a.source, a.run, merge=a.merge)
    else:
        write(run_dir(a.source), a.to, a.path, weights_type(a.to, a.type), a.ckpt)


def load_kind(run: Path, which: str) -> str:
    """The kind of model that a run holds."""
    from utils.training.checkpoint import load_checkpoint
    from utils.training.models import checkpoint_path

    return str(load_checkpoint(checkpoint_path(run, which), mmap=True).get("kind", "gpt"))


def write(run: Path, to: str, path: str, dtype: str, which: str) -> None:
    """Export a run. ValueError for a BERT, unless it is to be a directory of Hugging Face."""
    if to != "hf" and load_kind(run, which) == "bert":
        raise ValueError(f"{run} is a BERT, which {to} is not for; export it --to hf")
    if to == "html":
        from utils.hub.html import export_html

        export_html(run, Path(path), dtype, which)
    elif to == "peft":
        from utils.hub.adapters import export_adapters

        export_adapters(run, Path(path), which)
    else:
        from utils.hub.exporter import export

        export(run, to, path, dtype=dtype, which=which)


if __name__ == "__main__":
    run(main)
