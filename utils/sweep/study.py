"""A sweep as an Optuna study: samplers, median pruning, one storage for many processes."""

import os
import socket
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tok.cli import one_line
from utils.sweep.loop import in_threads, train_point
from utils.sweep.one_run import Pruned, Values
from utils.sweep.space import Choices, Range, Sweep
from utils.sweep.table import Board, Point
from utils.sweep.workers import Crashed, Pool

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("tpe", "random", "grid", "qmc")
STATUS = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "done", "PRUNED": "pruned"}


def open_storage(where: str) -> Any:
    """A database by its URL, or a journal file: SQLite locks under several processes.

    Raises ValueError with the reason if a database does not answer, or is of no known kind.
    """
    from optuna.storages import JournalStorage, get_storage
    from optuna.storages import journal as j

    if "://" in where:
        try:
            return get_storage(where)
        except Exception as e:  # each database has errors of its own
            raise ValueError(f"storage={where}: {one_line(e)}") from e
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    lock = j.JournalFileOpenLock(where) if sys.platform == "win32" else None
    return JournalStorage(j.JournalFileBackend(where, lock_obj=lock))


def make_sampler(name: str, sweep: Sweep, seed: int) -> Any:
    """One of SAMPLERS. Raises ValueError if the space is not one for it."""
    from optuna import exceptions, samplers

    ranges = [k for k, v in sweep.space.items() if isinstance(v, Range)]
    if name == "grid" and ranges:
        raise ValueError(f"sampler=grid needs values, not a range of {ranges[0]}; list them")
    if name == "qmc" and not ranges:
        raise ValueError("sampler=qmc spreads over ranges; give one, say --lr 1e-3..1e-2")
    if name == "qmc":  # the sequence is shared by all processes, so its seed is fixed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
            return samplers.QMCSampler(seed=0, scramble=True, warn_independent_sampling=False)
    if name == "grid":
        lists: dict[str, Any] = {k: sweep.space[k] for k in sweep.varied}
        return samplers.GridSampler(lists, seed=0)
    return {"tpe": samplers.TPESampler, "random": samplers.RandomSampler}[name](seed=seed)


def told(choices: Choices) -> Any:
    """Choices as a study keeps them, to know its own again."""
    return str(choices) if isinstance(choices, Range) else [str(value) for value in choices]


