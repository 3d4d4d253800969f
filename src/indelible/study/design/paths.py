"""Names of files in a study's settings: in memory they hold from any folder; in a run folder they go from there.

So nothing of a run says where its user's home lies, and a run that moves, alone or with what it names, can be gone on
with: the keys of steps go by what is in files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from indelible.errors import ConfigError
from indelible.files import written_path
from indelible.models.bundled.fetch import MODELS
from indelible.models.corpus import ENCYCLOPEDIA
from indelible.study.design.settings import DRAWN, WORLD, StudyConfig


def absolute(config: StudyConfig, folder: Callable[[str], Path]) -> StudyConfig:
    """The same settings with file names that hold from any folder.

    Args:
        folder: where the name at a dotted key starts.

    Raises:
        ConfigError: for what cannot be a path.
    """
    settings = config.as_dict()
    for inside, key, dotted in _files(settings):
        name = inside[key]
        file = written_path(name, ConfigError, folder(dotted)).resolve()
        if dotted == "model":  # another name is the hub's
            meant = file.is_dir()
        elif dotted.endswith(".data.source"):  # likewise
            meant = file.is_file() or (file.is_dir() and name.startswith((".", "/", "~")))
        else:
            meant = True
        inside[key] = str(file) if meant else name
    return StudyConfig.model_validate(settings)


def seen_from(config: StudyConfig, folder: Path) -> dict[str, Any]:
    """Absolute settings in plain values, their file names from a folder."""
    settings = config.as_dict()
    for inside, key, _ in _files(settings):
        if Path(inside[key]).is_absolute():
            inside[key] = f".{os.sep}{os.path.relpath(inside[key], folder.resolve())}"
    return settings


def moved_along(kept: dict[str, Any], config: StudyConfig) -> dict[str, Any]:
    """Settings as they were kept, in plain values: files that are no longer where they were are taken for those of the
    same names in ``config``. Settings that this version cannot read come back as they are."""
    try:
        kept = StudyConfig.model_validate(kept).as_dict()
    except ValueError:
        return kept
    now = {dotted: str(inside[key]) for inside, key, dotted in _files(config.as_dict())}
    for inside, key, dotted in _files(kept):
        then = Path(inside[key])
        if dotted in now and Path(now[dotted]).name == then.name and not then.exists():
            inside[key] = now[dotted]
    return kept


def _files(settings: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Where the name of a file or a folder stands, or may stand: the mapping, the key in it, and all keys to it."""
    facts = settings["facts"]
    yield from ((facts, key, f"facts.{key}") for key in ("edited", "intrinsic", "source") if _is_file(facts[key]))
    if settings["corpus"] != ENCYCLOPEDIA:
        yield settings, "corpus", "corpus"
    if settings["model"] not in MODELS:
        yield settings, "model", "model"
    arms = {f"arms.{arm['name']}": arm for arm in settings["arms"]}
    yield from ((arm, "delta", f"{here}.delta") for here, arm in arms.items() if arm["delta"] is not None)
    tunings = {"tuning": settings["tuning"], **{f"{here}.tuning": arm["tuning"] for here, arm in arms.items()}}
    for here, tuning in tunings.items():
        for outside, key in (("data", "source"), ("lm_eval", "include_path")):
            inside = tuning.get(outside)
            if isinstance(inside, dict) and isinstance(inside.get(key), str):
                yield inside, key, f"{here}.{outside}.{key}"


def _is_file(name: str | None) -> bool:
    return name not in (None, WORLD, *DRAWN)
