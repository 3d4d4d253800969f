"""A tokenizer that tests of edits share."""

from __future__ import annotations

import pytest
from tiny_edits import one_vocabulary
from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def opening_tokenizer() -> PreTrainedTokenizerFast:
    """One that begins every text with a token of its own."""
    return one_vocabulary(space=False, start=True)
