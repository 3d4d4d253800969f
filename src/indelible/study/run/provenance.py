"""Where results come from: versions, hardware, the state of the project around the run. Kept beside every result."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from indelible.study.run.base_model import ModelVersion

PACKAGES = (
    *("indelible", "torch", "transformers", "accelerate", "peft", "safetensors", "tokenizers", "numpy", "pandas"),
    *("pyarrow", "reasoning-gym", "trl", "datasets", "gguf", "bitsandbytes"),
)

_SECRET = re.compile(r"(token|secret|passwo?r?d|key)(\W*[=:]\W*)[^\s,\"']+", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_ABSOLUTE = re.compile(r"(?<![\w.~:/-])/[^\s,\"'\])}]+")


def provenance(model: ModelVersion, left_out: Sequence[str], started: datetime, began: float) -> dict[str, Any]:
    """What is recorded of a run: ``left_out`` says what was left out of a facts file; ``began`` is by the monotonic
    clock, in seconds."""
    return {
        "left_out_of_facts": left_out,
        "model_fingerprint": model.fingerprint,
        "tokenizer": model.tokenizer,
        "versions": versions(),
        "hardware": hardware(),
        "project": project_commit(Path.cwd()),
        "command": command_line(sys.argv),
        "last_run": {
            "started": started.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began, 1),
        },
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers can depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def software() -> dict[str, str]:
    """What every number depends on beside its inputs: versions without the build's own part, and the device's kind."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    found = {package: version(package).partition("+")[0] for package in ("indelible", "torch", "transformers")}
    return found | {"device": "cpu" if accelerator is None else accelerator.type}


def hardware() -> dict[str, Any]:
    """The machine: processor, cores, torch's threads, memory in GiB, accelerator."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else accelerator and str(accelerator),
    }


def project_commit(folder: Path) -> dict[str, Any] | None:
    """Commit of the git project that the folder is in, and whether files differ from it; None outside of any."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit.strip(), "changed": bool((_git(folder, "status", "--porcelain") or "").strip())}


def command_line(words: Sequence[str]) -> str:
    """What was typed, its files seen from the working folder and without secrets. Of another program, such as a script
    that runs a study, no more than its name: what it is given is its own affair."""
    program = Path(words[0])
    if program.stem != "indelible" and program.parts[-2:] != ("indelible", "__main__.py"):
        return program.name
    return shlex.join(["indelible", *map(_shown, words[1:])])


def _shown(word: str) -> str:
    word = _LOGIN.sub("", _SECRET.sub(r"\1\2...", word))
    if Path(word).is_absolute():  # blanks and all
        return os.path.relpath(word)
    return _ABSOLUTE.sub(lambda path: os.path.relpath(path[0]), word)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None
