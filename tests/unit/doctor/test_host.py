from __future__ import annotations

from pathlib import Path

from motedge.doctor.host import examine_host


def _root(tmp_path: Path, cpuinfo: str, limit: str) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       8000 kB\nMemFree: 1 kB\nMemAvailable:   4000 kB\n")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(limit + "\n")
    return tmp_path


def test_x86(tmp_path: Path) -> None:
    cpuinfo = "processor : 0\nmodel name : Xeon\nflags : fpu avx2 amx_tile avx512f\nprocessor : 1\nmodel name : other\n"
    host = examine_host(tmp_path, _root(tmp_path, cpuinfo, "1000"))
    assert host.cpu == "Xeon"
    assert host.cpu_flags == ("avx2", "avx512f", "amx_tile")
    assert (host.memory_bytes, host.memory_available_bytes) == (8_192_000, 4_096_000)
    assert host.usable_memory_bytes == 1000


def test_orin(tmp_path: Path) -> None:
    cpuinfo = "processor : 0\nFeatures : fp asimd asimdhp asimddp\nCPU implementer : 0x41\nCPU part : 0xd42\n"
    host = examine_host(tmp_path, _root(tmp_path, cpuinfo, "max"))
    assert host.cpu == "Cortex-A78AE"
    assert host.cpu_flags == ("asimd", "asimdhp", "asimddp")
    assert host.memory_limit_bytes is None
    assert host.usable_memory_bytes == 8_192_000


def test_system_without_proc(tmp_path: Path) -> None:
    host = examine_host(tmp_path / "not" / "there", tmp_path)
    assert host.memory_bytes is None
    assert host.usable_memory_bytes is None
    assert host.cpu
    assert host.disk_path == str(tmp_path)
