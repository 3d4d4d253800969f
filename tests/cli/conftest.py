"""Commands are tried with a cache of their own."""

from __future__ import annotations

from functools import partial

import command_line
import pytest


@pytest.fixture(scope="module", autouse=True)
def _apart_from_the_user(own_cache: None) -> None:
    """See own_cache."""


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> command_line.Said:
    return partial(command_line.said, capsys)
