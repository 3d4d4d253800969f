"""What all tests of tuning share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_data import Write, writer


@pytest.fixture(autouse=True, scope="module")
def _libraries_are_not_searched_for_garbage() -> Iterator[None]:
    """Each training begins with a full collection, and going over all that was imported takes longer than training
    a tiny model does."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)
