"""Accuracy against latency: each recipe at each operating point of a bundle, measured on this machine."""
