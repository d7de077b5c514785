"""Ctrl-C and SIGTERM as a flag that the loop reads, so that a step is never cut in two."""

import signal
import threading


class Interrupt:
    """In `with Interrupt() as stop:` a first signal sets `stop.signal`; a second acts at once.

    Not so with `patient`: torchrun passes on the Ctrl-C that its processes have had already.
    """

    def __init__(self, patient: bool = False):
        self.signal, self.patient = 0, patient
        self._old: dict[int, object] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is not threading.main_thread():
            return self  # elsewhere Python allows no handlers
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: object) -> None:
        self.signal = number
        if not self.patient:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def __exit__(self, *exc: object) -> None:
        self._restore()
