from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import motedge
from motedge.cli import inspect, main
from motedge.errors import GateError, HostError, InternalError, UsageError

# Libraries that take longer to load than the help takes to read
HEAVY = ["torch", "numpy", "onnx", "onnxruntime", "tokenizers", "jinja2", "PIL", "matplotlib", "safetensors"]


def _failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs `motedge inspect` with a body that raises `error`."""

    def fail(args: object) -> int:
        raise error

    monkeypatch.setattr(inspect, "_inspect", fail)
    return main.main(["inspect", "bundle"])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("a wrong thing", fix="do it right"), 2, "motedge: error: a wrong thing\n  fix:      do it right"),
        (GateError("cosine too low"), 1, "motedge: error: cosine too low"),
        (HostError("no disk"), 3, "motedge: error: no disk"),
        (MemoryError(), 3, "motedge: error: this machine ran out of memory"),
        (OSError(errno.ENOSPC, "No space", "/tmp/x"), 3, "motedge: error: the disk is full"),
        (OSError(errno.EACCES, "Permission denied", "/x"), 3, "motedge: error: can't write /x"),
        (ModuleNotFoundError("No module", name="onnxruntime"), 3, "'onnxruntime' is not installed"),
        (ModuleNotFoundError("No module", name="motedge.gone"), 4, "motedge: internal error"),
        (InternalError("broken invariant"), 4, "internal error: InternalError: broken invariant"),
        (ZeroDivisionError("x"), 4, "motedge: internal error: ZeroDivisionError: x"),
        (KeyboardInterrupt(), 130, "motedge: interrupted"),
    ],
)
def test_every_failure_has_its_message_and_exit_code(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MOTEDGE_DEBUG", raising=False)
    assert _failing(error, monkeypatch) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MOTEDGE_DEBUG", "1")
    assert _failing(InternalError("broken"), monkeypatch) == 4
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["-v", "inspect", "nothing"], ["inspect", "nothing", "--verbose"]])
def test_verbose_before_and_after_the_verb(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(argv) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["inspcet", "x"], "did you mean 'inspect'?"),
        (["inspect", "x", "--jsno"], "did you mean '--json'?"),
        (["inspect", "x", "--js"], "unrecognized arguments: --js"),
        (["inspect"], "the following arguments are required: BUNDLE"),
    ],
)
def test_usage_errors(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main.main(argv)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert "motedge: error:" in captured.err
    assert captured.out == ""


def test_no_verb_shows_the_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 2
    assert "VERB" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"motedge {motedge.__version__}\n"


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for module in main.VERBS:
        verb = module.__name__.rpartition(".")[2]
        with pytest.raises(SystemExit) as stop:
            main.main([verb, "--help"])
        assert stop.value.code == 0
        assert f"motedge {verb}" in capsys.readouterr().out


def test_help_loads_no_heavy_library_and_starts_fast(tmp_path: Path) -> None:
    code = (
        "import sys, json\n"
        "from motedge.cli.main import build_parser\n"
        "build_parser().format_help()\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))\n"
    )
    # -X importtime would slow what is measured; the bare interpreter's own start is subtracted
    bare_s = min(_seconds(["-c", "import argparse"], tmp_path) for _ in range(5))
    help_s = min(_seconds(["-m", "motedge", "--help"], tmp_path) for _ in range(5))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    assert help_s - bare_s < 0.15


def test_reader_that_leaves_ends_the_command_quietly(small_bundle: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "motedge", "inspect", str(small_bundle)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


def test_log_goes_to_stderr_with_a_letter(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    from motedge.cli import log

    log.configure(verbose=False)
    log.configure(verbose=False)
    logging.getLogger("motedge.test").warning("a thing")
    logging.getLogger("motedge.test").debug("hidden")
    captured = capsys.readouterr()
    assert captured.err == "[W] a thing\n"
    assert captured.out == ""


def _seconds(arguments: list[str], compiled: Path) -> float:
    """As an installed package starts, whose modules pip compiled: from the second time on they are, in `compiled`."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    variables["PYTHONPYCACHEPREFIX"] = str(compiled)
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True, env=variables)
    return time.perf_counter() - started
