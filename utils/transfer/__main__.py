"""Learning-rate transfer: the best learning rate over the width, standard and with muP.

python -m utils.transfer                          # AdamW and Muon, three seeds
python -m utils.transfer --widths 64 128 --seeds 1 --steps 40 --only adamw
python -m utils.transfer --coordinates            # how activations move in a few steps: seconds

Around the best learning rate, a factor of two apart, models of each width are trained; runs lie
in runs/transfer. Started again, it goes on where it stopped.
"""

import json
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tok.cli import Parser, run
from tok.files import replacing

WIDTHS = {"adamw": (64, 128, 256, 512), "muon": (64, 128, 256)}  # Muon's products at 512 are dear
CHARACTERS = 60_000  # of stories, composed here: nothing comes twice in 80 steps of 256


def stories(path: Path) -> str:
    """Write the text that is learnt, once."""
    from data.stories import compose

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            Path(part).write_text(compose(CHARACTERS, seed=2), encoding="ascii")
    return str(path)


def study(pool: Any, panel: Any, widths: Sequence[int], seeds: int, how: dict[str, Any]) -> Any:
    """Walk to the best learning rate of each width and seed; a line is printed for each."""
    from utils.transfer.search import Found, best_step, settings, train, walk

    def loss_at(width: int, seed: int, k: int) -> float:
        return train(pool, settings(panel, width, k, seed, **how))

    every, start = [], 3
    for width in widths:
        losses = []
        for seed in range(1, seeds + 1):
            reach = 2 if width <= 128 else 1
            losses.append(walk(partial(loss_at, width, seed), start, reach))
            start = min(losses[0], key=losses[0].__getitem__)
            shown = "  ".join(
                f"{2**k / 1000:g}: {loss:.4f}" for k, loss in sorted(losses[-1].items())
            )
            print(f"{panel.title:18} {width:4}  seed {seed}  {shown}", flush=True)
        every.append(Found(width, losses, [best_step(loss) for loss in losses]))
    return every


def summary(panel: Any, found: Any) -> dict[str, Any]:
    """A panel's figures, as results.json has them."""
    from utils.transfer.search import cost, drift

    slope, error = drift(found)
    nats, octaves = cost(found)
    return {
        "panel": panel.title,
        "drift": slope,
        "error": error,
        "octaves": octaves,
        "lost": nats,
        "widths": [{"width": f.width, "losses": f.losses, "best": f.best} for f in found],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Train the widths, print the drift of the best learning rate, draw it."""
    p = Parser(prog="python -m utils.transfer", description=__doc__)
    add: Any = p.add_argument
    add("--widths", type=int, nargs="+", help="multiples of 32, from 64 on (default 64 to 512)")
    add("--seeds", type=int, default=3, help="trainings of each (default 3)")
    add("--steps", type=int, default=80, help="steps of each training (default 80)")
    add("--only", choices=("adamw", "muon"), help="one optimizer")
    add("--decay", type=float, default=0.0, help="weight decay (default 0)")
    add("--coordinates", action="store_true", help="check how activations move, and no more")
    add("--out", default="runs/transfer", help="directory (default runs/transfer)")
    a = p.parse_args(argv)
    out = Path(a.out)
    if a.coordinates:
        from utils.transfer.coordinates import check

        check()
        return
    if any(width % 32 or width < 64 for width in a.widths or ()):
        raise ValueError(f"widths={a.widths} must be multiples of 32, from 64 on")

    from utils.sweep.workers import Pool
    from utils.transfer.picture import draw
    from utils.transfer.search import Panel

    how = {"data": stories(out / "stories.txt"), "steps": a.steps, "root": out}
    results = []
    # this command stands above the scripts, as sweep.py does
    with Pool(import_module("train").run, jobs=1) as pool:
        for optimizer in [a.only] if a.only else list(WIDTHS):
            for mup in (False, True):
                panel = Panel(mup, optimizer, a.decay)
                found = study(pool, panel, a.widths or WIDTHS[optimizer], a.seeds, how)
                results.append(summary(panel, found))
                r = results[-1]
                print(f"{r['panel']}: drift {r['drift']:+.2f} ± {r['error']:.2f}", flush=True)
    with replacing(out / "results.json") as part:
        Path(part).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(out / "transfer.png", results)
    print(f"{out / 'results.json'}  {out / 'transfer.png'}")


if __name__ == "__main__":
    run(main)
