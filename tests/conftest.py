"""Fixtures that every room's tests share: a tokenizer and tiny random models (see tiny_models.py)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tiny_models import build_model, build_tokenizer


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer without a padding token; don't change it in a test, it is shared."""
    return build_tokenizer()


@pytest.fixture
def tiny_model(tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., PreTrainedModel]:
    """``tiny_model(family, seed=0, layers=4, width=32)``: a fresh random model whose vocabulary fits tiny_tokenizer."""

    def make(family: str, seed: int = 0, layers: int = 4, width: int = 32) -> PreTrainedModel:
        return build_model(family, len(tiny_tokenizer), seed, layers, width)

    return make
