"""Telling systemd how things stand (sd_notify(3)); does nothing where nobody listens."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import Optional

LOG = logging.getLogger(__name__)
READY, RELOADING, STOPPING, ALIVE = "READY=1", "RELOADING=1", "STOPPING=1", "WATCHDOG=1"


def notify(state: str) -> None:
    """Sends one state to the socket that systemd named."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # "@" stands for the zero byte of an abstract socket
    path = f"\0{address[1:]}" if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(state.encode(), path)


def watchdog_s() -> Optional[float]:
    """How often systemd wants to hear that all is well: half of what it allows; None: it does not ask."""
    try:
        period_s = int(os.environ.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    # The variable is inherited; it is meant for the process that systemd started
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return period_s / 2 if meant and period_s > 0 else None
