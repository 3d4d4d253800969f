"""The commands, typed as a user would type them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperCommand

from indelible.cli.main import main
from indelible.cli.program import app
from indelible.progress import Piece
from indelible.watching import LogWatcher
from tiny_studies import taught_facts, write_study

COMMANDS = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


HEAVY = ("torch", "transformers", "pandas", "matplotlib", "scipy", "peft", "trl", "datasets")


@pytest.mark.parametrize(
    ("program", "also"),
    [
        ("import indelible; dir(indelible)", ("numpy", "pydantic", "typer", "rich", "yaml")),
        ("from indelible.cli.main import main; assert main(['--help']) == 0", ("pydantic",)),
        *(
            (f"from indelible.cli.main import main; assert main(['{command}', '--help']) == 0", ())
            for command in ("edit", "study", "report", "locate")
        ),
        (
            "from indelible.tuning.objective import OBJECTIVES, tuning_settings\n"
            "for name in OBJECTIVES: tuning_settings({'objective': name, 'tuner': 'lora'})",
            (),
        ),
        (
            "from indelible.tuning.task import TASKS\n"
            "assert TASKS.get('classify').labels == ('negative', 'positive') and 'reward' in TASKS.names()",
            ("pyarrow", "reasoning_gym"),
        ),
    ],
)
def test_little_is_imported_before_it_is_needed(program: str, also: tuple[str, ...]) -> None:
    tail = f"import sys; sys.stderr.write(' '.join({{*{HEAVY + also!r}}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{program}\n{tail}"], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"Examples?:.*indelible {command}\b", shown, re.DOTALL)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("indelible 0.")


@pytest.mark.parametrize(("model", "own"), [("gpt2-xl", "layer: 17"), ("meta-llama/Llama-3.1-8B", "layer: 1")])
def test_a_dry_run_writes_published_settings_out_without_the_model(
    model: str, own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "paper", "--dry-run", "--model", model, "--out", str(tmp_path / "run")]) == 0
    (rome,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("editors.rome: "))
    for said in ("published: true", "covariance_texts: 100000", "kl_after: subject", "contexts: rome", own):
        assert said in rome


def test_a_study_from_the_command_line(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings["arms"] = settings["arms"][1:]
    settings["by_model"] = {"gpt2-xl": {"tuning": {"steps": 1}}}
    unlisted = f"by_model has no entry for {settings['model']!r}: the study's base settings hold."
    study, folder = write_study(tmp_path / "tiny.yaml", settings), tmp_path / "run"
    command = ["study", str(study), "--out", str(folder)]

    assert main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "run    tune: control, seed 0" in shown
    assert "7 steps: 0 done in" in shown
    *_, told, cost, _ = shown.splitlines()
    assert told == unlisted and cost.startswith("Cost: ")
    assert re.search(r"frozen in memit-frozen: \d+ of \d+ tensors, .* numbers: ", shown)
    assert not folder.exists()

    assert main(command) == 0
    shown = capsys.readouterr()
    assert "memit-frozen" in shown.out
    assert "control" in shown.out
    assert str(folder / "report.html") in shown.out.replace("\n", "")
    assert "[1/7] choose facts, seed 0" in shown.err
    assert shown.err.splitlines()[0] == unlisted
    assert len(shown.err.splitlines()) < 30

    assert main([*command, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((folder / "summary.json").read_text())
    assert "7 steps, 7 done already" in shown.err

    assert main([*command, "--dry-run", "--json", "--set", "tuning.steps=7", "--update"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [step["step"] for step in steps if not step["done"]] == [
        "tune: memit-frozen, seed 0",
        "tune: control, seed 0",
    ]

    capsys.readouterr()
    assert main(["runs", str(tmp_path), "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["name"], line["done"], line["steps"], line["state"]) == ("tiny", 7, 7, "finished")
    assert line["report"] == str(folder / "report.html")
    assert main(["runs", str(folder)]) == 0
    assert re.search(r"tiny +\S+ +7 of 7 +finished +\d{4}-\d\d-\d\d \d\d:\d\d", capsys.readouterr().out)

    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_bytes() == page

    (folder / "runs.parquet").write_bytes(b"cut")
    assert main(["runs", str(folder)]) == 0
    shown = capsys.readouterr()
    assert re.search(r"tiny +\S+ +7 of 7 +damaged", shown.out) and "wrote it: runs.parquet. Run the study" in shown.err

    part = [*command[:3], str(tmp_path / "part"), "--part", "1/3"]  # of two arms
    for typed in ([*part, "--dry-run"], part):
        assert main(typed) == 0 and "nothing to do in this part" in "".join(capsys.readouterr())
    assert not [*(tmp_path / "part").glob("*.parquet")]


def test_a_study_with_a_failed_step_ends_with_one(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings["arms"] = [
        {"name": "wild", "editor": "none", "tuning": {"learning_rate": 1e30}},
        {"name": "control", "editor": "none"},
    ]
    study = write_study(tmp_path / "tiny.yaml", settings)
    assert main(["study", str(study), "--out", str(tmp_path / "run")]) == 1
    shown = capsys.readouterr()
    assert "Failed: tune: wild, seed 0" in shown.err
    assert "Lower learning_rate" in shown.err
    assert "Traceback" not in shown.err
    assert "control" in shown.out


def test_control_c_says_how_to_go_on(settings: dict[str, Any], tmp_path: Path) -> None:
    study, folder = write_study(tmp_path / "tiny.yaml", settings), tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "indelible", "study", str(study), "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("steps/select-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "same command again" in said
    assert "Traceback" not in said


def test_sigterm_ends_a_study_as_control_c_does(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Schedulers send it; afterwards the process has the handler that it had."""
    study, folder, before = write_study(tmp_path / "tiny.yaml", settings), tmp_path / "run", LogWatcher.started

    def started(watcher: LogWatcher, piece: Piece) -> None:
        before(watcher, piece)
        if piece.kind == "probe":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(LogWatcher, "started", started)
    assert main(["study", str(study), "--out", str(folder), "--workers", "1"]) == 128 + signal.SIGTERM
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"Terminated. Finished steps are kept in {folder}; give the same command again to go on."
    assert [path.name.partition("-")[0] for path in (folder / "steps").iterdir()] == ["select"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("module", ["typer", "indelible.cli.commands.runs", "yaml"])
def test_control_c_while_things_are_imported_is_one_line(module: str, tmp_path: Path) -> None:
    """They take most of a second, and some are imported by a command."""
    program = (
        "import os, signal, sys\n"
        "class Presses:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Presses())\n"
        "from indelible.cli.main import main\n"
        f"sys.exit(main(['runs', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (130, "Interrupted.\n", "")


def test_control_c_while_words_are_parsed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a command begins typer would end in silence."""

    def press(*_arguments: Any, **_named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TyperCommand, "make_context", press)
    assert main(["runs"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_models_names_what_is_bundled(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert "smollm2-135m: not fetched yet" in shown
    assert os.environ["INDELIBLE_CACHE"] in shown


def test_facts_counts_the_built_in_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["facts", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert len(lines) >= 8
    assert sum(line["facts"] for line in lines) >= 1500
    assert all(line["wordings"] >= 6 for line in lines)


def test_facts_asks_a_model_about_a_file(taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["facts", "--file", str(taught / "facts.jsonl"), "--known-by", str(taught / "model")]) == 0
    shown = capsys.readouterr().out
    assert "24 facts in 2 relations" in shown
    assert "knows 24" in shown
    assert re.search(r"The capital of Arvo is +Peru +yes", shown)


def test_facts_says_which_are_known(taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**taught_facts()[0], "id": "true"}, {**taught_facts()[0], "id": "wrong", "true_object": "Nor"}]
    new = {"id": "new", "subject": "Belm", "prompt": "The capital of {} is", "new_object": "Nor"}
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*rows, new)))
    asked = ["--file", str(tmp_path / "mine.jsonl"), "--known-by", str(taught / "model"), "--json"]
    assert main(["facts", *asked]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert {one["id"]: one["known"] for one in facts} == {"true": True, "wrong": False, "new": None}


def complete(words: str, place: int) -> list[str]:
    """What a shell is offered for the word at that place."""
    environment = {**os.environ, "_INDELIBLE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    command = [sys.executable, "-c", "from indelible.cli.main import main; main()"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def test_a_shell_completes_commands_and_names() -> None:
    assert complete("indelible rep", 1) == ["report", "repair"]
    assert complete("indelible study pa", 2) == ["paper", "paraphrases"]
    assert complete("indelible edit any --editor memi", 4) == ["memit"]
