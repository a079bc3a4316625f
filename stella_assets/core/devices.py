"""Devices, number format and threads to compute with. They are arguments, never read from a global place."""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stella_assets.core.engine import Engine, LocalEngine
from stella_assets.core.environments import Environments
from stella_assets.core.services import Services

if TYPE_CHECKING:
    import torch

Dtype = Literal["float32", "bfloat16"]
DtypeChoice = Literal["auto", "float32", "bfloat16"]
CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
CPUINFO = Path("/proc/cpuinfo")
NVIDIA = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Where a driver for NVIDIA GPUs shows itself, on Linux and in WSL."""


@dataclass(frozen=True)
class Compute:
    """What a step computes with.

    Attributes:
        device_name: Of torch, e.g. `cuda:1`; empty for the best device of the machine.
        threads: Threads of one process on the CPU.
        engine: Where units of work are computed: in this process, or in one process per device.
        environments: Where models find a Python environment of their own, if they need one.
        services: How models are asked that others run.

    Example:
        >>> Compute(device_name="cpu", threads=2).dtype("float32")
        'float32'
    """

    device_name: str = ""
    threads: int = field(default_factory=lambda: available_threads())  # noqa: PLW0108 (it is defined below)
    engine: Engine = field(default_factory=LocalEngine)
    environments: Environments = field(default_factory=Environments)
    # Not compared: where it is asked for makes it no other device.
    services: Services = field(default_factory=Services, compare=False)

    def on_behalf_of(self, recipe: str) -> Compute:
        """The same, noting which recipe asks services."""
        return replace(self, services=replace(self.services, recipe=recipe))

    @cached_property
    def device(self) -> torch.device:
        """The torch device. Asking for it also gives torch its number of threads, in this process."""
        import torch

        self.limit_threads()
        return torch.device(self.device_name or best_device_name())

    def dtype(self, choice: DtypeChoice) -> Dtype:
        """The number format of an encoder on this device: `auto` is bfloat16 where the device computes in it."""
        if choice != "auto":
            return choice
        name = self.device_name or best_device_name()
        return "bfloat16" if computes_in_bfloat16(name.split(":")[0]) else "float32"

    def describe(self) -> str:
        """Device and threads, e.g. `cpu, 8 threads`: times of one such description can be compared."""
        return f"{self.device_name or best_device_name()}, {self.threads} thread{'s' * (self.threads != 1)}"

    def autocast(self, dtype: Dtype) -> AbstractContextManager[Any]:
        """A context for the forward pass: matrix products in bfloat16, or nothing for float32."""
        import torch

        if dtype == "float32":
            return nullcontext()
        # Weights stay in float32. bfloat16 has float32's range of exponents, so gradients need no scaling.
        if self.device.type != "cpu":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        from stella_assets.core.attention import autocast_on_cpu

        return autocast_on_cpu()

    def limit_threads(self) -> None:
        """Have torch use this many threads, in this process."""
        import torch

        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)


@lru_cache
def best_device_name() -> str:
    """CUDA, Apple's GPU, or the CPU. torch is imported only where a GPU may be there: quick commands ask, too."""
    if not any(path.exists() for path in NVIDIA) and os.uname().sysname == "Linux":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    # On macOS there is no device file to look for, so torch is always asked.
    return "mps" if torch.backends.mps.is_available() else "cpu"


@lru_cache
def computes_in_bfloat16(device_type: str) -> bool:
    """Whether matrix products in bfloat16 are native to the device, not emulated."""
    if device_type == "cuda":
        import torch

        # torch also reports GPUs before Ampere, where it is emulated and slower than float32.
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type != "cpu" or not CPUINFO.exists():
        return False
    # Without these instructions a CPU converts each value to float32 and back, which is slower than float32.
    flags = next((line for line in CPUINFO.read_text().splitlines() if line.startswith("flags")), "").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def available_threads() -> int:
    """CPUs that this process may use: of its affinity mask and of its cgroups' quotas; at least 1.

    A container with a quota of 2 CPUs on a machine with 64 cores gets 2: more threads would wait for one another.
    """
    # `os.cpu_count` counts the machine's CPUs, also those that `taskset` or a scheduler withholds.
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(CGROUP, MEMBERSHIP)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cgroup_quota(root: Path, membership: Path) -> float | None:
    """The smallest quota, in CPUs, of the cgroups that this process is in; None where none limits it.

    Args:
        root: Where cgroups are mounted, of version 2 or 1.
        membership: The process's own list of cgroups, as in `/proc/self/cgroup`.

    Returns:
        CPUs, e.g. 1.5.
    """
    quotas = []
    for line in membership.read_text().splitlines() if membership.is_file() else ():
        # `0::/name` in version 2; `4:cpu,cpuacct:/name` in version 1, which mounts each controller by itself.
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        own = base / name.lstrip("/")
        for folder in (own, *own.parents):  # a quota of an enclosing group counts too
            if folder.is_relative_to(base) and (quota := _quota_of(folder)) is not None:
                quotas.append(quota)
    # Without a list of cgroups, the mount itself may still state a quota.
    return min(quotas, default=_quota_of(root))


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()[:2]
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    except OSError:  # no such group, or no controller of CPUs
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def processes(compute: Compute) -> Any:
    """The processes that a launcher started for this work (accelerate's `PartialState`); one, where none did."""
    from accelerate import PartialState

    return PartialState(cpu=compute.device.type == "cpu")
