"""Where a policy's milliseconds and joules go on this machine: measured, written down, drawn, and compared."""
