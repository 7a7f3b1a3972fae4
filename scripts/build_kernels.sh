#!/usr/bin/env bash
# Compiles the CUDA kernels into the package, with the Python of .venv if there is one. Arguments: build_kernels.py --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" scripts/build_kernels.py "$@"
