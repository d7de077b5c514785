"""Ctrl-C and SIGTERM as a question that the loop asks, so that a step is never cut in two."""

import signal


class Interrupt:
    """In `with Interrupt() as stop:` a first signal sets `stop.signal`; a second acts at once.

    Not so with `patient`: torchrun passes on the Ctrl-C that its processes have had already.
    """

    def __init__(self, patient: bool = False):
        self.signal, self.patient = 0, patient
        self._old: dict[int, object] = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        self.signal = number
        if not self.patient:
            self._restore()

    def _restore(self):
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def __exit__(self, *exc):
        self._restore()
