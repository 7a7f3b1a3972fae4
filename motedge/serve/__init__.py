"""A resident policy server: engines stay loaded, robots ask over a WebSocket. docs/serve.md.

Needs the extra `serve` and Python 3.10.
"""
