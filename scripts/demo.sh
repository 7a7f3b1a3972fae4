#!/usr/bin/env bash
# The main job, end to end, on the CPU: a checkpoint with random weights, its bundle, a check of the bundle, and the
# policy's actions for a scene that is drawn here. Can be run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh

demo=.demo
step() {
  printf '\n$ %s\n' "$*"
  "$@"
}
# Without the venv's "activate": the commands are the ones that a user types
PATH="$PWD/.venv/bin:$PATH"

mkdir -p "$demo"
if [ ! -f "$demo/checkpoint/model_index.json" ]; then
  rm -rf "$demo/checkpoint"
  step motedge checkpoint make "$demo/checkpoint" --family edge --variant policy-droid --size tiny --seed 0
fi
step motedge export "$demo/checkpoint" --out "$demo/bundle"
step motedge verify "$demo/bundle"
step python examples/draw_scene.py --out "$demo/scene"
step motedge run "$demo/bundle" --observation "$demo/scene" --plot "$demo/actions.png"
printf '\nThe actions over the camera image: %s\n' "$PWD/$demo/actions.png"
