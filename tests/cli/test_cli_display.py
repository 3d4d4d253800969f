"""What is seen of a running study, on a terminal and in a log, and the table at its end."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from indelible import watching
from indelible.cli import display
from indelible.cli.main import main
from indelible.numbers.summary import summary_keys
from indelible.progress import Clock, Piece, Watcher
from indelible.watching import LiveWatcher, LogWatcher

STEPS = [
    Piece("a", "choose facts, seed 0", "select", 2.0),
    Piece("b", "edit: memit [bold], seed 0", "edit", 10.0),
    Piece("c", "tune: memit, seed 0", "tune", 60.0),
]


def watch(watcher: Watcher) -> None:
    """A study of three steps: one done earlier, one that fails, one skipped for it."""
    watcher.note("loading a model")
    watcher.planned(clock := Clock(STEPS, {"a": 2.0}))
    clock.start(STEPS[1])
    watcher.started(STEPS[1])
    for done in range(1, 101):
        watcher.advanced(STEPS[1], done, 100, f"value {done}")
    watcher.ended(STEPS[1], "failed", 12.0, "It broke.")
    watcher.ended(STEPS[2], "skipped", 0.0, "needs: edit")


def test_a_log_gets_a_line_per_start_and_end() -> None:
    console = Console(file=io.StringIO(), width=40)
    watch(LogWatcher(console))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 5
    assert lines[1] == "3 steps, 1 done already"
    assert lines[2] == "[2/3] edit: memit [bold], seed 0 ..."
    assert lines[3].startswith("[2/3] FAILED: edit: memit [bold], seed 0 (12 s): It broke.")
    assert lines[4].startswith("[3/3] skipped: tune: memit")


@pytest.mark.parametrize("watcher", [LogWatcher, LiveWatcher])
def test_neither_titles_nor_notes_steer_a_terminal(watcher: Any) -> None:
    evil = "\x1b]0;evil\x07\x1b[2J\x9b8m"
    console = Console(file=io.StringIO(), width=200, force_terminal=watcher is LiveWatcher, color_system=None)
    piece, shown = Piece("a", f"tune: {evil}", "tune", 1.0), watcher(console)
    shown.planned(clock := Clock([piece], {}))
    clock.start(piece)
    shown.started(piece)
    shown.note(evil)
    if watcher is LiveWatcher:
        console.print(shown.bars)
    shown.ended(piece, "failed", 1.0, evil)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\\u001b[2J" in text and not re.search("\x1b(?!\\[[0-9;?]*[a-lA-IK-Z])|\x07|\x9b|\x1b\\[2J", text)


def test_facts_and_complaints_do_not_steer_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;evil\x07\x1b[2J\x9b"
    fact = {"subject": "France", "prompt": f"The {evil} of {{}} is", "true_object": "Paris", "relation": evil}
    file = tmp_path / "facts.jsonl"
    file.write_text(json.dumps(fact), encoding="utf-8")
    for arguments, code in (([file], 0), ([file, "--json"], 0), ([tmp_path / evil], 2)):
        assert main(["facts", "--file", *map(str, arguments)]) == code
        shown = "".join(capsys.readouterr())
        assert not set(shown) & set("\x1b\x07\x9b") and "u001b]0;evil" in shown


def test_a_log_says_how_far_a_long_step_is(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=40)
    monkeypatch.setattr(watching, "LOG_EVERY", 0.0)
    watch(LogWatcher(console))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 5 + 100
    assert lines[42] == "[2/3] value 40 (40% of this)"


def test_a_single_job_without_a_terminal_says_what_it_does_and_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for every in (0.0, 3600.0):
        monkeypatch.setattr(watching, "LOG_EVERY", every)
        with watching.counting("editing") as move:
            move(1, 4, "values, loss 2.00")
            move(2, 4, "values, loss 1.00")
    first, second = "editing: values, loss 2.00 (25% of this)", "editing: values, loss 1.00 (50% of this)"
    said = capsys.readouterr()
    assert said.err.splitlines() == [first, second, first]
    assert said.out == ""


def test_a_terminal_shows_the_step_its_share_and_how_it_ended() -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    watcher = LiveWatcher(console)
    with watcher.bars:
        watch(watcher)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "step 2/3" in shown
    assert "FAILED  edit: memit [bold], seed 0 (12 s): It broke." in shown


def test_what_is_left_is_said_with_every_end() -> None:
    console = Console(file=io.StringIO(), width=160)
    watcher = LogWatcher(console)
    watcher.planned(clock := Clock(STEPS, {"a": 2.0}))
    clock.end(STEPS[1], 10.0)
    watcher.ended(STEPS[1], "finished", 10.0, "done")
    assert "about 39 s to 1 min 30 s left" in console.file.getvalue()  # type: ignore[attr-defined]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_from_python_bars_are_shown_to_who_looks_on_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for stderr, seen in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stderr", stderr)
        with watching.shown("asking") as progress:
            assert (progress is not None) is seen
            if progress is not None:
                progress(1, 2, "prompts")
        with watching.shown_study() as watcher:
            assert isinstance(watcher, LiveWatcher) is seen
        assert ("asking" in stderr.getvalue()) is seen


def test_a_terminal_is_told_at_once_that_a_command_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert main(["study", "quick", "--set", "tuning.stepz=3"]) == 2
    said = terminal.getvalue()
    assert said.startswith("indelible study: starting ...\n") and "Error: Unknown key 'tuning.stepz'" in said


@pytest.mark.parametrize(("width", "first"), [(240, "arm"), (80, "editor")])
def test_the_table_turns_on_its_side_where_the_terminal_is_narrow(
    monkeypatch: pytest.MonkeyPatch, width: int, first: str
) -> None:
    line: dict[str, Any] = dict.fromkeys(summary_keys())
    line |= {"editor": "memit", "paraphrases": 0, "downstream_before": 11.2, "downstream_after": 5.7, "seconds": 200.0}
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(display, "_stdout", lambda: console)
    display.show_headline([{**line, "arm": f"memit-{number}"} for number in range(4)])
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0 if first == "arm" else 1].startswith(first)
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)
    assert all(f"memit-{number}" in "".join(lines) for number in range(4))
