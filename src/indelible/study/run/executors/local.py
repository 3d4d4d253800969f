"""Steps done one after another in this process, on one model."""

from __future__ import annotations

from dataclasses import dataclass

from indelible.progress import Progress
from indelible.study.run.step import Done, Job, Material, do_step


@dataclass(frozen=True)
class Local:
    """The executor of a study on one machine."""

    material: Material
    workers: int = 1

    def do(self, job: Job, progress: Progress) -> Done:
        """See ``Executor``."""
        return do_step(job, self.material, progress)

    def close(self) -> None:
        """See ``Executor``; nothing is held."""
