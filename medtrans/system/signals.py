"""Stopping at a good moment: Ctrl-C and SIGTERM are noted, and acted on between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

from medtrans.errors import Interrupted, Terminated

_HANDLED = (signal.SIGINT, signal.SIGTERM)
_Handler = Callable[[int, FrameType | None], object] | int | None


class StopSignal:
    """While active, the first SIGINT or SIGTERM only sets a flag; the second acts at once.

    In a thread other than the main one it never sets, since signals arrive in the main thread.

    Parameters
    ----------
    patient : bool
        Let the second signal wait, too.

    Attributes
    ----------
    received : int or None
        The signal that has come.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        self.received: int | None = None
        self._previous: dict[int, _Handler] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._note) for s in _HANDLED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    @property
    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self.received is not None

    def raise_if_set(self, saved: str) -> None:
        """Stop, once a signal has come.

        Parameters
        ----------
        saved : str
            A sentence that says what is kept.

        Raises
        ------
        Interrupted, Terminated
        """
        if self.received is None:
            return
        kind = Terminated if self.received == signal.SIGTERM else Interrupted
        raise kind(f"Stopped. {saved} Run the same command with --resume to go on.")

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if not self.patient:
            self.__exit__()  # the next signal is the impatient one
