"""Signals that ask a run to stop: the step under way is finished, or given up when the grace period is nearly over.

Boundary: signals in, a claim out that the loop asks after each step. A step that is given up has changed nothing.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

GRACE_SECONDS = 30.0
"""What Slurm and Kubernetes wait between SIGTERM and SIGKILL."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class OutOfTime(BaseException):
    """The grace period is nearly over; no child of Exception, so that nothing on the way takes it for a failure."""


class Pause:
    """Whether a signal asked to stop, which, and whether the step under way may go on."""

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self.grace_seconds = grace_seconds
        self.saving_seconds = 0.5
        """What a checkpoint takes; the loop corrects it after each."""
        self.asked = 0
        self.alarm: threading.Timer | None = None
        self._holds, self._is_late = 0, False

    def __call__(self) -> bool:
        """True when a signal asked to stop."""
        return bool(self.asked)

    @property
    def name(self) -> str:
        """The signal in words."""
        return signal.Signals(self.asked).name if self.asked else "another process"

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep what must happen as a whole from being given up half way."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if self._is_late and not self._holds:
            self._is_late = False
            raise OutOfTime

    def on_signal(self, number: int, frame: object) -> None:
        """Note the first signal and set the alarm; the second one stops at once."""
        self.asked = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Processes that work together finish the step: one that leaves it would hang the others.
        if number == signal.SIGTERM and os.environ.get("WORLD_SIZE", "1") == "1":
            left = max(self.grace_seconds - 2 * self.saving_seconds - 0.5, 0.0)
            signal.signal(signal.SIGALRM, self.on_alarm)
            # Not setitimer: there is one such timer, and it may be somebody else's.
            self.alarm = threading.Timer(left, signal.pthread_kill, (threading.get_ident(), signal.SIGALRM))
            self.alarm.daemon = True
            self.alarm.start()

    def on_alarm(self, number: int, frame: object) -> None:
        """Give the step up, now or when what must be whole is done."""
        if self._holds:
            self._is_late = True
        else:
            raise OutOfTime


@contextlib.contextmanager
def pause_on_signals(grace_seconds: float = GRACE_SECONDS) -> Iterator[Pause]:
    """Give what tells whether SIGTERM or Ctrl-C asked to stop; a second signal stops at once."""
    pause = Pause(grace_seconds)
    before: dict[signal.Signals, Any] = {}
    # Outside the main thread the caller owns the signals.
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, pause.on_signal) for number in SIGNALS}
        before[signal.SIGALRM] = signal.getsignal(signal.SIGALRM)
    try:
        yield pause
    finally:
        if pause.alarm is not None:
            pause.alarm.cancel()
            pause.alarm.join()
        for number, handler in before.items():
            signal.signal(number, handler)
