"""Steps done by Ray: on a cluster that stands, or on one that is started on this machine for as long as the study runs.

The process that runs the study alone schedules, names and records; a worker writes into the folder of its own try and
nowhere else. So all machines have to see the run folder under one path, and to have the same packages. A worker is a
Ray actor that lives from its first step to the study's end: a Ray task would load the model anew for every step.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Condition
from typing import TYPE_CHECKING, Any

from indelible.errors import ConfigError
from indelible.files import remove
from indelible.models.load import parameter_count
from indelible.progress import Progress
from indelible.study.design.settings import Share
from indelible.study.run.base_model import ModelVersion
from indelible.study.run.cost import Speed
from indelible.study.run.executors.processes import WorkerDiedError, bytes_of_worker
from indelible.study.run.executors.ray_worker import RayWorker, await_files
from indelible.study.run.executors.worker import done_or_raise
from indelible.study.run.step import Done, Job, World
from indelible.tuning.settings import TuningSettings

if TYPE_CHECKING:
    from indelible.study.run.executors.worker import Outcome

TRIES = 3
"""How often a step is begun whose worker dies: machines of a cluster are taken away, or run out of memory."""
_POLL_SECONDS = 0.5
_CLOSING_SECONDS = 30.0
_CLOSED = ("The cluster was closed.", "Give the same command again.")
_GIB = 2**30


class Cluster:
    """The executor of a study on Ray.

    Attributes:
        workers: how many steps are done at a time.
        share: what each takes.
        threads: that each computes with, to be set before the first step.
        software: what every result depends on, as the first worker has it; a worker that has other does no step.
        model: likewise, once it is known; on other machines its name may stand for another.
    """

    model: ModelVersion | None = None

    def __init__(
        self,
        world: World,
        address: str | None,
        share: Share,
        workers: int | None,
        note: Callable[[str], None],
        *,
        threads: int,
    ) -> None:
        """Connect, and start a first worker.

        Args:
            address: of a cluster that stands ("ray://head:10001", "auto"). None: the one that Python is connected to
                or RAY_ADDRESS names, or else one that is started on this machine.
            workers: None for as many as there is room for.
            note: told what is waited for.
            threads: that a worker computes with.

        Raises:
            ConfigError: Ray is not installed, there is no such cluster, or no machine of it has room for a worker.
        """
        self._ray = _ray()
        self._world, self.threads, self._closed, self._connected = world, threads, False, False
        self.workers = workers or 1
        self._started, self._idle, self._asking, self._changing = list[Any](), SimpleQueue[Any](), 0, Condition()
        try:
            grows = self._ray.is_initialized() or self._connect(address, note)
            self.share = self._whole(share)
            machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            there = _fitting(machines, self.share) if workers and grows else room(machines, self.share)
            self.workers = workers or there
            if there < self.workers:
                note(f"the cluster has room for {there} of {self.workers} workers as it is now")
            note("waiting for a first worker")
            with self._borrowed() as first:
                self.software: Mapping[str, str] = self._ray.get(first.software.remote())
        except BaseException:
            self.close()
            raise

    def do(self, job: Job, progress: Progress) -> Done:
        """See ``Executor``; may be called from as many threads as there are workers.

        Raises:
            WorkerDiedError: if the worker died in each of ``TRIES`` tries.
        """
        for left in reversed(range(TRIES)):
            folder = job.folder / f"try-{TRIES - left}"
            folder.mkdir()
            try:
                told, sizes, seconds = self._try(replace(job, folder=folder), progress)
                break
            except WorkerDiedError:
                if self._closed or not left:
                    raise
        done = done_or_raise(told)
        await_files({folder / name: size for name, size in sizes.items()})
        for path in folder.iterdir():
            path.rename(job.folder / path.name)
        for path in job.folder.glob("try-*"):  # where a worker that was only out of reach can write no more
            remove(path)
        return replace(done, record={**done.record, "seconds": seconds})

    def speed(self, tunings: Sequence[TuningSettings]) -> Speed:
        """How fast the model is on one worker's machine, with a worker's share of it.

        Raises:
            WorkerDiedError: if that worker died.
        """
        with self._borrowed() as worker:
            measured: Speed = self._ray.get(worker.speed.remote(tuple(tunings), self.threads))
            return measured

    def close(self) -> None:
        """End the workers, whatever they are at, and the cluster if it was started here."""
        with self._changing:
            try:
                if not self._closed:
                    self._closed = True
                    for _ in range(self._asking):
                        self._idle.put(None)
                    for worker in self._started:
                        self._kill(worker)
                # a call to Ray after its end would start another cluster, and so nobody calls it any more
                self._changing.wait_for(lambda: not self._asking, _CLOSING_SECONDS)
            finally:
                if self._connected:
                    self._connected = False
                    self._ray.shutdown()

    def _try(self, job: Job, progress: Progress) -> tuple[Outcome, dict[str, int], float]:
        """One try of a step, by a worker that is free: what became of it, how long the files are that it wrote, and
        the seconds that it took once there was a worker."""
        with self._borrowed() as worker:
            began = time.monotonic()
            planned = job.step.work.options
            coming = worker.do.remote(_absolute(job), dict(self.software), planned, self.model, self.threads)
            while not self._ray.wait([coming], timeout=_POLL_SECONDS)[0]:
                progress(*self._ray.get(worker.told.remote()))
            told, sizes = self._ray.get(coming)
            return told, sizes, time.monotonic() - began

    @contextmanager
    def _borrowed(self) -> Iterator[Any]:
        """A worker for the block. One that fails in it is given up: nobody knows what it is at, since what goes wrong
        in a step is a result.

        Raises:
            WorkerDiedError: if it died, none could begin, or the cluster was closed.
        """
        with self._changing:
            if self._closed:
                raise WorkerDiedError(*_CLOSED)
            self._asking += 1
        worker = None
        try:
            worker = self._free()
            yield worker
        except BaseException as error:
            if worker is not None:
                self._give_up(worker)
            if not isinstance(error, self._ray.exceptions.RayError):
                raise
            raise _died(error) from None
        else:
            self._idle.put(worker)
        finally:
            with self._changing:
                self._asking -= 1
                self._changing.notify_all()

    def _free(self) -> Any:
        """A worker that lives and has nothing to do. Another is started where there may be more, and may find room
        much later than one of the others gets free."""
        dead: Exception | None = None
        for _ in range(self.workers + TRIES):
            try:
                worker = self._idle.get_nowait()
            except Empty:
                self._start()
                worker = self._idle.get()
            if worker is None:
                raise WorkerDiedError(*_CLOSED)
            try:
                self._ray.get(worker.told.remote())
                return worker
            except self._ray.exceptions.RayError as error:
                self._give_up(worker)
                dead = error
        assert dead is not None
        raise _died(dead)

    def _give_up(self, worker: Any) -> None:
        with self._changing:
            self._started.remove(worker)
            self._kill(worker)

    def _kill(self, worker: Any) -> None:
        with suppress(Exception):  # where the cluster is out of reach there is nobody to be told
            self._ray.kill(worker)

    def _start(self) -> None:
        """Ask for a further worker, unless there are as many as may be; it is idle as soon as there is room for it, or
        it could not begin."""
        share = self.share
        kind = self._ray.remote(RayWorker).options(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            memory=int((share.memory or 0) * _GIB),
            max_concurrency=2,  # it is asked how far it is while it does a step
            max_restarts=0,
        )
        with self._changing:
            if self._closed or len(self._started) == self.workers:
                return
            worker = kind.remote(self._world, str(Path.cwd()))
            self._started.append(worker)
        worker.told.remote().future().add_done_callback(lambda _: self._idle.put(worker))

    def _connect(self, address: str | None, note: Callable[[str], None]) -> bool:
        """Connect, and say whether the cluster may grow: one that is started here does not."""
        note(f"connecting to Ray{f' at {address}' if address else ''}")
        self._connected = True
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use to its makers unless told not to
        address = address or os.environ.get("RAY_ADDRESS") or "local"  # without one, Ray would look for one that runs
        here = address == "local"
        own: dict[str, Any] = {"include_dashboard": False} if here else {}
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._ray.init(address, log_to_driver=False, logging_level="ERROR", **own)
            with suppress(ValueError, TypeError):  # outside the main thread Ray leaves them alone, too
                for number, handler in handlers.items():  # its own print pages
                    signal.signal(number, handler)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"There is no Ray cluster at {address!r}: {_first_line(error)}",
                "Check the address; `--on ray` without one starts a cluster on this machine.",
            ) from None
        return not here

    def _whole(self, share: Share) -> Share:
        """The share with nothing left open."""
        gpus, memory = share.gpus, share.memory
        if gpus is None:
            gpus = 1.0 if self._ray.cluster_resources().get("GPU") else 0.0
        if memory is None:
            parameters = parameter_count(self._world.model, trust_remote_code=self._world.trusted) or 0
            memory = bytes_of_worker(4 * parameters) / _GIB
        return Share(cpus=share.cpus, gpus=gpus, memory=memory)


def _died(error: Exception) -> WorkerDiedError:
    return WorkerDiedError(
        f"A worker of the cluster died: {_first_line(error)}",
        "Was memory short? Then give --each memory=GIB; the same command tries again what was not done.",
    )


def room(machines: Iterable[Mapping[str, float]], share: Share) -> int:
    """How many workers of that share (with nothing left open) find room on machines of such resources, each on one.

    Raises:
        ConfigError: none does.
    """
    found = _fitting(machines, share)
    if not found:
        raise ConfigError(
            f"No machine of the cluster has room for a worker of {share.cpus} cores, {share.gpus:g} accelerators "
            f"and {share.memory:.1f} GiB.",
            "Ask for less with --each.",
        )
    return found


def _fitting(machines: Iterable[Mapping[str, float]], share: Share) -> int:
    wanted = {"CPU": share.cpus, "GPU": share.gpus or 0, "memory": (share.memory or 0) * _GIB}
    return sum(int(min(has.get(name, 0) / much for name, much in wanted.items() if much)) for has in machines)


def _absolute(job: Job) -> Job:
    inputs = {role: folder.absolute() for role, folder in job.inputs.items()}
    return replace(job, inputs=inputs, folder=job.folder.absolute())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("Ray is not installed.", "Install it: pip install 'indelible[ray]'.") from None
    return ray
