"""What a step of a study is: a piece of work, what it builds on, and the key that says all that its result depends on.

Equal keys mean equal results, so arms with the same edit share it, an interrupted study goes on where it stopped, and a
changed option reruns only what hangs on it. A step is plain data and writes into a folder that it is given: it can be
sent to another process, which makes its own ``Material`` and does it there. What it draws comes from the study's seed
alone, never from what ran before it.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from pydantic import BaseModel

from indelible.edits.editor import Editor
from indelible.facts.fact import Fact
from indelible.models.corpus import corpus_texts
from indelible.progress import Progress, silent
from indelible.study.design.settings import FactsSettings
from indelible.study.run.base_model import LentModel
from indelible.study.run.cost import Cost, Speed
from indelible.study.run.sources import digest
from indelible.tuning.protection import Protection
from indelible.tuning.randomness import seeded

Outside = Literal["facts", "corpus", "tasks"]


@dataclass(frozen=True)
class Versions:
    """Versions of everything that a study reads from outside its settings.

    ``model`` and ``tokenizer`` as in ``ModelVersion`` (or the model's name, as long as it was not read); ``software``:
    packages that every number depends on, and the kind of device; ``tasks``: what training examples are made from.
    """

    model: str
    tokenizer: str
    software: Mapping[str, str]
    facts: str
    corpus: str
    tasks: str

    def behind(self, own: Sequence[Outside]) -> dict[str, Any]:
        """What stands behind every step, and some steps' own."""
        everywhere = {"model": self.model, "tokenizer": self.tokenizer, "software": dict(self.software)}
        return everywhere | {name: getattr(self, name) for name in own}


@dataclass(frozen=True)
class Done:
    """What there is to say of a step that has written its files: a line for the screen, and entries for step.json."""

    note: str
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work(ABC):
    """A kind of step with its options, one file in ``steps/``; its fields are all settings that its result depends on.

    Attributes:
        kind: what it is called in names of folders.
        version: raised when the same options give or write something else, so that older results are not taken for new.
        reads: what it reads from outside beside model, tokenizer and software.
        together: whether processes that were launched together do it at the same time, on one model.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[Outside, ...]] = ()
    together: ClassVar[bool] = False

    @property
    def options(self) -> dict[str, Any]:
        """The fields as plain JSON values, which the key is made from."""
        return {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)}

    @property
    def outside(self) -> tuple[Outside, ...]:
        """What it reads with these options."""
        return self.reads

    @abstractmethod
    def cost(self, facts: FactsSettings, speed: Speed) -> Cost:
        """What it takes, by how many facts are edited and asked, and how fast the model is here."""

    @abstractmethod
    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        """Do it, and write its files into ``job.folder``, which is empty.

        Raises:
            IndelibleError: whatever the rooms raise when the facts, the options or the training do not work out.
        """


@dataclass(frozen=True)
class Step:
    """One piece of work whose result is kept under its key: 64 hex digits; equal keys mean equal results.

    ``inputs`` are the steps that it reads, by their role; ``title`` is what to call it on the screen.
    """

    work: Work
    seed: int
    inputs: Mapping[str, Step]
    key: str
    title: str

    @classmethod
    def of(cls, work: Work, seed: int, inputs: Mapping[str, Step], versions: Versions, title: str) -> Self:
        """The step, with its key."""
        content = {
            "kind": work.kind,
            "version": work.version,
            "seed": seed,
            "options": work.options,
            "inputs": {role: step.key for role, step in inputs.items()},
            "outside": versions.behind(work.outside),
        }
        return cls(work, seed, inputs, digest(content), title)

    @property
    def kind(self) -> str:
        """Of its work."""
        return self.work.kind

    @property
    def name(self) -> str:
        """Folder name of the result: the kind and the first 16 digits of the key."""
        return f"{self.kind}-{self.key[:16]}"


def _plain(value: Any) -> Any:
    if isinstance(value, Protection):
        return {"name": value.name, "version": value.version, **value.model_dump(mode="json")}
    if isinstance(value, Editor):
        return {"name": value.name, **value.model_dump(mode="json")}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


@dataclass(frozen=True)
class World:
    """What steps read from outside a study: the model's name, the facts to choose from, where the texts for covariances
    are, whether the model's own code may be run, and which seeds the study has, so that what does not fit one of them
    is said for all. Plain data: another process makes its own ``Material`` from it."""

    model: str
    candidates: Sequence[Fact]
    corpus: str
    trusted: bool = False
    seeds: tuple[int, ...] = ()


@dataclass
class Material:
    """The same at hand in one process: the model loaded once (``note`` is told) and lent to every step."""

    world: World
    note: Callable[[str], None] = lambda text: None

    @cached_property
    def lent(self) -> LentModel:
        """The base model, loaded when it is first asked for."""
        return LentModel(self.world.model, self.note, trust_remote_code=self.world.trusted)

    def let_go(self) -> None:
        """Give up the model's memory; it is loaded again when it is asked for."""
        vars(self).pop("lent", None)
        give_memory_back()

    def corpus(self) -> list[str]:
        """The texts for key covariances."""
        return corpus_texts(self.world.corpus)


@dataclass(frozen=True)
class Job:
    """A step that is to be done: with the folders of those that it builds on, by role, and the empty one for its files.
    Plain data."""

    step: Step
    inputs: Mapping[str, Path]
    folder: Path


class Executor(Protocol):
    """Where steps are done: here, in other processes, on other machines (one file each in ``executors/``).

    It does so many at a time as it has ``workers``, each called from a thread of its own where there are several.
    """

    @property
    def workers(self) -> int: ...

    def do(self, job: Job, progress: Progress) -> Done:
        """Do a step and come back when its files are written; raises as ``Work.do``."""
        ...

    def close(self) -> None:
        """Give up what is held; steps that are being done end with an error."""
        ...


def do_step(job: Job, material: Material, progress: Progress = silent) -> Done:
    """Carry out one step in this process.

    Libraries that draw from global generators find the same state in every run of this step; the caller's is kept.
    """
    with seeded(job.step.seed):
        done = job.step.work.do(job, material, progress)
    give_memory_back()
    return replace(done, record={**done.record, "threads": torch.get_num_threads()})


def give_memory_back() -> None:
    """Give what is no longer needed back to the machine.

    A trainer and its optimizer hold one another, so that they stay until Python looks for cycles; and glibc keeps freed
    memory below what is still in use. Of SmolLM2-135M 2.4 GB more than the model stayed in a process after each tuning.
    """
    gc.collect()
    if sys.platform == "linux" and hasattr(c_library := ctypes.CDLL(None), "malloc_trim"):  # not in musl
        c_library.malloc_trim(0)
