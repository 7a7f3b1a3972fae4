"""The command line: one module a verb, each with `register(subparsers)`; main.py holds them together."""
