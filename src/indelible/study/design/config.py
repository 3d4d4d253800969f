"""Settings out of study files: a built-in study's or one's own, with what was typed laid over it.

On the way what is short in a file is written out: settings for the study's own model (``by_model``), the cross product
of a grid (see grid.py), and file names that hold from any folder. What comes out is checked (see settings.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from indelible.documents import from_yaml
from indelible.errors import ConfigError, suggest
from indelible.files import read_text
from indelible.study.design.grid import with_grid
from indelible.study.design.paths import absolute
from indelible.study.design.settings import StudyConfig
from indelible.validation import validated


def preset_names() -> list[str]:
    """Names of the built-in studies."""
    folder = files("indelible.study") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(
    name_or_file: str, overrides: Sequence[str] = (), *, note: Callable[[str], None] | None = None
) -> StudyConfig:
    """Read a built-in study by name, or a study file.

    Relative paths inside a file are taken from the file's folder, those in overrides from the working folder.

    Args:
        overrides: assignments like "tuning.steps=5" or "arms.memit.paraphrases=2" that replace what the file says.
        note: told in a sentence when ``by_model`` says nothing about the study's model.

    Raises:
        ConfigError: the study cannot be found or read, or a setting is unknown or impossible.
    """
    if name_or_file in preset_names():
        text = (files("indelible.study") / "presets" / f"{name_or_file}.yaml").read_text(encoding="utf-8")
        return parse_config(text, f"built-in study {name_or_file!r}", Path.cwd(), overrides, note=note)
    path = Path(name_or_file)
    if len(path.parts) == 1 and not path.suffix and not path.exists():
        raise ConfigError(
            f"There is no built-in study {name_or_file!r} and no file of that name.",
            suggest(name_or_file, [*preset_names(), *(file.name for file in Path().glob("*.yaml"))]),
        )
    text = read_text(path, "study file", ConfigError)
    return parse_config(text, name_or_file, path.parent, overrides, note=note)


def parse_config(
    text: str, where: str, folder: Path, overrides: Sequence[str] = (), *, note: Callable[[str], None] | None = None
) -> StudyConfig:
    """Settings out of YAML text, ``where`` in messages, with relative paths from ``folder``; see ``load_config``."""
    settings = from_yaml(text, where, ConfigError)
    if not isinstance(settings, dict):
        raise ConfigError(f"{where} holds no settings.", "Start it with `name:`, `model:` and `arms:`.")
    settings = _for_its_model(settings, overrides, note)
    # The grid's axes are set before it is written out, its arms after.
    to_arms = [override for override in overrides if override.startswith("arms.")]
    for override in (override for override in overrides if override not in to_arms):
        assign(settings, override)
    settings = with_grid(settings)
    for override in to_arms:
        assign(settings, override)
    config = validated(StudyConfig, settings, "")
    # a shell knows its own folder only, not the study file's
    typed = {override.partition("=")[0] for override in overrides}
    return absolute(config, lambda key: Path.cwd() if any(f"{key}.".startswith(f"{one}.") for one in typed) else folder)


def _for_its_model(
    settings: dict[str, Any], overrides: Sequence[str], note: Callable[[str], None] | None
) -> dict[str, Any]:
    """The settings with what ``by_model`` says for the study's own model laid over them.

    A table of settings that were published for some models, by their exact names, so that another model is one word.
    """
    table = settings.pop("by_model", {})
    if not isinstance(table, dict) or not all(isinstance(own, dict) for own in table.values()):
        raise ConfigError(f"'by_model' is {table!r}.", "Map names of models to settings.")
    chosen = {"model": settings.get("model")}
    for override in (override for override in overrides if override.startswith("model=")):
        assign(chosen, override)
    model = chosen["model"]
    if not isinstance(model, str):  # said when all settings are checked
        return settings
    if table and model not in table and note is not None:
        note(f"by_model has no entry for {model!r}: the study's base settings hold.")
    return _laid_over(settings, table.get(model, {}))


def _laid_over(settings: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The settings with others in the place of theirs, mapping by mapping."""
    merged = dict(settings)
    for key, value in other.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def assign(settings: dict[str, Any], override: str, option: str = "--set") -> None:
    """Carry out one "a.b.c=value", given by that option, on nested mappings; list items go by number or ``name``.

    Raises:
        ConfigError: if it assigns nothing, or nothing can be set there.
    """
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"{option} {override!r} assigns nothing.", "Write it as key=value, e.g. steps=5.")
    value = from_yaml(text, f"{option} {override!r}", ConfigError)
    place: Any = settings
    *parents, last = path.split(".")
    for part in parents:
        key = _key(place, part, override)
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place = place[key]
    place[_key(place, last, override)] = value


def _key(place: Any, part: str, override: str) -> str | int:
    """What a part of an override's path stands for in a mapping or a list."""
    if isinstance(place, dict):
        return part
    if not isinstance(place, list):
        raise ConfigError(f"--set {override!r}: nothing can be set inside a single value.", "Check the key's path.")
    names = [item.get("name") if isinstance(item, dict) else None for item in place]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(place):
        return int(part)
    known = [str(name) for name in names if name is not None]
    raise ConfigError(f"--set {override!r}: there is no {part!r} in that list.", suggest(part, known))
