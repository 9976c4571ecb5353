"""What a signal does to a run: it ends at once, with one line. What is done is on the disk already, and stays.

An orderly end would ask processes that the same signal has reached: workers, and the server that records the flow.
Results survive a kill at any moment, so a kill is what they get.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# All here, not later: the main thread may be stopped by the signal while it imports, and holds the import's lock.
from multiprocessing.resource_tracker import _resource_tracker

import psutil

__all__ = ["MESSAGE", "ending_at_signals"]

MESSAGE = "seamfree: interrupted; what is done is kept, and the same command goes on where it was"

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_STDERR = 2
_CLEAN_LINE = "\r\x1b[2K\x1b[?25h"
"""What a terminal needs after a progress bar: the line anew, and the cursor, which the bar hides."""


@contextmanager
def ending_at_signals() -> Iterator[None]:
    """End this process and all below it at a SIGINT or a SIGTERM, with exit code 130 or 143.

    A thread waits for the signals, so that nothing which the main thread does or holds can delay the end, nor a handler
    that a library sets for itself. Processes that start inside do not see a SIGINT, which a terminal sends to all of
    them: they would tell of it, each with a traceback. Does nothing outside of the main thread, and leaves alone a
    signal that is ignored.
    """
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread() or not handled:
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ended = threading.Event()

    def wait() -> None:
        while number := os.read(reader, 1):
            if number[0] in handled:
                _end(number[0])
        ended.set()

    def handle(number: int, _frame: object) -> None:
        with suppress(BlockingIOError):
            os.write(writer, bytes([number]))
        # The thread ends the process; what the main thread would do or say meanwhile is of no use.
        ended.wait()

    thread = threading.Thread(target=wait, name="signals", daemon=True)
    thread.start()
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, handle) for number in handled}
    blocks = signal.SIGINT in handled and sys.platform != "win32"
    # After the thread has started: it takes the signals that this thread, and whatever starts from here, does not.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if blocks else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        thread.join()
        os.close(reader)


def _end(number: int) -> None:
    """Say one line, kill everything below, and exit."""
    with suppress(OSError):
        # The other threads may still fail at what is being killed: that is not to be read.
        terminal = os.dup(_STDERR)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, _STDERR)
        os.write(terminal, f"{_CLEAN_LINE if os.isatty(terminal) else ''}{MESSAGE}\n".encode())
    try:
        _kill_children()
    finally:
        os._exit(128 + number)


def _kill_children() -> None:
    """Kill all processes below this one, also those that start while others are being killed."""
    # This one ends with the last of the others, and removes what they shared.
    spared = getattr(_resource_tracker, "_pid", None)
    for _ in range(10):
        children = [child for child in psutil.Process().children(recursive=True) if child.pid != spared]
        if not children:
            return
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=0.2)
