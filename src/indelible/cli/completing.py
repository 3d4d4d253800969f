"""What a shell is told when a name is begun: nothing heavy is imported for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from indelible.registry import listed

Complete = Callable[[str], list[str]]


def _from(names: Callable[[], Iterable[str]]) -> Complete:
    """Those names that begin as what is typed; where none does, shells go on with files."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _presets() -> list[str]:
    from indelible.study.design.config import preset_names

    return preset_names()


def _models() -> list[str]:
    from indelible.models.bundled.fetch import MODELS

    return sorted(MODELS)


presets = _from(_presets)
models = _from(_models)
editors = _from(lambda: listed("indelible.edits.editors", "indelible.editors"))
objectives = _from(lambda: listed("indelible.tuning.objectives", "indelible.objectives"))
protections = _from(lambda: listed("indelible.tuning.protections", "indelible.protections"))
