"""Whatever a user gets wrong ends in one clear line on stderr and exit code 2, and nothing is written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from indelible.cli.main import main
from tiny_studies import taught_facts, write_facts, write_study


class Bench:
    """Runs studies that cannot work, and says what was said about them."""

    def __init__(self, folder: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.settings = settings
        self.out = folder / "run"
        self._capsys = capsys

    def complaint(self, *arguments: str) -> str:
        """What a study of the current settings says; it must be one line, with exit code 2 and a clean stdout."""
        study = write_study(self.folder / "bad.yaml", self.settings)
        return self.typed("study", str(study), "--out", str(self.out), *arguments)

    def forget(self) -> None:
        """What was printed so far does not count."""
        self._capsys.readouterr()

    def typed(self, *arguments: str) -> str:
        assert main(list(arguments)) == 2
        shown = self._capsys.readouterr()
        said = [line for line in shown.err.splitlines() if not line.startswith("loading ")]
        assert shown.out == ""
        assert len(said) == 1, shown.err
        assert said[0].startswith("Error: ")
        return said[0]


@pytest.fixture
def bad(tmp_path: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, settings, capsys)


def test_unknown_model(bad: Bench) -> None:
    bad.settings["model"] = "smolm2-135m"
    said = bad.complaint()
    assert "'smolm2-135m'" in said
    assert "'smollm2-135m'" in said
    assert not bad.out.exists()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("editor", "memitt", "'memit'"),
        ("mask", "edited-layer", "'edited-layers'"),
        ("editr", "memit", "'editor'"),
        ("options", {"layer": [1]}, "'layers'"),
        ("tuning", {"objective": "reasn"}, "'reason'"),
        ("tuning", {"step": 3}, "'steps'"),
        ("tuning", {"steps": "many"}, "'many'"),
    ],
)
def test_unknown_names_and_keys_in_an_arm(bad: Bench, key: str, value: Any, expected: str) -> None:
    bad.settings["arms"][0][key] = value
    said = bad.complaint()
    assert expected in said
    assert "arms." in said
    assert not bad.out.exists()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("tunning", {}, "'tuning'"),
        ("tuning", {"learning_rat": 1e-4}, "'learning_rate'"),
        ("tuning", {"learning_rate": -1}, "-1"),
        ("editors", {"memt": {}}, "'memit'"),
        ("editors", {"memit": {"clamps": 1}}, "'clamp'"),
        ("facts", {"sorce": "world"}, "'source'"),
    ],
)
def test_unknown_names_and_keys_of_a_study(bad: Bench, key: str, value: Any, expected: str) -> None:
    bad.settings[key] = value
    assert expected in bad.complaint()
    assert not bad.out.exists()


@pytest.mark.parametrize("key", ["paraphrases", "mask", "options"])
def test_a_control_cannot_have_what_needs_an_edit(bad: Bench, key: str) -> None:
    values: dict[str, Any] = {"paraphrases": 3, "mask": "edited-layers", "options": {"clamp": 1.0}}
    bad.settings["arms"][2][key] = values[key]
    assert f"'arms.control.{key}'" in bad.complaint()


def test_facts_file_missing(bad: Bench) -> None:
    bad.settings["facts"]["source"] = "gone.jsonl"
    assert "gone.jsonl" in bad.complaint()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "no"),
        (b'{"subject": "\xe9"}\n', "UTF-8"),
    ],
)
def test_facts_file_unreadable(bad: Bench, content: bytes, expected: str) -> None:
    (bad.folder / "facts.jsonl").write_bytes(content)
    bad.settings["facts"]["source"] = "facts.jsonl"
    said = bad.complaint()
    assert "facts.jsonl" in said
    assert expected in said


@pytest.mark.parametrize("line", ['{"subject": "Arvo", "prompt"', '{"subject": "Arvo"}'])
def test_facts_file_with_a_broken_line(bad: Bench, line: str) -> None:
    path = write_facts(bad.folder / "facts.jsonl")
    lines = path.read_text().splitlines()
    lines[6] = line
    path.write_text("\n".join(lines))
    bad.settings["facts"]["source"] = "facts.jsonl"
    assert "line 7" in bad.complaint()


def test_facts_prompt_without_its_subject(bad: Bench) -> None:
    row = {**taught_facts()[0], "prompt": "The capital is"}
    (bad.folder / "facts.jsonl").write_text(str(row).replace("'", '"'))
    bad.settings["facts"]["source"] = "facts.jsonl"
    said = bad.complaint()
    assert "line 1" in said
    assert "subject" in said or "{}" in said


def test_model_folder_without_weights(bad: Bench, taught: Path) -> None:
    shutil.copytree(taught / "model", bad.folder / "hollow", ignore=shutil.ignore_patterns("*.safetensors"))
    bad.settings["model"] = "hollow"
    assert "no weights" in bad.complaint()
    assert not bad.out.exists()


def test_model_whose_layout_cannot_be_found(bad: Bench, taught: Path) -> None:
    shutil.copytree(
        taught / "model", bad.folder / "flat", ignore=shutil.ignore_patterns("*.safetensors", "config.json")
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=400, n_embd=16, n_layer=0, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
        )
        GPT2LMHeadModel(config).save_pretrained(bad.folder / "flat")
    bad.forget()
    bad.settings["model"] = "flat"
    assert "block" in bad.complaint()


def test_unwritable_folder(bad: Bench) -> None:
    (bad.folder / "file").write_text("x")
    bad.out = bad.folder / "file" / "run"
    said = bad.complaint()
    assert "cannot be written: Not a directory" in said


def test_run_folder_of_another_config(bad: Bench) -> None:
    bad.out.mkdir()
    bad.settings["arms"] = bad.settings["arms"][2:]
    study = write_study(bad.folder / "tiny.yaml", bad.settings)
    assert main(["study", str(study), "--out", str(bad.out)]) == 0
    bad.forget()
    bad.settings["tuning"]["steps"] = 5
    said = bad.complaint()
    assert "'tuning.steps'" in said
    assert "--update" in said


def test_run_folder_with_other_things(bad: Bench) -> None:
    bad.out.mkdir()
    (bad.out / "thesis.tex").write_text("x")
    assert "no study's" in bad.complaint()


def test_study_file_missing_or_misnamed(bad: Bench) -> None:
    assert "no study file gone.yaml" in bad.typed("study", "gone.yaml")
    assert "'quick'" in bad.typed("study", "quik")


def test_study_file_that_is_no_yaml(bad: Bench) -> None:
    (bad.folder / "bad.yaml").write_text("name: a\nmodel: [b\narms: c\n")
    assert "bad.yaml line 3" in bad.typed("study", str(bad.folder / "bad.yaml"))


def test_overrides_that_cannot_be_made(bad: Bench) -> None:
    assert "key=value" in bad.complaint("--set", "tuning.steps")
    assert "'memit'" in bad.complaint("--set", "arms.memt.paraphrases=1")


def test_report_of_no_run(bad: Bench) -> None:
    assert "no run folder" in bad.typed("report", str(bad.folder / "gone"))
    assert "no finished study" in bad.typed("report", str(bad.folder))


def test_facts_command(bad: Bench) -> None:
    assert "gone.jsonl" in bad.typed("facts", "--file", "gone.jsonl")
    assert "'smollm2-135m'" in bad.typed("facts", "--known-by", "smolm2-135m")


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["studdy"], "indelible"),
        (["study"], "indelible study"),
        (["study", "quick", "--frobnicate"], "indelible study"),
        (["models", "x"], "indelible models"),
    ],
)
def test_words_that_are_no_command_are_sent_to_the_help_of_theirs(bad: Bench, arguments: list[str], asked: str) -> None:
    assert f"See `{asked} --help`." in bad.typed(*arguments)


def test_the_program_itself_ends_with_two(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "indelible", "study", str(tmp_path / "gone.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
