"""Look inside a model while it reads a text: every head, losses, the logit lens, in one PNG.

python -m utils.look tiny "Once upon a time, there was a kind fox named Tom."
python -m utils.look "One day"                                # the newest run
python -m utils.look tiny "One day" --top 3 --out day.png     # three guesses in each cell
"""

from argparse import Namespace
from collections.abc import Sequence

from tok.cli import Parser, run
from tok.files import check_writable
from utils.runs import latest_run, run_dir


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read and check the flags."""
    p = Parser(prog="python -m utils.look", description=__doc__)
    p.add_argument("run", nargs="?", help="a name under runs/, or a path (default: the newest)")
    p.add_argument("text", help="what the model is to read")
    p.add_argument("--out", help="PNG to write (default: look.png in the run's directory)")
    p.add_argument("--ckpt", default="best", choices=("best", "last"), help="default best")
    p.add_argument("--top", type=int, default=1, help="guesses in each cell, 1 to 5 (default 1)")
    a = p.parse_args(argv)
    if not 1 <= a.top <= 5:
        raise ValueError(f"top={a.top} must be from 1 to 5")
    if not a.text:
        raise ValueError("the text is empty; give some words")
    return a


def main(argv: Sequence[str] | None = None) -> None:
    """Draw what is inside a run's model while it reads a text."""
    a = parse(argv)
    run = run_dir(a.run) if a.run else latest_run()
    out = a.out or str(run / "look.png")
    from data.store import end_id  # here, not above: flags are checked before torch is imported
    from utils.look.inside import look
    from utils.look.picture import MOST, draw
    from utils.training.models import load_model

    model, tokenizer, checkpoint = load_model(run, a.ckpt)
    check_writable(out)
    end = end_id(checkpoint["data"], tokenizer)
    seen = look(model, tokenizer, a.text, end=end, most=MOST)
    draw(seen, f"{run.name}: inside the model while it reads", out, a.top)
    L, H, T, _ = seen.attention.shape
    cost = f", {seen.loss.mean():.3f} nats each" if T > 1 else ""
    print(f"{out}: {T} tokens{cost}; {L} blocks of {H} heads")


if __name__ == "__main__":
    run(main)
