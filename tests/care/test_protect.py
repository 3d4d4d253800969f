"""The protection of an edit in use: what it asks of the model."""

from __future__ import annotations

from pathlib import Path

import pytest

import indelible
from indelible.errors import EditError


def test_what_the_model_does_not_hold_is_not_protected(taught: Path, own_cache: None) -> None:
    loaded = indelible.load(str(taught / "model"))
    edit = indelible.edit(loaded, indelible.read_facts(taught / "facts.jsonl").facts[:2], "ft-m", steps=1)
    with pytest.raises(EditError, match=r"does not hold the edit.*edit\.apply"):
        indelible.protect(loaded, edit)
    edit.apply(loaded.model)
    assert [one.name for one in indelible.protect(loaded, edit).protections] == ["key-anchor"]
