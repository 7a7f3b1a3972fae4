"""Sensitivity: what quantizing each projection costs, and a mixture of schemes chosen by it."""
