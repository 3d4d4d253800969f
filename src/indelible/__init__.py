"""indelible: do model edits survive fine-tuning, and how do you make them?

What the names below stand for is imported when they are first used, so that ``import indelible`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from indelible.errors import near_names

if TYPE_CHECKING:
    from indelible.care.audit import audit
    from indelible.care.edit import edit
    from indelible.care.export import export
    from indelible.care.protect import protect
    from indelible.care.push import push
    from indelible.care.repair import repair
    from indelible.care.use import ask, fine_tune
    from indelible.care.verify import verify
    from indelible.care.weights.difference import diff
    from indelible.care.weights.spectrum import spectrum
    from indelible.edits.deltas.adapter import read_delta
    from indelible.edits.editor import EDITORS
    from indelible.exam.callback import RetentionCallback
    from indelible.facts.fact import Fact
    from indelible.facts.read import read_facts
    from indelible.models.load import LoadedModel, load
    from indelible.study.advice.advise import Advice, advise
    from indelible.study.run.run import run_study

__version__ = "0.1.0"

__all__ = [
    "EDITORS",
    "Advice",
    "Fact",
    "LoadedModel",
    "RetentionCallback",
    "advise",
    "ask",
    "audit",
    "diff",
    "edit",
    "export",
    "fine_tune",
    "load",
    "protect",
    "push",
    "read_delta",
    "read_facts",
    "repair",
    "run_study",
    "spectrum",
    "verify",
]

_HOMES = {
    "EDITORS": "edits.editor",
    "Advice": "study.advice.advise",
    "Fact": "facts.fact",
    "LoadedModel": "models.load",
    "RetentionCallback": "exam.callback",
    "advise": "study.advice.advise",
    "ask": "care.use",
    "audit": "care.audit",
    "diff": "care.weights.difference",
    "edit": "care.edit",
    "export": "care.export",
    "fine_tune": "care.use",
    "load": "models.load",
    "protect": "care.protect",
    "push": "care.push",
    "read_delta": "edits.deltas.adapter",
    "read_facts": "facts.read",
    "repair": "care.repair",
    "run_study": "study.run.run",
    "spectrum": "care.weights.spectrum",
    "verify": "care.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        near = "".join(f" Did you mean {found!r}?" for found in near_names(name, __all__)[:1])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{near}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
