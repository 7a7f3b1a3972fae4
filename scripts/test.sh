#!/usr/bin/env bash
# Sets up .venv, then checks style and types and runs the tests. Slow tests run with --slow and in CI (CI=true).
# Further arguments go to pytest:   bash scripts/test.sh -k unipc   (-n 0: in one process)
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
# One run, so that its last line counts every test. A process for each core, four at most: what most tests do is done by
# one thread. By file, since a file's tests share bundles that take long to make
cores=$(nproc)
workers=$((cores < 4 ? cores : 4))
printf '[test] pytest, %s, %s processes\n' "$select" "$workers"
# Not "python -m pytest": that puts this folder on the import path, where runtime/ and export/ would be packages
exec .venv/bin/pytest -m "$select" -n "$workers" --dist loadfile --durations=15 "$@"
