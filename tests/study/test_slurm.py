"""The scripts for SLURM, run on this machine by stand-ins for its programs; and a study done in parts."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from indelible.cli.main import main
from indelible.errors import ConfigError
from indelible.study.design.settings import StudyConfig
from indelible.study.run.executors.slurm import write_scripts
from indelible.study.run.run import Outcome, preview_study
from indelible.study.run.store import Store
from indelible.validation import validated

SLURM = {"nodes": 2, "cpus": 4, "gpus": 1, "memory": "32G", "time": "01:00:00", "each": {"cpus": 2, "gpus": 0.5}}


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_array_is_run_and_put_together(
    undisturbed: Outcome, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the scripts call is written down, and called in this process."""
    config = StudyConfig.model_validate(settings | {"slurm": SLURM | {"sbatch": ["--qos=long"]}})
    scripts = write_scripts(config, tmp_path / "a run", 2)
    assert "#SBATCH --array=1-2" in scripts.array.read_text() and "#SBATCH --qos=long" in scripts.ray.read_text()
    program(tmp_path, "indelible", f"printf '%s\\n' \"$@\" > '{tmp_path}/called'")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for script, task in ((scripts.array, "1"), (scripts.array, "2"), (scripts.gather, "")):
        subprocess.run(["bash", script], check=True, env=os.environ | {"SLURM_ARRAY_TASK_ID": task})
        assert main((tmp_path / "called").read_text().splitlines()) == 0
    events = Store(tmp_path / "a run").events()
    assert {event["event"] for event in events} == {"opened", "planned", "taken", "reused", "closed"}
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "a run" / "facts.parquet"), pd.read_parquet(undisturbed.folder / "facts.parquet")
    )


def test_the_job_gives_ray_its_machines_and_the_study_its_cluster(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """srun's stand-in starts its command here, ray's says what it was given and does what ends well: nothing."""
    config = StudyConfig.model_validate(settings | {"slurm": SLURM})
    scripts = write_scripts(config, tmp_path / "run", 1)
    for script in (scripts.ray, scripts.array, scripts.gather):
        subprocess.run(["bash", "-n", script], check=True)
    program(tmp_path, "scontrol", "printf 'head\\n'; printf 'second\\n%.0s' {1..20000}")  # more than a pipe holds
    program(tmp_path, "srun", '"$@"')
    program(tmp_path, "ray", 'echo "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    job = {"SLURM_JOB_ID": "41", "SLURM_JOB_NODELIST": "head,second"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text("of an earlier job")
    done = subprocess.run(["bash", scripts.ray], capture_output=True, text=True, env=os.environ | job)
    asked, study = done.stdout.strip().split(" -- ")
    assert asked == "symmetric-run --address head:20041 --min-nodes 2 --num-cpus 4 --num-gpus 1"
    assert study.startswith(f"indelible study {scripts.settings} --out {tmp_path / 'run'} --on auto")
    assert study.endswith("--each cpus=2 --each gpus=0.5")
    assert done.returncode == 1  # no results: the cluster that did nothing is no success
    assert "slurm" not in yaml.safe_load(scripts.settings.read_text())


def test_odd_names_are_quoted_and_the_studys_own_file_is_left_alone(settings: dict[str, Any], tmp_path: Path) -> None:
    mine = tmp_path / "50% it's # a run.yaml"
    mine.write_text("# mine")
    config = StudyConfig.model_validate(settings | {"slurm": {"partition": "a b"}})
    scripts = write_scripts(config, mine.with_suffix(""), 1)
    assert mine.read_text() == "# mine"
    for script in (scripts.ray, scripts.array, scripts.gather):
        subprocess.run(["bash", "-n", script], check=True)
        options = [shlex.split(line)[1:] for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
        assert ["--output=50%% it's # a run-%j.log"] in options and ["--partition=a b"] in options


def test_where_steps_are_taken_from_is_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ((), ("--dry-run",)):
        assert main(["study", "quick", "--out", str(tmp_path / "run"), "--take", str(tmp_path / "none"), *more]) == 2
        assert f"{tmp_path / 'none'} is no run folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(["study", "quick", "--on", "slurm", "--dry-run", "--part", "1/2"]) == 2
    assert "Leave --part and --take out" in capsys.readouterr().err


def test_parts_hold_every_arm_once_and_keep_edits_together(settings: dict[str, Any], tmp_path: Path) -> None:
    config = StudyConfig.model_validate(settings | {"seeds": [0, 1]})
    plan = preview_study(config, tmp_path / "run").plan
    for of in (1, 2, 3, 40):
        parts = [plan.part(number, of) for number in range(1, of + 1)]
        runs = [(run.seed, run.arm.name) for part in parts for run in part.runs]
        assert sorted(runs) == sorted((run.seed, run.arm.name) for run in plan.runs)
        assert {step.key for part in parts for step in part.steps} == {step.key for step in plan.steps}
    with pytest.raises(ConfigError, match="There is no part 3 of 2"):
        plan.part(3, 2)
    halves = [{run.seed for run in plan.part(number, 2).runs} for number in (1, 2)]
    assert halves == [{0}, {1}]


def test_the_users_own_file_beside_the_run_folder_stays(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "my run.yaml").write_text("mine")
    scripts = write_scripts(StudyConfig.model_validate(settings), tmp_path / "my run", 1, update=True)
    assert f"-- indelible study '{scripts.settings}' --update --out '{tmp_path / 'my run'}'" in scripts.ray.read_text()
    assert (tmp_path / "my run.yaml").read_text() == "mine" and scripts.settings.is_file()
    assert "#SBATCH --output='my run-%j.log'" in scripts.ray.read_text()


def test_where_a_study_runs_is_none_of_its_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open(StudyConfig.model_validate(settings)):
        pass
    store.check_config(StudyConfig.model_validate(settings | {"slurm": {"nodes": 9}}))
    with pytest.raises(ConfigError, match="one line of a script"):
        validated(StudyConfig, settings | {"slurm": {"setup": ["a\nb"]}}, "")
    with pytest.raises(ConfigError, match=r"slurm\.each\.cpu'. Did you mean 'cpus'"):
        validated(StudyConfig, settings | {"slurm": {"each": {"cpu": 2}}}, "")


@pytest.mark.parametrize("part", ["0/2", "3/2", "2", "1/0", "-1/2"])
def test_a_part_that_is_none(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "quick", "--part", part]) == 2
    assert "Write it as 2/8" in capsys.readouterr().err
