"""The kinds of disturbances: each is done to a copy of a finished run, or while a step of one is done again.

A kind is a function that does one disturbance and says what came of it, or raises ``Wrong``: something was lost, done
twice or silent, a traceback was shown, or a figure came out otherwise.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

import psutil

from fault.ground import Ended, Ground, forked, told
from indelible.edits.deltas.delta import Edit

Disturb = Callable[[Ground], str]


@dataclass(frozen=True)
class Kind:
    """How a disturbance is done, and how many of three hundred are of the kind: more where more can go wrong, fewer
    where one takes long."""

    disturb: Disturb
    share: int


KINDS: dict[str, Kind] = {}


class Wrong(Exception):  # noqa: N818
    """What must not come of a disturbance."""


def kind(share: int) -> Callable[[Disturb], Disturb]:
    """Register a kind under its function's name, with its `Kind.share`."""

    def registered(disturb: Disturb) -> Disturb:
        KINDS[disturb.__name__] = Kind(disturb, share)
        return disturb

    return registered


def right(wrong: str, what: str) -> str:
    """What came of it, where nothing is wrong."""
    if wrong:
        raise Wrong(f"{what}: {wrong}")
    return what


def at_disk_call(folder: Path, number: int, do: Callable[[str], object]) -> Callable[[], object]:
    """What makes a process do something at its so many-th call that writes, makes, renames or removes in a folder."""

    def watch() -> None:
        calls = count()

        def heard(event: str, arguments: tuple[object, ...]) -> None:
            changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
            changes |= event == "open" and bool(int(str(arguments[2] or 0)) & (os.O_WRONLY | os.O_RDWR))
            if changes and str(folder) in str(arguments) and next(calls) == number:
                do(str(arguments[0]))

        sys.addaudithook(heard)

    return watch


def killed(_: str = "") -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full(path: str) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def stopped_or_done(ended: Ended, folder: Path, ground: Ground, *, stopped: bool, how: str) -> str:
    """A command that was disturbed on its way: it stopped as it should, or had come to its end; then it is gone on."""
    if ended.code and not stopped:
        raise Wrong(f"{how}: ended with {ended.code}: {ended.last[:150]}")
    if ended.fault:
        raise Wrong(f"{how}: {ended.fault}")
    wrong = ground.gone_on(folder)
    return right(wrong, "stopped; gone on with, as undisturbed" if ended.code else "had no effect")


@kind(share=60)
def kill(ground: Ground) -> str:
    """SIGKILL at a call to the file system, while a step is done again and all results are written."""
    folder, step = ground.partly()
    number = ground.chance.randrange(80)
    ended = ground.run(folder, disturb=at_disk_call(folder, number, killed))
    how = f"at call {number}, {step}"
    return stopped_or_done(ended, folder, ground, stopped=ended.code == -signal.SIGKILL, how=how)


def _send(seconds: float, sent: int) -> Callable[[], object]:
    """What makes a process send itself a signal after so many seconds of the processor."""

    def start() -> None:
        signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), sent))
        signal.setitimer(signal.ITIMER_PROF, seconds)

    return start


@kind(share=45)
def signals(ground: Ground) -> str:
    """SIGTERM, SIGINT and SIGKILL at random moments of the same."""
    folder, step = ground.partly()
    sent = ground.turn("signals", (signal.SIGTERM, signal.SIGINT, signal.SIGKILL))
    seconds = ground.chance.uniform(0.01, 1.2)
    ended = ground.run(folder, disturb=_send(seconds, sent))
    how = f"{sent.name} after {seconds:.2f} s, {step}"
    return f"{sent.name}: {stopped_or_done(ended, folder, ground, stopped=_by_signal(ended, sent), how=how)}"


def _by_signal(ended: Ended, sent: signal.Signals) -> bool:
    """Whether a command ended as one does to which that signal was sent."""
    says = {signal.SIGTERM: (143, "Terminated."), signal.SIGINT: (130, "Interrupted."), signal.SIGKILL: (-9, "")}
    code, said = says[sent]
    return ended.code == code and ended.last.startswith(said)


