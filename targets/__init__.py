"""Devices: what each can run."""
