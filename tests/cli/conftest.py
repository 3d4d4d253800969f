"""Commands are tried with a cache of their own."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _apart_from_the_user(own_cache: None) -> None:
    """See own_cache."""
