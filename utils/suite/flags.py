"""What eval.py can be asked for beside scores: its flags, checked without torch."""

from argparse import Namespace

from tok.cli import Parser


def add_flags(p: Parser) -> None:
    """Give eval.py the flags of the suite and of loss by position."""
    what = p.add_mutually_exclusive_group()
    what.add_argument("--suite", action="store_true", help="skills and rules instead of scores")
    what.add_argument(
        "--by-position", action="store_true", help="loss at each position of the context instead"
    )
    p.add_argument("--curve", action="store_true", help="the suite at each checkpoint of --keep")
    p.add_argument("--num", type=int, help="the suite's tasks and texts of a kind (default 100)")
    p.add_argument("--shots", type=int, help="solved tasks before each (default 0)")
    p.add_argument("--seed", type=int, help="which tasks and texts the suite draws (default 0)")


def check_flags(a: Namespace) -> Namespace:
    """The same with the defaults filled in.

    ValueError for what belongs to --suite without it, or a bad number.
    """
    given = [name for name in ("num", "shots", "seed") if vars(a)[name] is not None]
    given += ["curve"] * a.curve
    if given and not a.suite:
        raise ValueError(f"--{given[0]} belongs to --suite; give both, or leave it out")
    a.num = 100 if a.num is None else a.num
    a.shots, a.seed = a.shots or 0, a.seed or 0
    if a.num < 2 or a.shots < 0:
        raise ValueError(f"num={a.num} must be at least 2, and shots={a.shots} at least 0")
    return a
