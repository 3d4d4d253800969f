"""The actor that does steps on a machine of a Ray cluster, if that machine is as the others and sees what they see."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from indelible.errors import ConfigError, IndelibleError, ModelError, StoreError
from indelible.study.run.base_model import ModelVersion
from indelible.study.run.cost import Speed, measured_speed
from indelible.study.run.executors.worker import outcome
from indelible.study.run.provenance import software
from indelible.study.run.step import Job, Material, World
from indelible.tuning.settings import TuningSettings

if TYPE_CHECKING:
    from indelible.study.run.executors.worker import Outcome

_ARRIVAL_SECONDS = 90.0  # NFS shows what other machines wrote up to a minute late


class RayWorker:
    """One actor, which does a step at a time and meanwhile tells how far it is."""

    def __init__(self, world: World, folder: str) -> None:
        self._material, self._folder = Material(world), folder
        self._told = (0, 1, "")

    def software(self) -> dict[str, str]:
        """What results depend on here."""
        return software()

    def speed(self, tunings: Sequence[TuningSettings], threads: int) -> Speed:
        """How fast the model is here."""
        torch.set_num_threads(threads)
        lent = self._material.lent
        with lent.base_model() as model:
            return measured_speed(model, lent.tokenizer, self._material.world.candidates, tunings, lent.ways)

    def told(self) -> tuple[int, int, str]:
        """What the step under way has last said of itself."""
        return self._told

    def do(
        self,
        job: Job,
        expected: Mapping[str, str],
        planned: Mapping[str, Any],
        model: ModelVersion | None,
        threads: int,
    ) -> tuple[Outcome, dict[str, int]]:
        """Do a step whose options were ``planned`` so: what became of it, and how long the files are that it wrote."""
        self._told = (0, 1, "")
        torch.set_num_threads(threads)
        try:
            self._check(job, expected, planned, model)
        except IndelibleError as error:
            return ("failed", (error, "")), {}
        became = outcome(job, self._material, self._tell)
        files = [path for path in job.folder.rglob("*") if path.is_file()]
        return became, {str(path.relative_to(job.folder)): path.stat().st_size for path in files}

    def _tell(self, done: int, total: int, note: str) -> None:
        self._told = (done, total, note)

    def _check(
        self, job: Job, expected: Mapping[str, str], planned: Mapping[str, Any], model: ModelVersion | None
    ) -> None:
        """That this machine is as the others, and sees what they see."""
        if (here := software()) != dict(expected):
            raise ConfigError(
                f"{platform.node()} has {here}, the cluster's first worker {dict(expected)}.",
                "Give all machines the same packages and kind of accelerator: results would be mixed.",
            )
        try:
            os.chdir(self._folder)  # relative names in settings hold there
        except OSError:
            raise StoreError(
                f"{platform.node()} does not see the folder {self._folder}.",
                "Run from a folder that all machines share.",
            ) from None
        await_files({job.folder: None, **{folder / "step.json": None for folder in job.inputs.values()}})
        if model is not None and self._material.lent.version != model:
            raise ModelError(
                f"{platform.node()} has another model by the name {self._material.world.model!r} than the study.",
                "Give all machines the same files of it, in a folder that they share or of one revision of the hub.",
            )
        if (here := job.step.work.options) != planned:  # some hold versions: of bitsandbytes, of the harness
            other = {key: here.get(key) for key in {**planned, **here} if here.get(key) != planned.get(key)}
            raise ConfigError(
                f"{platform.node()} would do '{job.step.title}' with {other}, and it was planned with "
                f"{ {key: planned.get(key) for key in other} }.",
                "Give all machines the same packages: results would be mixed.",
            )


def await_files(files: Mapping[Path, int | None]) -> None:
    """Wait until what another machine wrote can be seen here, each file at its length where that is given.

    Raises:
        StoreError: if it does not come.
    """
    end = time.monotonic() + _ARRIVAL_SECONDS
    for path, size in files.items():
        while not (path.exists() and size in (None, path.stat().st_size)):
            if time.monotonic() > end:
                raise StoreError(
                    f"{path} is not to be seen on {platform.node()}.", "Give an --out that all machines share."
                )
            time.sleep(0.2)
