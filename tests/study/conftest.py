"""Studies are run with a cache of their own; one undisturbed run is shared by this folder's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from indelible.study.design.settings import StudyConfig
from indelible.study.run.run import Outcome, run_study
from tiny_studies import study_settings


@pytest.fixture(scope="module", autouse=True)
def _apart_from_the_user(own_cache: None) -> None:
    """See own_cache."""


@pytest.fixture
def two_arms(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the tiny study without its first arm: an edit is tuned, and beside it the control."""
    return settings | {"arms": settings["arms"][1:]}


@pytest.fixture
def undisturbed_rows(undisturbed: Outcome, two_arms: dict[str, Any]) -> pd.DataFrame:
    """The answers in facts.parquet of a study of these two arms that nothing disturbed."""
    rows = pd.read_parquet(undisturbed.folder / "facts.parquet")
    return rows[rows["arm"].isin([arm["name"] for arm in two_arms["arms"]])].reset_index(drop=True)


@pytest.fixture(scope="session")
def undisturbed(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The tiny study, run in one go; don't change its folder in a test, it is shared."""
    settings = study_settings(taught)
    with pytest.MonkeyPatch.context() as patch:  # made before the module's own cache is
        patch.setenv("INDELIBLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return run_study(StudyConfig.model_validate(settings), tmp_path_factory.mktemp("undisturbed") / "run")
