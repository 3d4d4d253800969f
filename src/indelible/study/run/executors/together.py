"""Steps that tune done by all processes that ``accelerate launch`` has started, on one model; all others by the first.

The first process runs the study: it alone reads and writes the run folder, and says what happens. The others wait for
steps that tune, do them with it, and throw their files away: a model whose weights are dealt out is trained, and asked
on the way, by all at once or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed

from indelible.errors import ConfigError
from indelible.files import scratch_folder
from indelible.launched import is_first, processes
from indelible.models.load import default_device
from indelible.progress import Progress
from indelible.study.run.step import Done, Job, Material, World, do_step

T = TypeVar("T")

_FOREVER = timedelta(days=365)
"""Others wait as long as the first edits and asks."""


class Group:
    """The processes that were launched, and what the first of them tells the others."""

    def __init__(self) -> None:
        from accelerate import PartialState

        PartialState(cpu=default_device().type == "cpu")  # finds the others, and each process its own accelerator
        self._group = torch.distributed.new_group(backend="gloo", timeout=_FOREVER)

    def told(self, kind: str = "", content: Any = None) -> tuple[str, Any]:
        """What the first process tells; the others give nothing and wait for it."""
        said = [(kind, content)]
        torch.distributed.broadcast_object_list(said, src=0, group=self._group, device=torch.device("cpu"))
        return said[0]


class Together:
    """The executor of a study in the first of several processes."""

    workers = 1

    def __init__(self, group: Group, material: Material) -> None:
        self._group, self._material = group, material
        group.told("world", material.world)

    def do(self, job: Job, progress: Progress) -> Done:
        """See ``Executor``."""
        if job.step.work.together:
            self._group.told("job", job)
        return do_step(job, self._material, progress)

    def close(self) -> None:
        """See ``Executor``; the others are told when the study ends."""


def check_launched(workers: int | None, on: str | None) -> None:
    """ConfigError for ways to do a study that launched processes do not go together with."""
    if on is not None or (workers or 1) > 1:
        asked = f"on={on!r}" if on is not None else f"workers={workers}"
        raise ConfigError(
            f"{processes()} processes were launched to tune one model, and {asked} asks for others.",
            "Leave it out, or start the study without `accelerate launch`.",
        )


def together(lead: Callable[[Group], T]) -> T:
    """What ``lead`` gives, which the first process does; the others follow it to its end, and give the same."""
    group = Group()
    if not is_first():
        followed: T = _follow(group)
        return followed
    try:
        found = lead(group)
    except Exception as error:
        group.told("failed", error)
        raise
    group.told("ended", found)
    return found


def _follow(group: Group) -> Any:
    """Do steps with the first process until it says what all has come to."""
    while True:
        kind, content = group.told()
        if kind == "ended":
            return content
        if kind == "failed":
            raise content
        if kind == "world":
            world: World = content
            material = Material(world)
        else:
            with scratch_folder() as folder:
                _do_with_it(replace(content, folder=folder), material)


def _do_with_it(job: Job, material: Material) -> None:
    try:
        do_step(job, material)
    except Exception:  # the first process says it: whatever is wrong with the step is wrong there, too
        return
