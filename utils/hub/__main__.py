"""Pretrained models in, trained ones out.

python -m utils.hub import smollm2 --run smollm2            # a model of 135 million parameters
python -m utils.hub import DIRECTORY --run gpt2             # Hugging Face: GPT-2, LLaMA, SmolLM2
python -m utils.hub import model.gguf --run llama           # llama.cpp
python -m utils.hub import ADAPTERS --base smollm2 --run my # peft's LoRA adapters
python -m utils.hub import my --merge --run whole           # a run's adapters, added to its weights
python -m utils.hub export my --to hf exported              # AutoModelForCausalLM reads it
python -m utils.hub export my --to gguf my.gguf --type Q8_0 # llama.cpp reads it
python -m utils.hub export my --to peft adapters
"""

from collections.abc import Sequence
from pathlib import Path

from tok.cli import Parser, run
from utils.runs import run_dir


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
    b.add_argument("--to", required=True, choices=("hf", "gguf", "peft"), help="the format")
    b.add_argument("path", metavar="PATH", help="the directory (hf, peft) or file (gguf) to write")
    b.add_argument("--type", default="F32", choices=("F32", "F16", "Q8_0"), help="weights of gguf")
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
    elif a.to == "peft" and a.type == "F32":
        from utils.hub.adapters import export_adapters

        export_adapters(run_dir(a.source), Path(a.path), a.ckpt)
    else:
        from utils.hub.exporter import export

        export(run_dir(a.source), a.to, a.path, dtype=a.type, which=a.ckpt)


if __name__ == "__main__":
    run(main)
