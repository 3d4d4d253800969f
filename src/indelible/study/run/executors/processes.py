"""Steps done several at a time, in processes of their own on this machine, each with a model of its own.

Independent arms gain most: fine-tuning a small model keeps one core busy, hardly two. A step gives the same bits as in
any process that computes with as many threads.
"""

from __future__ import annotations

from multiprocessing import get_context
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, cast

import psutil

from indelible.errors import IndelibleError
from indelible.progress import Progress
from indelible.study.run.executors.worker import done_or_raise, work
from indelible.study.run.step import Done, Job, World

if TYPE_CHECKING:
    from indelible.study.run.executors.worker import Outcome


class WorkerDiedError(IndelibleError, RuntimeError):
    """The process that did a step is gone."""


class Processes:
    """The executor of a study on several cores; each of the ``workers`` computes with so many ``threads``.

    Processes are started when they are first needed; one that died is replaced.
    """

    def __init__(self, world: World, workers: int, threads: int) -> None:
        self.workers = workers
        self._world, self._threads = world, threads
        self._idle: SimpleQueue[_Worker | None] = SimpleQueue()
        for _ in range(workers):
            self._idle.put(None)
        self._started: list[_Worker] = []

    def do(self, job: Job, progress: Progress) -> Done:
        """See ``Executor``; may be called from as many threads as there are workers.

        Raises:
            WorkerDiedError: if the process ended before the step did (killed, out of memory).
        """
        worker = self._idle.get()
        try:
            if worker is None:
                worker = _Worker(self._world, self._threads)
                self._started.append(worker)
            told = worker.do(job, progress)
        except BaseException:  # nobody knows what it is at
            if worker is not None:
                worker.end()
            self._idle.put(None)
            raise
        self._idle.put(worker)
        return done_or_raise(told)

    def close(self) -> None:
        """End all processes, whatever they are at."""
        for worker in self._started:
            worker.end()


class _Worker:
    """One process."""

    def __init__(self, world: World, threads: int) -> None:
        context = get_context("spawn")
        self._ending = Lock()
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, threads), name="indelible worker")
        self._process.start()
        theirs.close()
        self._connection.send(world)

    def do(self, job: Job, progress: Progress) -> Outcome:
        """Do a step there: what it came to, or what went wrong in it."""
        try:
            self._connection.send(job)
            while (told := self._connection.recv())[0] == "progress":
                progress(*told[1])
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            raise WorkerDiedError(
                f"The process {self._process.pid} that did this step was ended {how}.",
                "Was memory short? Then give fewer --workers; the same command tries the step again.",
            ) from None
        return cast("Outcome", told)

    def end(self) -> None:
        """End it; whoever waits for a step of it may do so at the same time as whoever ends all."""
        with self._ending:
            self._process.kill()
            self._process.join()
            self._connection.close()


def bytes_of_worker(weights: int) -> int:
    """What one process may hold of a model of so many bytes: full fine-tuning takes the weights, their base, gradient
    and two moments, and activations."""
    return 8 * weights + 1_500_000_000


def workers_for(threads: int, steps: int, weights: int) -> int:
    """How many processes suit so many cores, so many steps that can be done at once, and the memory that is free.

    Args:
        threads: that this process would use by itself.
        weights: bytes of the model.
    """
    return max(1, min(threads, steps, int(psutil.virtual_memory().available) // bytes_of_worker(weights)))
