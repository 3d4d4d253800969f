"""A taught tiny model, a ready study of it, and one undisturbed run of that study, shared by this folder's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indelible.study.config import StudyConfig
from indelible.study.run import Outcome, run_study
from tiny_studies import study_settings, write_corpus, write_facts, write_taught_model


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INDELIBLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model/``, ``facts.jsonl`` and ``corpus.txt``; don't change it in a test, it is shared."""
    folder = tmp_path_factory.mktemp("taught")
    write_taught_model(folder / "model")
    write_facts(folder / "facts.jsonl")
    write_corpus(folder / "corpus.txt")
    return folder


@pytest.fixture
def settings(taught: Path) -> dict[str, Any]:
    """Settings of a tiny study, to be changed at will."""
    return study_settings(taught / "model", taught / "facts.jsonl", taught / "corpus.txt")


@pytest.fixture(scope="session")
def undisturbed(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The tiny study, run in one go; don't change its folder in a test, it is shared."""
    settings = study_settings(taught / "model", taught / "facts.jsonl", taught / "corpus.txt")
    return run_study(StudyConfig.model_validate(settings), tmp_path_factory.mktemp("undisturbed") / "run")