@kind(share=6)
def workers(ground: Ground) -> str:
    """Two workers are at four steps when one of them is killed, or the process to which they belong gets a signal."""
    folder = ground.copy()
    for step in (*folder.glob("steps/tune-*"), *folder.glob("steps/probe-*")):
        shutil.rmtree(step)
    ground.unmake(folder)
    how = ground.turn("workers", ("a worker", "SIGKILL", "SIGTERM"))
    seconds = ground.chance.uniform(1, 12)

    def act(workers: list[psutil.Process]) -> None:
        if how == "a worker":
            ground.chance.choice(workers).kill()
        else:
            os.kill(os.getpid(), signal.Signals[how])

    ended = ground.run(folder, disturb=lambda: _at_work(seconds, act), workers=2)
    if how == "a worker":
        stopped = ended.code == 1 and "was ended by signal 9" in ended.said
    else:
        stopped = _by_signal(ended, signal.Signals[how])
    came = stopped_or_done(ended, folder, ground, stopped=stopped, how=f"{how} after {seconds:.1f} s of two workers")
    return f"{how}: {came}"


def _at_work(seconds: float, act: Callable[[list[psutil.Process]], None]) -> None:
    """Act once, when this process's workers have taken so many seconds of the processor between them."""

    def watch() -> None:
        while True:
            time.sleep(0.02)
            with suppress(psutil.Error):
                workers = [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
                if sum(sum(one.cpu_times()[:2]) for one in workers) > seconds:
                    return act(workers)

    threading.Thread(target=watch, daemon=True).start()


@kind(share=25)
def starts(ground: Ground) -> str:
    """SIGINT and SIGTERM while a command is imported and begins: a process of its own, from its first moment on."""
    sent, seconds = ground.turn("starts", (signal.SIGINT, signal.SIGTERM)), ground.chance.uniform(0.001, 0.5)
    program = (
        "import os, signal, sys\n"
        "from indelible.cli.main import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), {int(sent)}))\n"
        f"signal.setitimer(signal.ITIMER_PROF, {seconds})\n"
        f"code = main(['runs', {str(ground.whole)!r}])\n"
        "signal.setitimer(signal.ITIMER_PROF, 0)\n"
        "sys.exit(code)"
    )
    ended = forked(lambda: os.execv(sys.executable, [sys.executable, "-c", program]))
    said = {130: "Interrupted.", 143: "Terminated.", 0: ""}
    wrong = ended.fault
    if not wrong and not (ended.code in said and ended.last.startswith(said[ended.code])):
        wrong = f"ended with {ended.code}: {ended.last[:150]}"
    return right(wrong, f"{sent.name}: one line" if ended.code else "had come to its end")


@kind(share=45)
def disk(ground: Ground) -> str:
    """The disk fills up: no file can grow beyond a length, or a call to the file system says so."""
    folder, step = ground.partly()
    if ground.turn("disk", ("length", "call")) == "length":
        length = int(10 ** ground.chance.uniform(2, 5))
        how = f"files of {length} bytes, {step}"
        ended = ground.run(folder, disturb=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (length, length)))
    else:
        number = ground.chance.randrange(80)
        how = f"at call {number}, {step}"
        ended = ground.run(folder, disturb=at_disk_call(folder, number, full))
    named = re.search(r"[Dd]isk that holds (\S+)", ended.said)
    stopped = ended.code == 2 and named is not None and str(folder) in named[1]
    return stopped_or_done(ended, folder, ground, stopped=stopped, how=how)


@kind(share=42)
def cache(ground: Ground) -> str:
    """The cache cannot be written, is full, or what is in it was flipped, cut, emptied or deleted."""
    folder, own = ground.copy(), ground.home / "own-cache"
    shutil.rmtree(own, ignore_errors=True)
    (edit,) = folder.glob("steps/edit-*")
    shutil.rmtree(edit)
    (folder / "events.jsonl").unlink()
    how = ground.turn("cache", ("unwritable", "full", "fills", "flip", "cut", "empty", "delete"))
    disturb: Callable[[], object] = lambda: None  # noqa: E731
    where = own
    if how == "unwritable":
        own.parent.joinpath("a-file").touch()
        where = own.parent / "a-file" / "cache"
    elif how == "full":
        disturb = at_disk_call(own, ground.chance.randrange(3), full)
    elif how == "fills":  # longer than any other file of this step, shorter than a covariance
        disturb = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (33_000, 33_000))  # noqa: E731
    else:
        shutil.copytree(ground.cache, own)
        harm(ground, next(path for path in own.rglob("*") if path.is_file()), how)
    ended = ground.run(folder, cache=where, disturb=disturb)
    wrong = ended.fault or (f"ended with {ended.code}: {ended.last[:150]}" if ended.code else ground.unlike(folder))
    if how in ("unwritable", "fills") and "not kept for the next time" not in ended.said:
        wrong = wrong or "nothing was said"
    return right(wrong, f"{how}: as undisturbed")


