"""Coverage-guided fuzzing of what a client's bytes go through first: the framing, the observation, the request.

    pip install atheris
    python benchmarks/fuzz_wire.py --seconds 300 --out benchmarks/results/fuzz_wire.json

Anything but an answer or an error of motedge's own is a finding: the program ends with 1, and `--corpus` holds it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from conditions import SCHEMA, collect_conditions

_CODE = ("motedge.client.wire", "motedge.serve.policy_request", "motedge.runtime.policy.observation")
_STATISTIC = re.compile(r"stat::(\w+):\s+(\d+)")
_COVERAGE = re.compile(r"cov: (\d+)")
# Keys and types, so that libFuzzer need not guess them
_WORDS = (
    *("__ndarray__", "__npgeneric__", "data", "dtype", "shape", "<f4", "|u1", "|O", "prompt", "motedge/request_id"),
    *("observation/joint_position", "observation/gripper_position", "observation/wrist_image_left"),
    *("observation/image", "observation/exterior_image_1_left", "motedge/committed", "motedge/deadline_ms"),
)


def fuzz() -> None:
    """In a process of its own, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=list(_CODE)):
        from motedge.client.wire import WireLimits, pack, unpack
        from motedge.errors import MotedgeError
        from motedge.serve.policy_request import request_from_message, request_id_of

    limits = WireLimits(message_bytes=200_000)

    def one(data: bytes) -> None:
        try:
            message = unpack(data, limits)
        except MotedgeError:
            return
        # What was read can be sent, and read again
        try:
            again = unpack(pack(message), limits)
        except MotedgeError:
            again = message
        if type(again) is not type(message):
            raise AssertionError(f"{type(message)} came back as {type(again)}")
        request_id_of(message)
        try:
            request_from_message(message, 1 << 20, "fuzz")
        except MotedgeError:
            return

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


def seeds() -> list[bytes]:
    """Sound messages, small."""
    import numpy as np

    from motedge.client.wire import pack

    image = np.zeros((16, 16, 3), np.uint8)
    base: dict[str, Any] = {
        "observation/joint_position": np.zeros(7, np.float32),
        "observation/gripper_position": np.zeros(1),
        "prompt": "go",
    }
    views = {"observation/wrist_image_left": image, "observation/exterior_image_1_left": image}
    more = {
        "motedge/request_id": 1,
        "motedge/deadline_ms": 5.0,
        "motedge/committed": np.zeros((2, 8)),
        "motedge/seed": 1,
    }
    return [pack(message) for message in ({**base, **views}, {**base, **views, **more}, base, {"a": [1, None, "b"]})]


def main() -> int:
    """Runs the fuzzer, prints and writes what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="folder that keeps what was found; default: a temporary one")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    conditions = collect_conditions(1)
    with tempfile.TemporaryDirectory() as folder:
        corpus = args.corpus or Path(folder) / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
        words = Path(folder) / "words"
        words.write_text("".join(f'"{word}"\n' for word in _WORDS))
        arguments = [
            f"-max_total_time={args.seconds}",
            "-max_len=4096",
            "-print_final_stats=1",
            "-seed=7",
            "-timeout=5",
        ]
        arguments += [f"-dict={words}", f"-artifact_prefix={corpus}/finding-", "-rss_limit_mb=2048", str(corpus)]
        program = [sys.executable, str(Path(__file__).resolve()), "--fuzz", *arguments]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
    statistics = {name: int(value) for name, value in _STATISTIC.findall(done.stderr)}
    covered = [int(value) for value in _COVERAGE.findall(done.stderr)]
    found = {
        "executions": statistics.get("number_of_executed_units", 0),
        "new_inputs": statistics.get("new_units_added", 0),
        "peak_memory_mb": statistics.get("peak_rss_mb"),
        "slowest_s": statistics.get("slowest_unit_time_sec"),
        "covered": covered[-1] if covered else None,
        "exit_code": done.returncode,
    }
    for name, value in found.items():
        print(f"{name:<16}{value}")
    if done.returncode or not found["executions"]:
        print(done.stderr[-4000:], file=sys.stderr)
        return 1
    if args.out:
        from motedge.files import write_json

        settings = {"seconds": args.seconds, "code": list(_CODE)}
        write_json(
            args.out, {"schema": SCHEMA, "name": "fuzz_wire", "conditions": conditions, "settings": settings, **found}
        )
    return 0


if __name__ == "__main__":
    if "--fuzz" in sys.argv:
        sys.argv.remove("--fuzz")
        fuzz()
    else:
        sys.exit(main())
