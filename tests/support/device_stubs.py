"""A device made of programs that answer as one would: what install scripts ask is asked of these."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Device:
    """What the stubs say; None: the program fails, as where something is not installed."""

    folder: Path
    machine: str = "aarch64"
    l4t: str | None = "36.4.3-20250107174145"
    python: str | None = "3.10"
    venv: bool = True
    module: str | None = "10.3.0.30"
    free_kb: int = 100_000_000
    motedge_code: int = 0
    pip_code: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def calls(self) -> list[str]:
        """What pip, motedge and venv were called with, a line each."""
        log = self.folder / "calls"
        return log.read_text().splitlines() if log.exists() else []

    def run(self, script: Path, *arguments: str, piped: bool = False) -> subprocess.CompletedProcess[str]:
        """Runs an install script on this device; `piped` through stdin, as the one-line command does."""
        self._write()
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        command = ["bash", "-s", "--", *arguments] if piped else ["bash", str(script), *arguments]
        text = script.read_text() if piped else None
        environment = {**os.environ, **self.environment, "PATH": path}
        return subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=False)

    def _write(self) -> None:
        tools = self.folder / "bin"
        tools.mkdir(parents=True, exist_ok=True)
        log = self.folder / "calls"
        answers = {
            "uname": f"echo {self.machine}",
            "dpkg-query": "exit 1" if self.l4t is None else f"printf %s {self.l4t}",
            "df": f"printf 'Filesystem 1024-blocks Used Available Capacity Mounted\\nx 1 1 {self.free_kb} 1%% /\\n'",
            "python3": self._python(log),
        }
        for name, answer in answers.items():
            path = tools / name
            path.write_text(f"#!/usr/bin/env bash\n{answer}\n")
            path.chmod(0o755)

    def _python(self, log: Path) -> str:
        pip = f'#!/usr/bin/env bash\\necho pip \\"\\$*\\" >> {log}\\nexit {self.pip_code}\\n'
        motedge = f'#!/usr/bin/env bash\\necho motedge \\"\\$*\\" >> {log}\\nexit {self.motedge_code}\\n'
        return f"""
case "$*" in
  *sys.version_info*) {"exit 127" if self.python is None else f"echo {self.python}"} ;;
  *ensurepip*) exit {0 if self.venv else 1} ;;
  *__version__*) {"exit 1" if self.module is None else f"echo {self.module}"} ;;
  "-m venv"*)
    folder="${{!#}}"
    echo "venv $*" >> {log}
    mkdir -p "$folder/bin"
    printf "{pip}" > "$folder/bin/pip"
    printf "{motedge}" > "$folder/bin/motedge"
    chmod +x "$folder/bin/pip" "$folder/bin/motedge" ;;
  *) exec {sys.executable} "$@" ;;
esac"""