def open_study(
    sweep: Sweep, storage: str, sampler: str = "tpe", prune: bool = True
) -> "optuna.Study":
    """The study in a storage, begun or gone on with. ValueError if it is of other settings."""
    try:
        import optuna
    except ImportError:
        raise ValueError("optuna is not installed; pip install -e '.[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()
    study = optuna.create_study(
        storage=open_storage(storage or str(sweep.path / "study.journal")),
        study_name=sweep.path.name,
        direction="minimize",
        load_if_exists=True,
        pruner=pruner,
    )
    seed = len(study.trials) + (os.getpid() if storage else 0)  # no two processes draw alike
    study.sampler = make_sampler(sampler, sweep, seed)
    asked = {"config": Path(sweep.config).name, "tokens": sweep.tokens, "seeds": list(sweep.seeds)}
    asked["space"] = {name: told(choices) for name, choices in sweep.space.items()}
    if study.user_attrs.get("asked", asked) != asked:
        raise ValueError(f"study {study.study_name} tries other settings; choose another --name")
    study.set_user_attr("asked", asked)
    return study


def suggest(trial: "optuna.Trial", name: str, choices: Choices) -> Any:
    """The trial's value of a setting."""
    if isinstance(choices, Range) and choices.whole:
        return trial.suggest_int(name, int(choices.low), int(choices.high), log=choices.log)
    if isinstance(choices, Range):
        return choices.fit(trial.suggest_float(name, choices.low, choices.high, log=choices.log))
    return choices[0] if len(choices) == 1 else trial.suggest_categorical(name, choices)


def alive(worker: str) -> bool:
    """Whether the process "host:pid" may still be at work; of another machine nobody knows."""
    host, _, pid = worker.rpartition(":")
    if host != socket.gethostname() or sys.platform == "win32":
        return True
    try:
        os.kill(int(pid), 0)
    except OSError:
        return False
    return int(pid) != os.getpid()  # this one has only just begun


def cut_short(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether a trial ended by Ctrl-C, or with a process that was killed."""
    worker = trial.user_attrs.get("worker", "")
    dead = trial.state.name == "RUNNING" and bool(worker) and not alive(worker)
    return dead or "interrupted" in trial.user_attrs


def queue_again(study: "optuna.Study") -> None:
    """Let trials that were cut short be tried again, first: their runs go on where they were."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    again = {t.user_attrs.get("again_of") for t in trials}
    for t in trials:
        if cut_short(t) and t.number not in again:
            if t.state == TrialState.RUNNING:
                study.tell(t.number, state=TrialState.FAIL)
            study.enqueue_trial(t.params, user_attrs={"again_of": t.number})


def finished(study: "optuna.Study") -> int:
    """Trials that need not be tried again: complete, pruned, crashed."""
    trials = study.get_trials(deepcopy=False)
    again = {t.user_attrs.get("again_of") for t in trials}
    return sum(t.state.is_finished() and not (cut_short(t) or t.number in again) for t in trials)


def points_of(study: "optuna.Study", measure: str) -> dict[int, Point]:
    """What the storage knows of all trials, those of other machines included, by number."""
    points = {}
    trials = study.get_trials(deepcopy=False)
    again = {t.user_attrs.get("again_of") for t in trials}
    for t in trials:
        if "values" in t.user_attrs and not (cut_short(t) or t.number in again):
            kept = {k: t.user_attrs[k] for k in ("note", "runs") if k in t.user_attrs}
            status = STATUS.get(t.state.name, "crashed")
            points[t.number] = Point(t.user_attrs["values"], status, measure=measure, **kept)
            if t.state.name == "COMPLETE":
                points[t.number].finish()
    return points


class Trials:
    """Trains a study's trials, and shows all of them on the board."""

    def __init__(self, study: "optuna.Study", sweep: Sweep, pool: Pool, board: Board):
        self.study, self.sweep, self.pool, self.board = study, sweep, pool, board
        self.own: dict[int, Point] = {}

    def refresh(self) -> None:
        """Show what other processes have done, too."""
        self.board.points = list({**points_of(self.study, self.sweep.measure), **self.own}.values())

    def __call__(self, trial: "optuna.Trial") -> float:
        """A trial's score: its mean over the seeds."""
        import optuna

        space = self.sweep.space.items()
        values: Values = {name: suggest(trial, name, choices) for name, choices in space}
        trial.set_user_attr("values", values)
        trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
        point = self.own[trial.number] = Point(values, measure=self.sweep.measure)
        self.refresh()
        told: set[int] = set()

        def judge(percent: int, score: float) -> bool:
            tenth = 10 * (percent // 10)  # trials are compared at the same time of their runs
            if tenth in told or percent >= 100:
                return False
            told.add(tenth)
            trial.report(score, tenth)
            return trial.should_prune()

        try:
            return train_point(self.sweep, self.pool, self.board, point, judge)
        except Pruned:
            point.status = "pruned"
            raise optuna.TrialPruned from None
        except Crashed as e:
            point.status, point.note = "crashed", str(e)
            raise
        except KeyboardInterrupt:
            trial.set_user_attr("interrupted", True)
            self.study.stop()
            raise
        finally:
            trial.set_user_attr("runs", point.runs)
            trial.set_user_attr("note", point.note)
            if point.status in ("pruned", "crashed"):
                said = f"{point.status}: {point.note}"
                self.board.note(self.sweep.name(values), said)


def search(study: "optuna.Study", sweep: Sweep, pool: Pool, board: Board, n: int) -> None:
    """Train until the study has n trials in all, by all processes; a crashed one counts."""

    def enough(study: "optuna.Study", _: object) -> None:
        if finished(study) >= n:
            study.stop()

    queue_again(study)
    trials = Trials(study, sweep, pool, board)
    trials.refresh()
    left, jobs = n - finished(study), len(pool.workers)
    if left > 0:
        how: dict[str, Any] = {"n_jobs": jobs, "catch": (Crashed,), "callbacks": [enough]}
        in_threads(pool, [lambda: study.optimize(trials, n_trials=left, **how)])
    trials.refresh()
