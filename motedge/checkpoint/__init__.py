"""Checkpoints in the hub layout: read, make, fetch, inspect."""
