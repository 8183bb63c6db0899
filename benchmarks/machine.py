"""The machine that a figure was measured on, in one line."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("torch", "transformers", "timm", "opencv-python-headless", "pyarrow")


def describe() -> str:
    """CPU, cores, memory, GPU if any, Python and the packages that figures depend on."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{_cpu()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB"]
    if gpu := _gpu():
        parts.append(gpu)
    parts.append(f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    parts += [f"{name} {found}" for name in _PACKAGES if (found := _version(name))]
    return "; ".join(parts)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown CPU"


def _gpu() -> str:
    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
