"""Whatever a user gets wrong ends in one clear line on stderr and exit code 2, and nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Said

from indelible.cli.main import main
from tiny_studies import taught_facts, write_study


class Bench:
    """Runs studies that cannot work, and says what was said about them."""

    def __init__(self, folder: Path, settings: dict[str, Any], said: Said) -> None:
        self.folder = folder
        self.settings = settings
        self.out = folder / "run"
        self._said = said

    def complaint(self, *arguments: str) -> str:
        """What a study of the current settings says."""
        study = write_study(self.folder / "bad.yaml", self.settings)
        return self.typed("study", study, "--out", self.out, *arguments)

    def typed(self, *arguments: Any) -> str:
        return self._said(arguments, 2)


@pytest.fixture
def bad(tmp_path: Path, settings: dict[str, Any], said: Said) -> Bench:
    return Bench(tmp_path, settings, said)


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("model", "smolm2-135m", "'smollm2-135m'"),
        ("tuning", {"learning_rate": -1}, "-1"),
        ("editors", {"memt": {}}, "'memit'"),
        ("model", "a\0b", "'model' has a NUL character in it"),
        ("corpus", "a\0b", "'corpus' has a NUL character in it"),
        ("tuning", {"beta": 0.2}, "'tuning.beta' is an option of the objective 'preference', not of 'reason'"),
        ("arms.0.tuning", {"data": {"source": "."}}, "Name a file in it, or give a folder of nothing but data"),
        ("arms.0.editor", "memitt", "'memit'"),
        ("arms.0.tuning", {"objective": "reasn"}, "'reason'"),
        ("arms.0.tuning", {"steps": "many"}, "'many'"),
        # a control cannot have what needs an edit
        ("arms.2.paraphrases", 3, "'arms.control.paraphrases'"),
        ("arms.2.mask", "edited-layers", "'arms.control.mask'"),
        ("arms.2.options", {"clamp": 1.0}, "'arms.control.options'"),
    ],
)
def test_settings_that_cannot_be_used(bad: Bench, place: str, value: Any, expected: str) -> None:
    *arm, key = place.split(".")
    settings = bad.settings["arms"][int(arm[1])] if arm else bad.settings
    settings[key] = value
    complaint = bad.complaint()
    assert expected in complaint and ("arms." in complaint) == bool(arm)
    assert not bad.out.exists()


GOOD = json.dumps(taught_facts()[0])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "There is no"),
        (f'{GOOD}\n{{"subject": "Arvo", "prompt"'.encode(), "line 2"),
        (json.dumps({**taught_facts()[0], "prompt": "The capital is"}).encode(), "line 1: the prompt"),
    ],
)
def test_facts_that_cannot_be_read(bad: Bench, content: bytes | None, expected: str) -> None:
    if content is not None:
        (bad.folder / "facts.jsonl").write_bytes(content)
    bad.settings["facts"]["source"] = "facts.jsonl"
    complaint = bad.complaint()
    assert "facts.jsonl" in complaint and expected in complaint


def test_words_that_cannot_be_used(bad: Bench) -> None:
    (bad.folder / "bad.yaml").write_text("name: a\nmodel: [b\narms: c\n")
    for arguments, expected in (
        (["study", "gone.yaml"], "no study file gone.yaml"),
        (["study", "quik"], "'quick'"),
        (["study", bad.folder / "bad.yaml"], "bad.yaml, line 3"),
        (["report", bad.folder / "gone"], "no run folder"),
        (["report", bad.folder], "no finished study"),
        (["facts", "--file", "gone.jsonl"], "gone.jsonl"),
        (["facts", "--known-by", "smolm2-135m"], "'smollm2-135m'"),
        (["studdy"], "See `indelible --help`."),
        (["study"], "See `indelible study --help`."),
        (["study", "quick", "--frobnicate"], "See `indelible study --help`."),
        (["edit", "m", "f.jsonl", "--seed", str(2**64)], "'--seed'"),
        (["study", "quick", "--seed", str(2**64)], "'--seed'"),
        (["models", "x"], "See `indelible models --help`."),
    ):
        assert expected in bad.typed(*arguments), arguments
    assert "key=value" in bad.complaint("--set", "tuning.steps")
    assert "'memit'" in bad.complaint("--set", "arms.memt.paraphrases=1")
    for assigned, expected in (
        ("tuning.steps=2024-02-30", "not '2024-02-30'"),
        ("tuning.steps=[", "not valid YAML"),
        ("corpus=~nobody-of-that-name/text", "no user of that name"),
        (f"model={'x' * 300}", "File name too long"),
        (f"seeds=[{2**63}]", "'0' of the list is a whole number of more than 64 bits"),
        ("arms.²=1", "there is no '²' in that list"),
        ("most_runs=2", "The study has 3 runs of tuning, and there may be 2"),
        ("grid={a: {x: {}, y: {}, z: {}}, b: {x: {}, y: {}, z: {}}}", "'grid' stands for 9 runs"),
    ):
        assert expected in bad.complaint("--set", assigned, "--set", "most_runs=2"), assigned


def test_no_command_shows_the_help_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert "Commands" in shown.out + shown.err and "Error" not in shown.out + shown.err


def test_the_program_itself_ends_with_two(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "indelible", "study", str(tmp_path / "gone.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
