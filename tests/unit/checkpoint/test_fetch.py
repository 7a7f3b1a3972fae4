"""Fetching from a local server that speaks the hub's protocol: revisions, ranges, cut connections, refusals."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip("huggingface_hub")

from motedge.checkpoint import fetch as fetch_module
from motedge.checkpoint.fetch import fetch_checkpoint, plan_fetch
from motedge.checkpoint.inspect import inspect_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import CheckpointError, HostError, UsageError

ID = "nvidia/Cosmos3-Edge-Test"
COMMIT = "3ea407af" + "0" * 32
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


class Hub(ThreadingHTTPServer):
    """What the server serves, how it misbehaves, and what it was asked."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        self.files.pop("motedge.json", None)
        # status and X-Error-Code for every request to the repository
        self.refuse: tuple[int, str] | None = None
        # file -> how many of the next downloads are cut in the middle
        self.cut: dict[str, int] = {}
        # file -> status of the next downloads that ask for a range
        self.refuse_range: dict[str, int] = {}
        self.log: list[tuple[str, str, str | None]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloads(self, name: str) -> list[str | None]:
        """The Range headers of the GET requests for a file, in order."""
        return [span for method, path, span in self.log if method == "GET" and path == name]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub
    _FILE: ClassVar = re.compile(rf"/{ID}/resolve/(?P<revision>[^/]+)/(?P<name>.+)")

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        if ID not in path:
            return self.fail(404, "RepoNotFound")
        if self.server.refuse:
            return self.fail(*self.server.refuse)
        file = self._FILE.fullmatch(path)
        if file:
            return self.send_file(file["revision"], file["name"])
        revision = path.rpartition("/")[2]
        if revision not in ("main", "v1", COMMIT):
            return self.fail(404, "RevisionNotFound")
        entries = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.server.files.items()
        ]
        if "/tree/" in path:
            return self.send_json(entries)
        siblings = [{"rfilename": entry["path"], "size": entry["size"]} for entry in entries]
        return self.send_json({"id": ID, "sha": COMMIT, "siblings": siblings})

    def send_file(self, revision: str, name: str) -> None:
        if revision not in ("main", COMMIT):
            return self.fail(404, "RevisionNotFound")
        data = self.server.files.get(name)
        if data is None:
            return self.fail(404, "EntryNotFound")
        span = self.headers.get("Range")
        self.server.log.append((self.command, name, span))
        if span and name in self.server.refuse_range:
            return self.fail(self.server.refuse_range.pop(name), "")
        start = int(re.fullmatch(r"bytes=(\d+)-", span)[1]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if self.server.cut.get(name, 0):
            self.server.cut[name] -= 1
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.wfile.flush()
            self.close_connection = True
            return None
        self.wfile.write(data[start:])
        return None

    def send_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(tiny) -> Iterator[Hub]:
    server = Hub(tiny("edge"))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def small_pieces(monkeypatch) -> None:
    """The client keeps whole pieces of 10 MB of a cut download; a tiny checkpoint needs smaller ones."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)


def same_weights(root: Path, other: Path) -> bool:
    return (root / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()


def test_a_branch_is_fetched_and_its_commit_recorded(hub, tiny, tmp_path):
    root = fetch_checkpoint(ID, "main", out=tmp_path / "edge", endpoint=hub.endpoint)
    checkpoint = Checkpoint.open(root)
    checkpoint.check()
    assert (checkpoint.revision, checkpoint.provenance.id, checkpoint.provenance.requested) == (COMMIT, ID, "main")
    assert same_weights(root, tiny("edge"))
    assert inspect_checkpoint(root)["origin"]["source"] == "hub"


def test_a_second_fetch_downloads_nothing(hub, tmp_path):
    fetch_checkpoint(ID, out=tmp_path / "edge", endpoint=hub.endpoint)
    hub.log.clear()
    assert plan_fetch(ID, out=tmp_path / "edge", endpoint=hub.endpoint).missing == {}
    fetch_checkpoint(ID, out=tmp_path / "edge", endpoint=hub.endpoint)
    assert [entry for entry in hub.log if entry[0] == "GET"] == []


def test_a_plan_downloads_nothing(hub, tmp_path):
    plan = plan_fetch(ID, "v1", out=tmp_path / "edge", endpoint=hub.endpoint)
    assert plan.commit == COMMIT and plan.missing[WEIGHTS] == len(hub.files[WEIGHTS])
    assert plan.missing_bytes == sum(map(len, hub.files.values()))
    assert [entry for entry in hub.log if entry[0] == "GET"] == []
    assert list(tmp_path.iterdir()) == []


def test_only_what_a_policy_needs(hub, tmp_path):
    hub.files["sound_tokenizer/config.json"] = b"{}"
    root = fetch_checkpoint(ID, out=tmp_path / "edge", only="policy", endpoint=hub.endpoint)
    checkpoint = Checkpoint.open(root)
    checkpoint.check()
    assert checkpoint.vision_encoder is None and checkpoint.tokenizer_files()
    assert not (root / "sound_tokenizer").exists() and not (root / "vision_encoder").exists()


def test_a_cut_connection_is_resumed_within_one_fetch(hub, small_pieces, tiny, tmp_path):
    hub.cut[WEIGHTS] = 1
    root = fetch_checkpoint(ID, out=tmp_path / "edge", endpoint=hub.endpoint)
    first, second = hub.downloads(WEIGHTS)
    assert first is None and second.startswith("bytes=") and int(second[6:-1]) > 0
    assert same_weights(root, tiny("edge"))


def test_a_failed_fetch_goes_on_with_the_files_that_it_had_not_finished(hub, small_pieces, tiny, tmp_path):
    hub.cut[WEIGHTS] = 1
    hub.refuse_range[WEIGHTS] = 500
    with pytest.raises(HostError, match="500"):
        fetch_checkpoint(ID, out=tmp_path / "edge", endpoint=hub.endpoint)
    assert not (tmp_path / "edge" / WEIGHTS).exists() and not (tmp_path / "edge" / "motedge.json").exists()
    finished = {name for name in hub.files if (tmp_path / "edge" / name).exists()}
    assert finished and not list(tmp_path.rglob("*.incomplete"))
    hub.log.clear()
    root = fetch_checkpoint(ID, out=tmp_path / "edge", endpoint=hub.endpoint)
    assert {name for method, name, _ in hub.log if method == "GET"} == hub.files.keys() - finished
    assert same_weights(root, tiny("edge"))


def test_a_wrong_revision_is_named(hub, tmp_path):
    with pytest.raises(UsageError, match="no revision v9"):
        fetch_checkpoint(ID, "v9", out=tmp_path / "edge", endpoint=hub.endpoint)
    assert not (tmp_path / "edge").exists()


def test_an_unknown_repository_is_named(hub, tmp_path):
    with pytest.raises(UsageError, match="no repository nvidia/Nothing"):
        fetch_checkpoint("nvidia/Nothing", out=tmp_path / "edge", endpoint=hub.endpoint)
    with pytest.raises(UsageError, match="not a repository id"):
        fetch_checkpoint("no/such/id", out=tmp_path / "edge", endpoint=hub.endpoint)


@pytest.mark.parametrize(("status", "code"), [(403, "GatedRepo"), (401, "GatedRepo"), (403, "")])
def test_a_gated_repository_says_how_to_get_in(hub, tmp_path, status, code):
    hub.refuse = (status, code)
    with pytest.raises(HostError, match="no permission") as caught:
        fetch_checkpoint(ID, out=tmp_path / "edge", endpoint=hub.endpoint)
    assert "accept the terms" in caught.value.fix


def test_no_network_is_said(tmp_path):
    with pytest.raises(HostError, match="can't reach the hub"):
        fetch_checkpoint(ID, out=tmp_path / "edge", endpoint="http://127.0.0.1:9")


def test_another_kind_of_repository_is_refused_before_the_download(hub, tmp_path):
    del hub.files["transformer/config.json"]
    with pytest.raises(CheckpointError, match="no Cosmos 3 checkpoint"):
        fetch_checkpoint(ID, out=tmp_path / "edge", endpoint=hub.endpoint)
    assert hub.downloads(WEIGHTS) == []


def test_a_full_disk_is_said_before_the_download(hub, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(HostError, match="too little disk space"):
        fetch_checkpoint(ID, out=tmp_path / "edge", endpoint=hub.endpoint)
    assert hub.downloads(WEIGHTS) == []


def test_a_disk_that_fills_during_the_download(hub, tmp_path, monkeypatch):
    import errno

    import huggingface_hub

    real = huggingface_hub.snapshot_download

    def fill(*args, dry_run=False, **kwargs):
        if dry_run:
            return real(*args, dry_run=True, **kwargs)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fill)
    with pytest.raises(HostError, match="disk is full"):
        fetch_checkpoint(ID, out=tmp_path / "edge", endpoint=hub.endpoint)
    assert not (tmp_path / "edge" / "motedge.json").exists()


def test_a_folder_with_another_checkpoint_is_not_mixed(hub, broken):
    with pytest.raises(UsageError, match="holds another checkpoint"):
        fetch_checkpoint(ID, out=broken, endpoint=hub.endpoint)
    assert hub.log == []


def test_an_unknown_selection_is_refused(hub):
    with pytest.raises(UsageError, match="did you mean 'policy'"):
        plan_fetch(ID, only="polcy", endpoint=hub.endpoint)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HostError, match="huggingface_hub"):
        fetch_module.plan_fetch(ID)


def test_the_command_fills_the_cache_below_hf_home(hub, tiny, tmp_path):
    """In a process of its own, because the hub client reads its environment when imported."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.endpoint}
    command = [sys.executable, "-m", "motedge", "checkpoint", "fetch", ID, "--revision", "v1", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    root = Path(json.loads(done.stdout)["checkpoint"])
    assert root == tmp_path / "home" / "hub" / "models--nvidia--Cosmos3-Edge-Test" / "snapshots" / COMMIT
    checkpoint = Checkpoint.open(root)
    checkpoint.check()
    assert checkpoint.revision == COMMIT and checkpoint.provenance.id == ID
    assert same_weights(root, tiny("edge"))
    assert "%|" not in done.stderr  # no progress bar without a terminal
    dry = subprocess.run([*command, "--dry-run"], env=environment, capture_output=True, text=True, timeout=120)
    assert json.loads(dry.stdout)["missing"] == {}
