"""TensorBoard's event file of a run, in its directory: scalars, samples, settings as hparams.

tensorboard --logdir runs
"""

from pathlib import Path
from typing import Any, cast

from utils.config import Settings, flat
from utils.reporting.events import Event, Sample
from utils.reporting.trackers import scalars

METRICS = ("val/loss", "val/ppl", "val/bits_per_byte")  # beside the settings in the HParams tab


class TensorBoard:
    """Writes a run's events for TensorBoard; what a resumed run writes again replaces the first."""

    def __init__(self, run: Path, settings: Settings, step: int = 0):
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.writer: Any = SummaryWriter(str(run), purge_step=step + 1 if step else None)
        values = flat(settings)
        *begins, self.end = hparams(values, dict.fromkeys(METRICS, 0.0))
        file: Any = cast(Any, self.writer).file_writer
        for summary in begins:  # add_hparams would make a directory of its own
            file.add_summary(summary)
        text = "\n".join(f"    {name}: {value}" for name, value in values.items())
        self.writer.add_text("settings", text, step)
        self.writer.flush()

    def __call__(self, event: Event) -> None:
        """Write the figures of an event, or a sample."""
        for name, value in scalars(event).items():
            self.writer.add_scalar(name, value, event.step)  # type: ignore[union-attr]
        if isinstance(event, Sample):
            self.writer.add_text("sample", event.text, event.step)
        self.writer.flush()

    def close(self) -> None:
        """Note that the run is over, and close the file."""
        self.writer.file_writer.add_summary(self.end)
        self.writer.close()
