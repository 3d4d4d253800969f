"""What was written is known again: by the SHA-256 of files, and by a seal in what is written as JSON.

Disks lose bits, and files are cut, emptied and mixed up; most of that can be read without an error. So whatever later
work is built on is hashed when it is written, and checked when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

SEAL = "seal"
HASHES = "sha256.json"
"""The file with the hashes of those beside it, in a run folder and in a folder of the cache."""
T = TypeVar("T")


def digest_of(path: Path) -> str | None:
    """64 hex digits for a file's content; None for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def digests(folder: Path) -> dict[str, str | None]:
    """``digest_of`` all files below a folder, by their paths in it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: digest_of(folder / name) for name in names}


def unlike(folder: Path, kept: Mapping[str, str]) -> list[str]:
    """Of files in a folder whose digests were kept, those that are no longer as they were."""
    return [name for name, digest in kept.items() if digest_of(folder / name) != digest]


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content as it comes out of JSON, with a seal in it."""
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain | {SEAL: seal_of(plain)}


def read_sealed(path: Path, *, besides: str) -> dict[str, Any]:
    """What ``sealed`` gave, out of its file; empty where that is damaged.

    Content of an older version has no seal, and nothing by the name ``besides`` either: by that it is told from content
    of which the seal's own name was damaged.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        own = {key: value for key, value in content.items() if key != SEAL}
        return content if content.get(SEAL) == (seal_of(own) if besides in own else None) else {}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


class ReadOnce(Generic[T]):
    """What is read of files, each read once as long as it looks the same."""

    def __init__(self, read: Callable[[Path], T]) -> None:
        self._read = read
        self._found: dict[Path, tuple[tuple[int, ...], T]] = {}

    def of(self, path: Path) -> T | None:
        """None where there is no such file."""
        try:
            look = path.stat()
        except OSError:
            return None
        seen = (look.st_size, look.st_mtime_ns, look.st_ctime_ns, look.st_ino)
        if path not in self._found or self._found[path][0] != seen:
            self._found[path] = seen, self._read(path)
        return self._found[path][1]


def seal_of(plain: Mapping[str, Any]) -> str:
    """64 hex digits for plain JSON content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
