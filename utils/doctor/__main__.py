"""Read a run, and say in plain words what looks wrong and what to try.

python -m utils.doctor                  # the newest run
python -m utils.doctor tiny
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tok.cli import Parser, run
from utils.runs import latest_run, run_dir

if TYPE_CHECKING:
    from utils.doctor.record import Finding, Record

ORDER = ("serious", "warning", "note")


def examine(record: "Record") -> "list[Finding]":
    """All that looks wrong, the worst first."""
    from utils.doctor import curves, inside, machine, text

    checks = (*curves.CHECKS, *text.CHECKS, *machine.CHECKS)
    found = [finding for check in checks if (finding := check(record))]
    found += inside.check(record)
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))


def report(path: Path) -> str:
    """What is said of a run."""
    from utils.doctor.record import read

    record = read(path)
    found = examine(record)
    losses = [loss for _, loss in record.curves["val_loss"]]
    best = f", validation loss {min(losses):.3f}" if losses else ""
    ended = record.summary.get("stopped_by", "not finished")
    head = f"{path}: {record.steps} steps ({ended}){best}"
    lines = [head, *(f"not looked at: {what}" for what in record.missing)]
    if not found:
        lines.append("nothing looks wrong")
    return "\n\n".join(["\n".join(lines), *map(str, found)])


def main(argv: Sequence[str] | None = None) -> None:
    """Examine the run named, or the newest."""
    p = Parser(prog="python -m utils.doctor", description=__doc__)
    p.add_argument("run", nargs="?", help="a name under runs/, or a path (default: the newest)")
    a = p.parse_args(argv)
    print(report(run_dir(a.run) if a.run else latest_run()))


if __name__ == "__main__":
    run(main)
