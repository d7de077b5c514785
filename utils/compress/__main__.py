"""Make a run smaller: its weights in 8 or 4 bits, or pruned; and a table of what that costs.

python -m utils.compress my --int8 --out my8            # sample.py, eval.py and bench.py take it
python -m utils.compress my --int4 --out my4            # groups of 32 weights, embeddings in 8 bits
python -m utils.compress my --int4 --group 64 --embedding-bits 4 --out my4
python -m utils.compress my --int4 --gptq --awq --calibrate my.txt --out my4
python -m utils.compress my --prune wanda --sparsity 0.5 --calibrate my.txt --out sparse
python -m utils.compress my --prune layers --drop 1 --calibrate my.txt --out short
python -m utils.compress my --table --data my.txt       # the run, in 8 and in 4 bits
python -m utils.compress my my8 my4 --table --data my.txt
python -m utils.compress my --table --data my.txt --llama llamaenv/bin/python  # and llama.cpp
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tok.cli import Parser, run
from utils.runs import run_dir

GROUPS = 32, 64, 128
PRUNINGS = "magnitude", "wanda", "heads", "channels", "layers"


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the flags. ValueError for those that do not go together."""
    p = Parser(prog="python -m utils.compress", description=__doc__)
    p.add_argument("source", metavar="RUN", nargs="+", help="a name under runs/, or a path")
    ways = p.add_mutually_exclusive_group(required=True)
    ways.add_argument("--int8", action="store_true", help="8 bits, a scale for each output")
    ways.add_argument("--int4", action="store_true", help="4 bits, a scale and zero for each group")
    about = "zeros (magnitude, wanda), or without some heads, MLP channels or layers"
    ways.add_argument("--prune", choices=PRUNINGS, help=about)
    ways.add_argument("--table", action="store_true", help="size, memory, speed and quality")
    p.add_argument("--group", type=int, choices=GROUPS, help="weights in a group (default 32)")
    about = "of embedding and head (default 8; 32 leaves them as they are)"
    p.add_argument("--embedding-bits", type=int, choices=(4, 8, 32), default=8, help=about)
    p.add_argument("--gptq", action="store_true", help="make up for each column's error by others")
    p.add_argument("--awq", action="store_true", help="scale inputs first: large ones round finer")
    p.add_argument("--calibrate", metavar="FILE", help="the text that --gptq, --awq, --prune read")
    p.add_argument("--sparsity", metavar="S", help="share that is pruned, as 0.5; or 2:4")
    p.add_argument("--drop", type=int, metavar="N", help="layers that --prune layers takes out")
    p.add_argument("--force", action="store_true", help="prune even if the loss blows up")
    p.add_argument("--out", metavar="RUN", help="the run to make")
    p.add_argument("--data", metavar="FILE", help="the text that --table scores")
    p.add_argument("--plot", metavar="FILE.png", help="draw the table, too")
    about = "a Python with llama-cpp-python: llama.cpp's types of the first run, too"
    p.add_argument("--llama", metavar="PYTHON", help=about)
    p.add_argument("--ckpt", default="best", choices=("best", "last"), help="which checkpoint")
    a = p.parse_args(argv)
    check(a)
    return a


def check(a: Namespace) -> None:
    """Raise ValueError for flags that do not go together."""
    if a.table != bool(a.data):
        raise ValueError("--table goes with --data FILE, the text that is scored")
    if a.plot and not (a.table and Path(a.plot).absolute().parent.is_dir()):
        raise ValueError(f"--plot {a.plot} goes with --table, and its directory has to be there")
    if a.llama and not a.table:
        raise ValueError("--llama goes with --table, which puts llama.cpp beside the runs")
    if a.table == bool(a.out):
        raise ValueError("--out RUN names the run to make; --table makes none")
    if not a.table and len(a.source) > 1:
        raise ValueError(f"one run at a time, not {' '.join(a.source)}; --table takes several")
    check_pruning(a)
    if a.int8 and a.embedding_bits == 4:
        raise ValueError("--embedding-bits 4 is for --int4; leave it out")
    if a.int8 and a.group:
        raise ValueError("--group is for --int4; 8 bits have a scale for each output")
    if a.int8 and (a.gptq or a.awq):
        raise ValueError("--gptq and --awq are for --int4; 8 bits lose next to nothing")
    if (a.gptq or a.awq or bool(a.prune)) != bool(a.calibrate):
        methods = "--prune" if a.prune else "--gptq or --awq"
        raise ValueError(f"{methods} goes with --calibrate FILE, a text as the model reads")


def check_pruning(a: Namespace) -> None:
    """Raise ValueError for flags of pruning without it, or of rounding with it."""
    own = {"--sparsity": a.sparsity, "--drop": a.drop is not None, "--force": a.force}
    bits = {"--group": a.group, "--gptq": a.gptq, "--awq": a.awq}
    bits["--embedding-bits"] = a.embedding_bits != 8
    for name, given in (bits if a.prune else own).items():
        if given:
            what = "rounding; it does not go with" if a.prune else "pruning; it goes with"
            raise ValueError(f"{name} is for {what} --prune")


def main(argv: Sequence[str] | None = None) -> None:
    """Compress a run."""
    a = parse(argv)
    if a.table:
        from utils.compress.table import print_table

        plot = Path(a.plot) if a.plot else None
        print_table([run_dir(name) for name in a.source], Path(a.data), a.llama, plot)
        return

    text = Path(a.calibrate) if a.calibrate else None
    if a.prune and text:
        from utils.compress.pruned import Pruning, prune

        how = Pruning(a.prune, a.sparsity or "", a.drop or 0)
        prune(run_dir(a.source[0]), run_dir(a.out), how, text, a.ckpt, force=a.force)
        return

    from utils.compress.quantized import Bits, compress

    method = "+".join(name for name in ("awq", "gptq") if getattr(a, name))
    bits = Bits(8 if a.int8 else 4, a.group or GROUPS[0], a.embedding_bits, method)
    compress(run_dir(a.source[0]), run_dir(a.out), bits, a.ckpt, text)


if __name__ == "__main__":
    run(main)
