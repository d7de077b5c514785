"""Trains the points of a grid, or random ones: each with every seed, several at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from utils.sweep.one_run import GO_ON, PRUNE
from utils.sweep.space import Sweep
from utils.sweep.table import Board, Point
from utils.sweep.workers import Crashed, Pool

Judge = Callable[[int, float], bool]  # (percent, score) -> whether to give a point up


def train_point(
    sweep: Sweep, pool: Pool, board: Board, point: Point, judge: Judge = lambda *_: False
) -> float:
    """Train a point with every seed; its score. The first seed is what `judge` hears of.

    Raises Pruned, Crashed or KeyboardInterrupt.
    """
    point.status = "running"
    seeds: Sequence[int | None] = sweep.seeds or [None]
    for i, seed in enumerate(seeds):

        def report(percent: int, loss: float, bits: float | None, i: int = i) -> str:
            point.note = f"{(100 * i + percent) // len(seeds)} %, loss {loss:.3f}"
            board.draw()
            if bits is None or i:
                return GO_ON
            score = loss if point.measure == "val_loss" else bits
            return PRUNE if judge(percent, score) else GO_ON

        try:
            settings = sweep.settings(point.values, seed)
        except ValueError as e:  # two settings that do not go together
            raise Crashed(str(e)) from e
        point.runs.append(pool.train(settings, report))
        if len(point.runs) == len(seeds):
            point.finish()
        run = point.runs[-1]
        said = f"val loss {run['val_loss']:.4f}, {run['seconds']:.1f} s"
        board.note(sweep.name(point.values, seed), said)
    return point.score


def attempt(sweep: Sweep, pool: Pool, board: Board, point: Point) -> None:
    """Train a point; if it crashes, note why."""
    try:
        train_point(sweep, pool, board, point)
    except Crashed as e:
        point.status, point.note = "crashed", str(e)
        board.note(sweep.name(point.values), f"crashed: {e}")


def train_all(sweep: Sweep, pool: Pool, board: Board, points: Sequence[Point]) -> None:
    """Train all points, as many at once as the pool has workers."""
    board.points = list(points)
    in_threads(pool, [lambda p=p: attempt(sweep, pool, board, p) for p in points])  # type: ignore[misc]


def in_threads(pool: Pool, tasks: Sequence[Callable[[], object]]) -> None:
    """Call tasks in a thread for each worker. Ctrl-C lets every run that is under way save."""
    with ThreadPoolExecutor(len(pool.workers)) as threads:
        futures = [threads.submit(task) for task in tasks]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.stopping = True
            for future in futures:
                future.cancel()
            raise
