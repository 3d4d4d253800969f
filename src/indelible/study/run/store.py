"""A run folder: where the results of steps are kept so that no work is lost or done twice.

    config.yaml          the settings that the folder belongs to
    steps/KIND-KEY/      a finished step: its files and step.json; there only when it is whole
    failed/KIND-KEY.json why a step failed; tried again at the next run
    damaged/KIND-KEY/    a step whose files are no longer as it left them, set aside; it is done again
    events.jsonl         every start, finish, reuse and failure, appended as it happens
    lock                 held by the process that runs the study

A step works in an unfinished folder that takes its name when the step is done, so that a killed process leaves either a
whole step or none. step.json has the hashes of all its files, a seal of its own, and a hash of what the step was built
on: where a damaged step comes out otherwise when it is done again, so is all that was built on it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from indelible.documents import from_yaml
from indelible.errors import ConfigError, StoreError
from indelible.files import UNFINISHED, damaged, disk_errors, read_text, remove, sweep, whole_file, whole_folder
from indelible.hashes import HASHES, ReadOnce, digest_of, digests, read_sealed, seal_of, sealed
from indelible.report.results import spoiled
from indelible.study.design.paths import absolute, moved_along, seen_from
from indelible.study.design.settings import StudyConfig, in_yaml
from indelible.study.events import EventKind, Events
from indelible.validation import first_difference

if TYPE_CHECKING:
    from indelible.study.run.step import Job, Step

State = Literal["finished", "failed", "damaged", "running", "stopped"]
# What is in a run folder before it has a config.yaml; threads.json is an older version's.
_OWN_NAMES = {"steps", "failed", "damaged", "lock", "events.jsonl", "model.json", "threads.json"}
_REPORT = "report.html"
RECORD, _HASHES = "step.json", "sha256"
# What is made of finished steps, and speaks of the settings that they were made with.
_RESULTS = (
    *("facts.parquet", "runs.parquet", "shares.parquet", "drift.parquet", "summary.json", "claims.json"),
    *("provenance.json", HASHES, _REPORT, "comparison.html", "figures", "tables"),
)


@dataclass(frozen=True)
class Standing:
    """Where the study of a run folder stands, by its own record.

    Attributes:
        name, model: of its settings.
        done, of: steps done, and all of them; None where that is not recorded.
        state: "finished", where every step was done; "failed", where some could not be; "damaged", where one or the
            other, but what its report is made from is no longer as it was written; "running"; or "stopped".
        last: when something was last recorded, in seconds since the epoch.
        report: where there is one.
        unreadable: how many lines of the record are damaged.
        spoiled: names of the files for which it is "damaged".
    """

    name: str
    model: str
    done: int
    of: int | None
    state: State
    last: float
    report: Path | None
    unreadable: int
    spoiled: tuple[str, ...] = ()


class Store:
    """The results in one run folder. Making one touches nothing; ``open`` creates, checks, locks and sweeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._events = Events(folder / "events.jsonl")
        self._digests = ReadOnce(digest_of)
        self._records = ReadOnce(partial(read_sealed, besides=_HASHES))

    @contextmanager
    def open(self, config: StudyConfig, *, update: bool = False) -> Iterator[None]:
        """Take the folder for one run of that study: check that it can be written and is this study's, lock it.

        What killed runs left half written is removed: whoever holds the lock knows that they are dead. ``update`` lets
        a folder of other settings take these; steps that they share are kept.

        Raises:
            StoreError: unwritable or full, belongs to other settings, or in use by another process.
        """
        self.check_config(config, update=update)
        try:
            with disk_errors(self.folder):
                for part in (self.folder, self.folder / "steps", self.folder / "failed"):
                    part.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self.folder / "lock")
                lock.acquire(timeout=1)  # who lists runs holds it for a moment
        except Timeout:
            raise StoreError(
                f"Another process{self._last_opener()} is running the study in {self.folder}.",
                "Wait for it, or choose another --out.",
            ) from None
        try:
            self.check_config(config, update=update)
            for place in (self.folder, self.folder / "steps"):
                sweep(place, older_than=None)
            if self._difference(config) is not None:
                # should this run not come to its end, nothing made with other settings stands beside the new ones
                self.drop_results()
            path, settings = self.folder / "config.yaml", in_yaml(seen_from(config, self.folder))
            with disk_errors(self.folder):
                if not path.exists() or read_text(path, "study's settings", StoreError) != settings:
                    remove(self.folder / HASHES)  # of a folder that was moved, or of an older version's settings
            self.write_text("config.yaml", settings)
            self.record("opened", None)
            yield
            self.record("closed", None)
        finally:
            lock.release()

    def check_config(self, config: StudyConfig, *, update: bool = False) -> None:
        """Refuse settings other than those that the folder was made with, as soon as it holds a finished step.

        Keys that an older version did not know stand at their defaults there.

        Raises:
            StoreError: names the first key that differs.
        """
        if self.config_dict() is None:
            if self.folder.is_dir() and any(map(self._is_foreign, self.folder.iterdir())):
                raise StoreError(
                    f"{self.folder} holds files that are no study's.", "Choose another --out, or empty the folder."
                )
            return
        different = self._difference(config)
        if different is not None and not update and self._holds_steps():
            raise StoreError(
                f"{self.folder} holds a study with other settings: {different!r} differs.",
                "Choose another --out, or give --update to rerun only what changed.",
            )

    def _difference(self, config: StudyConfig) -> str | None:
        """The first key by which a result could be another than of the settings that the folder has; None if there is
        none. How many runs a study may have is not among them."""
        kept, wanted = moved_along(self.config_dict() or {}, config), config.as_dict()
        return first_difference({**kept, "most_runs": None}, {**wanted, "most_runs": None})

    def drop_results(self) -> None:
        """Remove all that was made of finished steps."""
        for name in _RESULTS:
            remove(self.folder / name)

    def config_dict(self) -> dict[str, Any] | None:
        """The settings that the folder was made with, their files' names absolute, or None when it holds no study."""
        path = self.folder / "config.yaml"
        with disk_errors(path):
            if not path.exists():
                return None
        kept = None
        with suppress(ConfigError):
            kept = from_yaml(read_text(path, "study's settings", StoreError), str(path), ConfigError)
        if not isinstance(kept, dict):
            raise damaged(path)
        with suppress(ValueError):  # of another version
            kept = absolute(StudyConfig.model_validate(kept), lambda key: self.folder).as_dict()
        return kept

    def _is_foreign(self, path: Path) -> bool:
        """Whether a file was there before any study; a run that was killed at once has left only files of its own, and
        where there are steps, what is made of them is no study's but theirs, though the settings were lost."""
        own = path.name in _OWN_NAMES or (path.name in _RESULTS and self._holds_steps())
        return not own and not path.name.startswith(UNFINISHED)

    def _holds_steps(self) -> bool:
        return any((self.folder / "steps").glob(f"[!.]*/{RECORD}"))

    def has(self, step: Step) -> bool:
        """Whether that step is finished, its files are as it has left them, and it was built on what stands there."""
        record = self.record_of(step)
        if record.get("key") != step.key or self.damaged(step):
            return False
        built_on = record.get("built_on", dict.fromkeys(step.inputs))
        return built_on == self._built_on(step) and all(map(self.has, step.inputs.values()))

    def damaged(self, step: Step) -> list[str]:
        """Names of a step's files that are not as it has left them; of an older version's, which kept no hashes, those
        that are not as long. None where the step is not there."""
        folder, record = self.path(step), self.record_of(step)
        if not folder.is_dir():
            return []
        if not record:
            return [RECORD]
        if _HASHES in record:
            return [name for name, kept in record[_HASHES].items() if self._digests.of(folder / name) != kept]
        lengths = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*")}
        return [name for name, size in record.get("files", {}).items() if lengths.get(name) != size]

    def unhashed(self, steps: Sequence[Step]) -> int:
        """How many of these were finished by an older version, which kept no hashes."""
        records = (self.record_of(step) for step in steps)
        return sum(bool(record) and _HASHES not in record for record in records)

    def set_aside(self, step: Step) -> Path:
        """Move what a damaged step has left to where it can be looked at, and is in nobody's way."""
        place, number = self.folder / "damaged" / step.name, 1
        with disk_errors(place):
            place.parent.mkdir(exist_ok=True)
            while place.exists():
                place, number = place.with_name(f"{step.name}-{number + 1}"), number + 1
            self.path(step).rename(place)
        return place

    def _built_on(self, step: Step) -> dict[str, str | None]:
        """What tells the content of a step's inputs from other content, by role; None for one of an older version."""
        kept = {role: self.record_of(made).get(_HASHES) for role, made in step.inputs.items()}
        return {role: None if hashes is None else seal_of(hashes) for role, hashes in kept.items()}

    def path(self, step: Step) -> Path:
        """Folder of a finished step."""
        return self.folder / "steps" / step.name

    def record_of(self, step: Step) -> dict[str, Any]:
        """What step.json says about a finished step; nothing where it is not finished, or damaged."""
        return self._records.of(self.path(step) / RECORD) or {}

    @property
    def threads(self) -> int | None:
        """With how many threads the folder's finished steps computed, or most of them; None where none says so."""
        records = map(self._records.of, (self.folder / "steps").glob(f"[!.]*/{RECORD}"))
        times = Counter(record["threads"] for record in records if record and "threads" in record)
        return max(times, key=lambda threads: (times[threads], threads), default=None)

    @contextmanager
    def keeping(self, step: Step) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Keep what a step writes into its job's folder inside the block, all or nothing.

        The block gets the job, and a dictionary to fill with further entries for step.json.

        Raises:
            StoreError: if the disk is full, or what the step builds on has been damaged meanwhile.
        """
        from indelible.study.run.step import Job

        for made in step.inputs.values():
            if names := self.damaged(made):
                raise StoreError(
                    f"{made.title}: {', '.join(names)} of {self.path(made)} changed while the study ran.",
                    "Run the study again: that step is then done again.",
                )
        started, began = time.time(), time.monotonic()
        extra: dict[str, Any] = {}
        # a result that stands there is damaged, or it would not be made again
        with whole_folder(self.path(step), replace=True) as folder:
            yield Job(step, {role: self.path(made) for role, made in step.inputs.items()}, folder), extra
            record = {
                "kind": step.kind,
                "key": step.key,
                "title": step.title,
                "options": step.work.options,
                "inputs": {role: made.key for role, made in step.inputs.items()},
                "started": started,
                "seconds": time.monotonic() - began,
                _HASHES: digests(folder),
                "built_on": self._built_on(step),
                **extra,
            }
            (folder / RECORD).write_text(json.dumps(sealed(record), indent=2), encoding="utf-8")
        remove(self.folder / "failed" / f"{step.name}.json")
        self.record("finished", step, seconds=record["seconds"])

    def take(self, other: Store, steps: Iterable[Step]) -> int:
        """Copy what another run folder has finished of these steps and this one has not; returns how many. Left is what
        was built on something else than what stands here: on another processor one key can come out otherwise, and arms
        would then be asked different facts."""
        taken = 0
        for step in steps:  # each after its inputs
            wanted = all(map(self.has, step.inputs.values())) and not self.has(step)
            if not wanted or not other.has(step) or other._built_on(step) != self._built_on(step):
                continue
            with whole_folder(self.path(step), replace=True) as folder:
                shutil.copytree(other.path(step), folder, dirs_exist_ok=True)
            self.record("taken", step, source=os.path.relpath(other.folder, self.folder))
            taken += 1
        return taken

    def keep_failure(self, step: Step, what: str, trace: str) -> None:
        """Note why a step failed."""
        content = {"kind": step.kind, "key": step.key, "title": step.title, "error": what, "traceback": trace}
        self.write_text(f"failed/{step.name}.json", json.dumps(content, indent=2))
        self.record("failed", step, error=what)

    def record(self, event: EventKind, step: Step | None, **more: Any) -> None:
        """Append one line to events.jsonl."""
        about = {} if step is None else {"step": step.name, "key": step.key, "title": step.title}
        self._events.add(event, about | more)

    def events(self) -> list[dict[str, Any]]:
        """All events of events.jsonl, oldest first; damaged lines are passed over."""
        return self._events.read()[0]

    def standing(self) -> Standing | None:
        """Where the study stands; None if the folder holds none. Raises as ``config_dict``."""
        config, (events, unreadable) = self.config_dict(), self._events.read()
        if config is None:
            return None
        begun = [place for place, event in enumerate(events) if event["event"] == "opened"]
        told = events[begun[-1] :] if begun else []
        done = {event.get("key") for event in told if event["event"] in ("finished", "reused")}
        kinds = {event["event"] for event in told}
        of = next((event["steps"] for event in told if event["event"] == "planned" and "steps" in event), None)
        state: State = "running" if self._is_locked() else "stopped"
        if "closed" in kinds:
            state = "failed" if kinds & {"failed", "skipped"} else "finished"
        harmed = tuple(spoiled(self.folder)) if "closed" in kinds else ()
        last = events[-1]["time"] if events else (self.folder / "config.yaml").stat().st_mtime
        name, model = (str(config.get(key)) for key in ("name", "model"))
        page = report if (report := self.folder / _REPORT).is_file() else None
        return Standing(name, model, len(done), of, "damaged" if harmed else state, last, page, unreadable, harmed)

    def _is_locked(self) -> bool:
        """Whether a process is running the study."""
        if not (self.folder / "lock").exists():
            return False
        try:
            with FileLock(self.folder / "lock").acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a folder that cannot be written is run by nobody here
            return False

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run folder whole or not at all."""
        with whole_file(self.folder / name) as path:
            path.write_text(text, encoding="utf-8")

    def _last_opener(self) -> str:
        opened = [event for event in self.events() if event["event"] == "opened"]
        return f" (number {opened[-1]['pid']})" if opened else ""
