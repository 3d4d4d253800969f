"""Fixtures that several rooms' tests share: tiny random models, and a taught tiny model with a study of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from tiny_models import Make, Tokenizer, build_model, build_tokenizer
from tiny_studies import study_settings, write_corpus, write_facts, write_taught_model


@pytest.fixture(autouse=True, scope="module")
def _libraries_are_not_searched_for_garbage() -> None:
    """Each training begins with a full collection, and each step of a study ends with one: to go over all that was
    imported takes longer than what a tiny model is for."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer without a padding token; don't change it in a test, it is shared."""
    return build_tokenizer()


@pytest.fixture
def tiny_model(tiny_tokenizer: Tokenizer) -> Make:
    """``tiny_model(family, seed=0, layers=4, width=32)``: a fresh random model whose vocabulary fits tiny_tokenizer."""

    def make(family: str, seed: int = 0, layers: int = 4, width: int = 32) -> PreTrainedModel:
        return build_model(family, len(tiny_tokenizer), seed, layers, width)

    return make


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep a module's tests out of the user's cache, and the user's cache for the tests on the real model."""
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
    return study_settings(taught)
