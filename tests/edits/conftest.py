"""A tokenizer that tests of edits share."""

from __future__ import annotations

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from tiny_models import build_tokenizer


@pytest.fixture(scope="session")
def opening_tokenizer() -> PreTrainedTokenizerFast:
    """One that begins every text with a token of its own."""
    tokenizer = build_tokenizer()
    template = processors.TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    return tokenizer
