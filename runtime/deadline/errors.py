"""A tick without an answer."""

from __future__ import annotations

from motedge.errors import EXIT_GATE_FAILED, MotedgeError


class DeadlineMissedError(MotedgeError):
    """No fresh chunk by the deadline, and no earlier one with rows left: whoever drives the robot must stop it."""

    exit_code = EXIT_GATE_FAILED
