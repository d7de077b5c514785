"""What times and precision show: slow data, emulated bfloat16, threads that fight."""

from tok.cli import cores
from utils.doctor.record import Finding, Record

SHARE, LEAST = 0.2, 0.5  # of the seconds in steps, and seconds, from which on data is slow


def slow_data(r: Record) -> Finding | None:
    """Steps that wait for their batches."""
    data, steps = (r.seconds_in.get(part, 0.0) for part in ("data", "steps"))
    if data < LEAST or data < SHARE * steps:
        return None
    seen = f"{data:.1f} s for batches, {steps:.1f} s in steps"
    cure = "copy the prepared text to a local disk (--data), or a larger --batch_size"
    return Finding("warning", "slow data", seen, cure)


def outside(r: Record) -> Finding | None:
    """More time beside training than in it."""
    parts = dict(r.seconds_in)
    training = parts.pop("steps", 0.0) + parts.pop("data", 0.0)
    rest = sum(parts.values())
    if rest < 10 or rest < training:
        return None
    most = max(parts, key=parts.__getitem__)
    cures = {"evaluation": "a larger --eval_every", "saving": "a larger --eval_every"}
    seen = f"{training:.0f} s of training, {rest:.0f} s beside it"
    seen += f", most in {most} ({parts[most]:.0f})"
    cure = cures.get(most, "--sample 0" if most == "samples" else "a larger --log_every")
    return Finding("note", "more time beside training than in it", seen, cure)


def emulated(r: Record) -> Finding | None:
    """bfloat16 on a CPU that computes it in software."""
    if not (cost := r.device.cost()):
        return None
    return Finding("warning", "emulated precision", cost, "--dtype float32, or auto")


def overflows(r: Record) -> Finding | None:
    """float16 whose gradients overflow again and again."""
    n = r.summary.get("overflows", 0)
    if n <= max(5, 0.05 * r.steps):
        return None
    seen = f"{n} of {r.steps} steps were skipped"
    return Finding("warning", "float16 overflows", seen, "--dtype bfloat16, or --grad_clip 1")


def threads(r: Record) -> Finding | None:
    """More threads than cores: each waits for one that has none."""
    machine = r.summary.get("machine", {})
    n, ranks = int(machine.get("threads", 0)), r.summary.get("ranks", 1)
    there = int(machine.get("cores", cores()))
    if n * ranks <= there or r.device.device.type != "cpu":
        return None
    each = f" in each of {ranks} processes" if ranks > 1 else ""
    seen = f"{n} threads{each} on {there} cores"
    cure = f"OMP_NUM_THREADS={max(1, there // ranks)} before the command"
    return Finding("warning", "threads fight for cores", seen, cure)


CHECKS = (slow_data, outside, emulated, overflows, threads)
