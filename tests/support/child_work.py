"""What child processes do in tests; here, where they can import it."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection

# More than a pipe holds: who sends it waits in the middle until somebody reads
LARGE = 1_000_000


def echo(theirs: Connection, prefix: str) -> None:
    """Sends back what comes, with a prefix."""
    while True:
        theirs.send((prefix, theirs.recv()))


def send_large(theirs: Connection) -> None:
    """Says that it is up, then sends more than the pipe holds."""
    theirs.send(os.getpid())
    theirs.send(b"x" * LARGE)


def sleep(theirs: Connection) -> None:
    """Is up, and heeds nothing."""
    theirs.send(None)
    time.sleep(600)


def fail(theirs: Connection) -> None:
    """Ends by itself."""
    raise SystemExit(3)
