"""Two processes that tune one model together (gloo, FSDP 2 on a CPU) do what one does, and leave the model whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import launched
import numpy as np
import pandas as pd
import pytest
import torch

from indelible.cli.main import main
from indelible.errors import ConfigError
from indelible.study.design.settings import StudyConfig
from indelible.study.run.run import Outcome, run_study
from indelible.tuning.objective import tuning_settings
from indelible.tuning.train import check_settings
from tiny_studies import study_settings
from watchers import ends

WITHIN = 1e-4
ARMS = ("memit-frozen", "control")  # one model, dealt out twice


@pytest.fixture(scope="module")
def folder(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left; see launched.py."""
    settings, folder = study_settings(taught), tmp_path_factory.mktemp("launched")
    settings["arms"] = [arm for arm in settings["arms"] if arm["name"] in ARMS]
    launch = ("-m", "accelerate.commands.launch", "--num_processes=2", "--num_machines=1", "--main_process_port=0")
    how = ("--use_fsdp", "--fsdp_version=2", "--mixed_precision=no", "--dynamo_backend=no")
    script = (launched.__file__, str(folder), json.dumps(settings))
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join([str(tests), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, *launch, *how, *script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_tune_an_edited_model_as_one_does(folder: Path) -> None:
    alone = launched.tuned()
    assert alone["kind"] == "Parameter"
    for rank in (0, 1):
        found = torch.load(folder / f"{rank}.pt", weights_only=False)
        assert found["kind"] == "DTensor", "weights were not dealt out"
        assert found["class"] == alone["class"]
        assert found["weights"].keys() == alone["weights"].keys()
        for name, weight in found["weights"].items():
            torch.testing.assert_close(weight, alone["weights"][name], rtol=0, atol=WITHIN, msg=name)
        assert found["frozen"] == alone["frozen"] and len(found["frozen"]) > 5
        assert found["moved"] == alone["moved"] == alone["weights"].keys() - alone["frozen"]
        assert found["tied"]
        assert found["delta"] == "exact"
        assert found["figures"] == pytest.approx(alone["figures"], rel=WITHIN)
        assert np.array(found["log"]) == pytest.approx(np.array(alone["log"]), rel=WITHIN)
        assert 0 < found["tokens"] - alone["tokens"] <= 2, "one more for each batch that cannot be divided"


def test_they_run_a_study_that_one_of_them_writes(folder: Path, undisturbed: Outcome) -> None:
    rows, expected = (pd.read_parquet(run / "facts.parquet") for run in (folder / "run", undisturbed.folder))
    expected = expected[expected["arm"].isin(ARMS)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, expected, rtol=WITHIN, atol=WITHIN)
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=False)["outcome"] for rank in (0, 1))
    assert first == second
    assert [arm["arm"] for arm in first[0]] == list(ARMS) and not first[1]
    done = ends(folder / "run")
    assert done["started"] == done["finished"] == len(list((folder / "run" / "steps").iterdir()))


@pytest.fixture
def _two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this were the first of two processes that were launched."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_two")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 3}, "A batch of 3 rows cannot be divided among 2 processes"),
        ({"objective": "preference"}, "The objective 'preference' is trained by one process"),
        ({"objective": "classify", "head": True}, "The objective 'classify' is trained by one process"),
    ],
)
def test_what_they_cannot_do_together_is_said_before(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_settings(tuning_settings(options))


@pytest.mark.usefixtures("_two")
def test_they_are_for_tuning_alone(settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    for how in ({"workers": 2}, {"on": "ray"}):
        with pytest.raises(ConfigError, match="2 processes were launched to tune one model"):
            run_study(StudyConfig.model_validate(settings), **how)
    assert main(["models"]) == 2
    assert "is done by one process, and 2 were launched" in capsys.readouterr().err
