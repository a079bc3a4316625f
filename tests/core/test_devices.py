"""Threads follow the affinity mask and the cgroup's quota; the number format follows the device."""

import os
from pathlib import Path

import pytest

from stella_assets.core import devices
from stella_assets.core.devices import Compute, available_threads, cgroup_quota


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_max", ".max").replace("_cfs", ".cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_a_quota_of_two_cpus_gives_two_threads_on_a_machine_of_64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, membership = write(tmp_path / "cgroup", cpu_max="200000 100000\n"), tmp_path / "membership"
    membership.write_text("0::/\n")
    monkeypatch.setattr(devices, "CGROUP", root)
    monkeypatch.setattr(devices, "MEMBERSHIP", membership)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    assert available_threads() == 2
    assert Compute().threads == 2
    (root / "cpu.max").write_text("150000 100000\n")
    assert available_threads() == 2  # one and a half
    (root / "cpu.max").write_text("max 100000\n")
    assert available_threads() == 64
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3})
    assert available_threads() == 1


def test_the_smallest_quota_of_enclosing_groups_counts(tmp_path: Path):
    root = write(tmp_path, cpu_max="max 100000\n", job__cpu_max="400000 100000\n", job__inner__cpu_max="max 100000\n")
    membership = tmp_path / "membership"
    membership.write_text("0::/job/inner\n")
    assert cgroup_quota(root, membership) == 4


def test_version_1_of_cgroups_counts_too(tmp_path: Path):
    root = write(tmp_path, cpu__cpu_cfs_quota_us="50000\n", cpu__cpu_cfs_period_us="100000\n")
    membership = tmp_path / "membership"
    membership.write_text("3:cpu,cpuacct:/\n1:memory:/\n")
    assert cgroup_quota(root, membership) == 0.5
    (root / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_quota(root, membership) is None
    assert cgroup_quota(tmp_path / "none", tmp_path / "none") is None


def test_the_number_format_is_the_one_that_torch_reports_for_this_processor():
    import torch

    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert Compute("cpu").dtype("auto") == ("bfloat16" if native else "float32")
    assert Compute("cpu").dtype("float32") == "float32"
    assert devices.best_device_name() == ("cuda" if torch.cuda.is_available() else devices.best_device_name())
