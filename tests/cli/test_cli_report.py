"""``indelible report`` on run folders: one run's report and files, two runs on one page, and every wrong use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import Said

from indelible.cli.main import main
from simulated import ARMS, simulate


def write_run(folder: Path, seed: int) -> Path:
    rows, runs = simulate(ARMS[:2], n_edits=8, n_intrinsic=12, generator=np.random.default_rng(seed))
    folder.mkdir()
    rows.to_parquet(folder / "facts.parquet", index=False)
    runs.to_parquet(folder / "runs.parquet", index=False)
    settings = {
        "name": folder.name,
        "model": "m",
        "arms": [{"name": arm.name, "editor": arm.editor} for arm in ARMS[:2]],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (folder / "provenance.json").write_text(
        json.dumps({"command": f"indelible study {folder.name}.yaml"}), encoding="utf-8"
    )
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "first", 0), write_run(tmp_path / "second", 1)


def test_a_run_gets_its_report_and_files(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs[0]
    assert main(["report", str(folder)]) == 0
    assert str(folder / "report.html") in capsys.readouterr().out
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "indelible study first.yaml" in page  # what was typed
    assert "indelible study study.yaml --out runs/first-again" in page
    assert (folder / "figures" / "phases.pdf").is_file() and (folder / "tables" / "effects.csv").is_file()
    assert json.loads((folder / "summary.json").read_text())[0]["arm"] == "memit"


def test_two_runs_go_on_one_page(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", *map(str, runs)]) == 0
    assert str(runs[1] / "comparison.html") in capsys.readouterr().out
    assert "From first to second, " in (runs[1] / "comparison.html").read_text()
    assert not (runs[0] / "report.html").exists()
    assert main(["report", *map(str, runs), "-o", str(tmp_path / "both.html")]) == 0
    assert (tmp_path / "both.html").read_text() == (runs[1] / "comparison.html").read_text()


def test_wrong_uses_are_one_line(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for typed, said in (
        ([str(runs[0]), str(tmp_path / "gone")], "no run folder"),
        ([str(runs[0]), str(runs[1]), str(runs[0])], "two to compare"),
        ([str(runs[0]), "--out", "x.html"], "for two runs"),
        ([*map(str, runs), "--out", str(tmp_path / "gone" / "x.html")], "cannot be written"),
        ([], "RUN"),
    ):
        assert main(["report", *typed]) == 2
        error = capsys.readouterr().err
        assert said in error and len(error.splitlines()) == 1 and "Traceback" not in error


@pytest.mark.parametrize("name", ["facts.parquet", "shares.parquet", "config.yaml", "provenance.json"])
def test_a_damaged_run_is_one_line(name: str, runs: tuple[Path, Path], said: Said, tmp_path: Path) -> None:
    shutil.copytree(runs[0], tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(b"PAR1 ]")
    assert f"{name} is damaged. Remove it, and run the study again" in said(["report", tmp_path / "run"], 2)
    if name == "facts.parquet":
        assert f"{name} is damaged" in said(["plan", "--gap", "0.1", "--from", tmp_path / "run"], 2)
