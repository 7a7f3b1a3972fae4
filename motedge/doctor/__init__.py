"""What this machine can do: its Python, packages, processor, memory, accelerators, and a verdict per task.

Runs on Python 3.9 with the standard library; asks, but never starts, a GPU.
"""

from motedge.doctor.report import Report, examine

__all__ = ["Report", "examine"]
