"""Commands as they are typed, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from indelible.cli.main import main


def said(capsys: pytest.CaptureFixture[str], arguments: Sequence[Any], code: int = 0) -> str:
    """What a command prints; after a user mistake (``code`` 2) that is one line on stderr."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    shown = capsys.readouterr()
    if code == 2:
        assert shown.out == ""
        lines = shown.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("Error: "), shown.err
        return lines[0]
    return shown.out
