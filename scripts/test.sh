#!/usr/bin/env bash
# Sets up .venv, then checks style and types and runs the tests. Slow tests run with --slow and in CI (CI=true).
# Further arguments go to pytest:   bash scripts/test.sh -k unipc
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

select="not gpu and not trt and not device"
slow=false
if [ "${1:-}" = --slow ]; then slow=true; shift; fi
if [ "${CI:-}" = true ]; then slow=true; fi
if [ "$slow" = false ]; then select="$select and not slow"; fi

bash scripts/setup.sh

step() {
  local started=$SECONDS
  printf '[test] %s\n' "$*"
  "$@"
  printf '[test] %s s\n' "$((SECONDS - started))"
}

# A cached verdict on the order of imports outlives the module that it was about
step .venv/bin/ruff check --no-cache .
step .venv/bin/ruff format --check .
step .venv/bin/mypy -p motedge
# One run, so that its last line counts every test; tests/conftest.py puts the slow ones last
printf '[test] pytest, %s\n' "$select"
# Not "python -m pytest": that puts this folder on the import path, where runtime/ and export/ would be packages
exec .venv/bin/pytest -m "$select" --durations=15 "$@"
