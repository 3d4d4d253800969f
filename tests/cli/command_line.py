"""Commands as they are typed, and what they say."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from indelible.cli.main import main

Said = Callable[..., str]
"""``said(arguments, code=0)``: what a command prints, as the fixture of that name runs it."""
PROGRESS = re.compile(r"[a-z ]+: .+ \(\d+% of this\)$")
"""A line that says how far a job is, where there is no terminal."""


def said(capsys: pytest.CaptureFixture[str], arguments: Sequence[Any], code: int = 0) -> str:
    """What a command prints; after a user mistake (``code`` 2) that is one line on stderr, after progress if any."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    shown = capsys.readouterr()
    if code == 2:
        assert shown.out == ""
        *progress, error = shown.err.splitlines()
        told = [line for line in progress if not line.startswith(("loading ", "Cost: "))]
        assert error.startswith("Error: ") and all(PROGRESS.match(line) for line in told), shown.err
        return error
    return shown.out
