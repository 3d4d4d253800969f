"""Single bits flipped in every file of a finished run and of the cache, and whether each reader of the file notices.

Whoever reads a file says so by an error that names it, by taking it for absent, or by a note; or what it reads is what
it was. The readers are those of `study`, `report` and `runs`, called here without the command around them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fault.ground import Ground
from indelible.edits.solving import covariance
from indelible.errors import IndelibleError
from indelible.report.folder import read_run
from indelible.report.results import changed_since
from indelible.study.design.config import load_config
from indelible.study.events import Events
from indelible.study.run.base_model import known_model
from indelible.study.run.run import plan_of
from indelible.study.run.store import Store

Noticed = Callable[[], bool]


def flips(ground: Ground, number: int) -> tuple[dict[str, int], list[str]]:
    """Flip so many bits, as many in each file.

    Returns:
        how many were noticed, or changed nothing, by kind of file; and those that were not noticed.
    """
    folder, cache = ground.copy(), ground.cache
    files = [path for top in (folder, cache) for path in sorted(top.rglob("*")) if path.is_file()]
    files = [path for path in files if path.stat().st_size]
    readers = {path: _reader(folder, path, ground) for path in files}
    each, came, silent = -(-number // len(files)), dict[str, int](), list[str]()
    for path in files:
        whole = path.read_bytes()
        for bit in _drawn(ground.chance, 8 * len(whole), each):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            if readers[path]():
                came[path.name] = came.get(path.name, 0) + 1
            else:
                silent.append(f"bit {bit} of {path.relative_to(ground.home)}")
        path.write_bytes(whole)
    return came, silent


def _drawn(chance: random.Random, bits: int, number: int) -> list[int]:
    return chance.sample(range(bits), min(number, bits))


def _reader(folder: Path, path: Path, ground: Ground) -> Noticed:
    """What tells whether a flipped bit of a file is noticed, or changes nothing."""
    name, store = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else "", Store(folder)
    if not name:
        kept = covariance._kept(path)
        assert kept is not None
        return lambda: (found := covariance._kept(path)) is None or torch.equal(found, kept)
    if name.startswith("steps/"):
        plan = plan_of(load_config(str(ground.study)), store)
        (step,) = (one for one in plan.steps if one.name == path.parent.name)
        return lambda: Store(folder).damaged(step) == [path.name] and not Store(folder).has(step)
    if name == "model.json":
        model = str(ground.home / "model")
        known = known_model(folder, model)
        return lambda: known_model(folder, model) in (None, known)
    if name == "events.jsonl":
        events = Events(path)
        happened = events.read()[0]
        return lambda: (seen := events.read())[1] > 0 or seen[0] == happened
    if name.endswith(".parquet") or name in ("config.yaml", "provenance.json", "sha256.json"):
        return lambda: _refused(lambda: read_run(folder))
    return lambda: name in changed_since(folder)


def _refused(read: Callable[[], Any]) -> bool:
    try:
        read()
    except IndelibleError:
        return True
    return False
