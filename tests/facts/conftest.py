"""The built-in facts, made once for all tests of this room."""

from __future__ import annotations

import pytest

from indelible.facts.fact import Fact
from indelible.facts.world import world_facts


@pytest.fixture(scope="session")
def world() -> list[Fact]:
    """All built-in facts; don't change the list in a test, it is shared."""
    return world_facts()