def harm(ground: Ground, path: Path, how: str) -> None:
    """Do harm to one file."""
    content = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[: ground.chance.randrange(1, len(content))])
    else:
        bit = ground.chance.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)


@kind(share=60)
def damage(ground: Ground) -> str:
    """A file of the finished run, of any kind, is cut, emptied, deleted or flipped; then `report` and `study` run."""
    folder = ground.copy()
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    name = ground.turn("damaged", [path.relative_to(folder).as_posix() for path in files])
    path, how = folder / name, ground.turn("damage", ("cut", "empty", "delete", "flip"))
    harm(ground, path, how)
    what = f"{how} {name}"
    report = ground.type("report", folder)
    if report.fault or report.code not in (0, 2) or (report.code == 2 and path.name not in report.last):
        raise Wrong(f"{what}: report ended with {report.code}: {report.fault or report.last[:150]}")
    if report.code == 0 and (wrong := _other_results(ground, folder)):
        raise Wrong(f"{what}: after report: {wrong}")
    if name == "config.yaml":  # of which nobody knows whether the study is another
        ended = ground.run(folder)
        if ended.code == 2 and re.search(r"other settings|damaged|UTF-8", ended.last):
            path.unlink()
        elif ended.code or ended.fault:
            raise Wrong(f"{what}: study ended with {ended.code}: {ended.fault or ended.last[:150]}")
    ended = ground.run(folder)
    if ended.code or ended.fault:
        raise Wrong(f"{what}: study ended with {ended.code}: {ended.fault or ended.last[:150]}")
    if name.startswith("steps/") and f"damaged ({path.name})" not in ended.said:
        raise Wrong(f"{what}: nothing was said")
    return right(ground.unlike(folder), f"{'step' if name.startswith('steps/') else 'result'}: told or made anew")


def _other_results(ground: Ground, folder: Path) -> str:
    """Names of the files that tell something else than the undisturbed run's."""
    return ", ".join(name for name, lines in told(folder).items() if lines != ground.reference[name])


@kind(share=20)
def clock(ground: Ground) -> str:
    """The clock jumps, mostly back, by up to days, whenever it is looked at."""
    folder, step = ground.partly()
    seed = ground.chance.random()

    def jumping() -> None:
        chance, now = Random(seed), [time.time()]

        def jump() -> float:
            now[0] += chance.choice((-1, -1, 1)) * 10 ** chance.uniform(-3, 6)
            return now[0]

        time.time = jump

    ended = ground.run(folder, disturb=jumping)
    wrong = ended.fault or (f"ended with {ended.code}: {ended.last[:150]}" if ended.code else ground.unlike(folder))
    timed = (*folder.glob("steps/*/*.json"), folder / "events.jsonl", folder / "provenance.json")
    negative = re.search(r'seconds": -|\(-\d+ s', "\n".join((*(path.read_text() for path in timed), ended.said)))
    return right(wrong or (f"{step}: {negative[0]}" if negative else ""), "as undisturbed, no time negative")


@kind(share=12)
def delta(ground: Ground) -> str:
    """SIGKILL at a call to the file system while a delta is written over an old one."""
    path, other = ground.home / "delta.safetensors", ground.home / "other.safetensors"
    (edit,) = ground.whole.glob("steps/edit-*/edit.safetensors")
    shutil.copy(edit, path)
    old = Edit.load(edit)
    new = old.with_answers({fact.id: "gone" for fact in old.facts})
    new.save(other)
    number = ground.chance.randrange(6)

    def written() -> None:
        at_disk_call(ground.home, number, killed)()
        new.save(path)

    ended = forked(written)
    if path.read_bytes() not in (edit.read_bytes(), other.read_bytes()):
        raise Wrong(f"at call {number}: neither the old nor the new one")
    found = "the new" if path.read_bytes() == other.read_bytes() else "the old"
    for left in ground.home.glob(".writing-*"):
        os.utime(left, (0, 0))
    if not ended.code and found == "the old":
        raise Wrong("it ended well, and the old one is there")
    new.save(path)
    left = [path.name for path in ground.home.glob(".writing-*")]
    return right(f"left {left}" if left else "", f"{found} one is whole")
