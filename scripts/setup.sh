#!/usr/bin/env bash
# Makes .venv with motedge and all that its tests and demo need. Can be run again: it does nothing when nothing changed.
#
#   PYTHON=python3.12 bash scripts/setup.sh    another interpreter (3.10 or newer; torch has no release for older ones)
#   MOTEDGE_TORCH_INDEX=URL                    where to look for torch's CPU build, if pip's own index has none
#   MOTEDGE_TORCH_CUDA=1                       take a CUDA build of torch if that is what pip's index has (several GB)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TORCH="torch==2.13.0"
TORCH_INDEX="${MOTEDGE_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"
VENV=.venv
STAMP="$VENV/motedge-setup"

say() { printf '[setup] %s\n' "$*" >&2; }
fail() { printf '[setup] error: %s\n' "$1" >&2; shift; printf '  %s\n' "$@" >&2; exit 3; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
    # An interpreter that was asked for by name is not swapped for another one
    [ -z "${PYTHON:-}" ] || break
  done
  fail "no Python 3.10 to 3.13 found" \
    "got: $("${PYTHON:-python3}" --version 2>&1 || true)" \
    "fix: install one, or name it: PYTHON=/path/to/python3.12 bash scripts/setup.sh" \
    "why: exporting needs torch 2.13; the device, which only runs, needs 3.9 and none of this"
}

# What the environment depends on: this script, the package's requirements, the interpreter
fingerprint() {
  "$1" - pyproject.toml scripts/setup.sh <<'PYTHON'
import hashlib, sys

content = b"".join(open(path, "rb").read() for path in sys.argv[1:])
print(hashlib.sha256(content + f"{sys.version} {sys.prefix}".encode()).hexdigest())
PYTHON
}

# On Linux, PyPI's torch is the CUDA build: its requirements name NVIDIA's packages, some GB that no test here uses.
# Asking what pip *would* install downloads nothing big and tells the two apart, whatever index is configured: a mirror
# or a folder of wheels may well hold the CPU build.
configured_index_has_cpu_torch() {
  local report="$VENV/torch-report.json"
  "$VENV/bin/pip" install --quiet --dry-run --no-deps --ignore-installed --report "$report" "$TORCH" >/dev/null || return 1
  "$VENV/bin/python" - "$report" <<'PYTHON'
import json, platform, re, sys

metadata = json.load(open(sys.argv[1]))["install"][0]["metadata"]
cuda = [r for r in metadata.get("requires_dist", []) if re.match(r"(nvidia-|cuda-|triton|pytorch-triton)", r)]
print(f"[setup] pip's index offers torch {metadata['version']}: {'CUDA build' if cuda else 'CPU build'}", file=sys.stderr)
sys.exit(1 if cuda and platform.system() == "Linux" else 0)
PYTHON
}

install_torch() {
  # First and on purpose, so that the next step finds torch satisfied and fetches no other build
  if "$VENV/bin/python" -c 'import torch, sys; sys.exit(torch.__version__.split("+")[0] != sys.argv[1])' "${TORCH#*==}" 2>/dev/null; then
    say "torch is there"
  elif configured_index_has_cpu_torch; then
    "$VENV/bin/pip" install --quiet "$TORCH"
  elif "$VENV/bin/pip" install --quiet --timeout 15 --retries 1 --no-deps --index-url "$TORCH_INDEX" "$TORCH"; then
    # Without its dependencies above: they come from pip's own index with the package below
    say "torch comes from $TORCH_INDEX"
  elif [ "${MOTEDGE_TORCH_CUDA:-}" = 1 ]; then
    "$VENV/bin/pip" install --quiet "$TORCH"
  else
    fail "no CPU build of $TORCH can be had" \
      "why: pip's index offers none, and $TORCH_INDEX has none for this Python or can't be reached" \
      "fix: MOTEDGE_TORCH_INDEX=URL names another index; MOTEDGE_TORCH_CUDA=1 takes the CUDA build (several GB)"
  fi
}

check_torch() {
  local cuda
  cuda="$("$VENV/bin/python" -c 'import torch; print(torch.version.cuda or "")')"
  if [ -n "$cuda" ] && [ "${MOTEDGE_TORCH_CUDA:-}" != 1 ]; then
    fail "a CUDA $cuda build of torch was installed" \
      "why: it costs several GB and nothing here uses it" \
      "fix: rm -r $VENV and run again with MOTEDGE_TORCH_INDEX, or keep it with MOTEDGE_TORCH_CUDA=1"
  fi
}

main() {
  local python wanted complete=yes
  python="$(find_python)"
  wanted="$(fingerprint "$python")"
  if [ -x "$VENV/bin/motedge" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
    say "up to date"
    return
  fi
  say "making $VENV with $("$python" --version 2>&1); the first time takes some minutes"
  rm -f "$STAMP"
  "$python" -m venv "$VENV" || fail "this Python can't make a virtual environment here" \
    "got: $(df -Pk . | awk 'END {print int($4 / 1024)}') MB free on this disk; about 5 GB are needed" \
    "fix: free some, or where there is room: on Debian and Ubuntu, apt-get install python3-venv"
  # An older pip downloads whole wheels for the dry run
  "$VENV/bin/python" -m pip install --quiet --upgrade "pip>=24"
  install_torch
  "$VENV/bin/pip" install --quiet --editable ".[export,quant,images,plot,serve,client,test]"
  # The simulator that scripts/demo.sh drives in. Where box2d has no wheel it needs swig and a compiler: do without
  "$VENV/bin/pip" install --quiet --only-binary box2d,pygame --editable ".[drive]" || {
    # Tests would be skipped that are to hold
    [ "${CI:-}" != true ] || fail "the simulator could not be installed" "why: pip's message is above"
    complete=""
    say "the simulator could not be installed; pip's message is above. demo.sh and the road's tests need it"
  }
  # For tests that are skipped without. openpi-client asks for numpy 1, and works with 2
  "$VENV/bin/pip" install --quiet --only-binary :all: --editable ".[sim]" || say "no MuJoCo here: its test is skipped"
  "$VENV/bin/pip" install --quiet --no-deps "openpi-client==0.1.2" || say "no openpi-client here: its test is skipped"
  check_torch
  "$VENV/bin/motedge" --version >&2
  if [ -z "$complete" ]; then
    say "done, but for the simulator, which is tried again the next time"
    return
  fi
  printf '%s\n' "$wanted" > "$STAMP"
  say "done"
}

main
