#!/usr/bin/env bash
# The main job, end to end, on the CPU: a small checkpoint that was trained to drive is exported, checked and served,
# and a simulated car drives by it over the socket, in real time, as it is told. Can be run again. Nothing stays running.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Another checkpoint that drives: its folder, its shape set, and how it wants to be sampled
checkpoint="${DEMO_CHECKPOINT:-examples/small_road}"
shapes="${DEMO_SHAPES:-examples/train_small/shapes.toml}"
read -ra sampler <<< "${DEMO_SAMPLER:---steps 4 --shift 5 --guidance 1}"
# What the car is told, one after the other, and for how long each
instructions=(left right slow stop)
seconds="${DEMO_SECONDS:-6}"
demo="${DEMO_OUT:-.demo}"
case "$demo" in /*) ;; *) demo="$PWD/$demo" ;; esac

bash scripts/setup.sh

# Without the venv's "activate": the commands are the ones that a user types
PATH="$PWD/.venv/bin:$PATH"
log="$demo/server.log"
server="" driver=""

say() { printf '[demo] %s\n' "$*" >&2; }
fail() { printf '[demo] error: %s\n' "$1" >&2; shift; printf '  %s\n' "$@" >&2; exit 3; }
step() {
  printf '\n$ %s\n' "$*"
  "$@"
}

# 200 once the engines are warm. Whatever proxy is set: it would look for the server on its own machine
healthy() {
  python - "$1" 2>/dev/null <<'PYTHON'
import sys, urllib.request

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
direct.open(sys.argv[1].replace("ws:", "http:", 1) + "/healthz", timeout=5)
PYTHON
}

# Whatever happens, nothing stays: the server is asked to end, answers what is under way, and is made to after a while
stop() {
  local pid
  trap - EXIT INT TERM HUP
  for pid in $driver $server; do
    kill -TERM "$pid" 2>/dev/null || continue
    for _ in {1..150}; do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  server="" driver=""
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

python -c 'import gymnasium, Box2D, pygame' 2>/dev/null || fail "there is no simulator to drive in" \
  "why: scripts/setup.sh could not install it; pip's message is above" \
  "fix: run this again once pip gets through; where there is no wheel of box2d, it is built from source:" \
  "     with swig and a C++ compiler, .venv/bin/pip install --editable '.[drive]'"

mkdir -p "$demo"
step motedge export "$checkpoint" --out "$demo/road" --shape-set "$shapes"
step motedge verify "$demo/road"

# Port 0: any that is free; the log says which
printf '\n$ motedge serve %s --port 0 %s &\n' "$demo/road" "${sampler[*]}"
: > "$log"
motedge serve "$demo/road" --port 0 "${sampler[@]}" 2> "$log" &
server=$!
url="" ready=""
for _ in {1..600}; do
  kill -0 "$server" 2>/dev/null || fail "the server did not start" "log: $(tail -n 5 "$log")"
  url="$(sed -n 's/.*listening on \(ws:[^ ]*\).*/\1/p' "$log")"
  if [ -n "$url" ] && healthy "$url"; then ready=yes; break; fi
  sleep 0.2
done
[ -n "$ready" ] || fail "the server does not become ready" "log: $(tail -n 5 "$log")"
say "ready: $url"

told=()
for instruction in "${instructions[@]}"; do told+=(--instruction "$instruction"); done
printf '\n$ python -m examples.drive_remote --server %s %s --seconds %s\n' "$url" "${told[*]}" "$seconds"
say "driving in real time, $seconds s for each instruction; then the film is drawn"
# In the background and waited for, so that a signal is heeded at once
python -m examples.drive_remote --server "$url" "${told[@]}" --seconds "$seconds" \
  --out "$demo/drive.json" --film "$demo/drive.webp" --film-every 2 --picture "$demo/drive.png" &
driver=$!
code=0
wait "$driver" || code=$?
driver=""
stop
case "$code" in
  0) printf '\nThe drive, with the trajectory over the camera image: %s (a film; open it in a browser)\n' "$demo/drive.webp" ;;
  1) say "the car did not do as it was told; $demo/drive.json and $demo/drive.webp show what it did" ;;
  *) say "the drive failed; the server's log: $log" ;;
esac
exit "$code"
