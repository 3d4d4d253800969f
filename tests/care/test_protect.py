"""The protection of an edit in use: what it asks of the model."""

from __future__ import annotations

from pathlib import Path

import pytest

import indelible
from indelible.errors import ConfigError, EditError, UnknownNameError


def test_what_the_model_does_not_hold_is_not_protected(taught: Path, own_cache: None) -> None:
    loaded = indelible.load(str(taught / "model"))
    edit = indelible.edit(loaded, indelible.read_facts(taught / "facts.jsonl").facts[:2], "ft-m", steps=1)
    with pytest.raises(EditError, match=r"does not hold the edit.*edit\.apply"):
        indelible.protect(loaded, edit)
    edit.apply(loaded.model)
    assert [one.name for one in indelible.protect(loaded, edit).protections] == ["replay"]


def test_what_edits_again_is_told_how_the_edit_was_made(taught: Path, own_cache: None) -> None:
    loaded = indelible.load(str(taught / "model"))
    facts = indelible.read_facts(taught / "facts.jsonl").facts[:2]
    edit = indelible.edit(loaded, facts, "ft-m", steps=1, paraphrases=1)
    edit.apply(loaded.model)
    how = indelible.protect(loaded, edit, "anchor+repair", paraphrases=1).guarded.mending
    assert how is not None and (how.editor.name, how.paraphrases, how.facts) == ("ft-m", 1, tuple(facts))
    assert indelible.protect(loaded, edit, "anchor").guarded.mending is None
    context = indelible.edit(indelible.load(str(taught / "model")), facts, "ike", bystanders=0)
    with pytest.raises(EditError, match="A context changes no weights"):
        indelible.protect(loaded, context, "repair")


def test_a_mask_freezes_before_a_trainer_is_made(taught: Path, own_cache: None) -> None:
    loaded = indelible.load(str(taught / "model"))
    edit = indelible.edit(loaded, indelible.read_facts(taught / "facts.jsonl").facts[:2], "ft-m", steps=1)
    edit.apply(loaded.model)
    made = indelible.protect(loaded, edit, "none", mask="up-to-edited")
    trained = {name for name, one in loaded.model.named_parameters() if one.requires_grad}
    (layer,) = made.guarded.layers
    blocks = made.guarded.layout.blocks
    assert not made.protections and trained
    assert not any(name.startswith(tuple(f"{block}." for block in blocks[: layer + 1])) for name in trained)
    assert any(name.startswith(f"{blocks[-1]}.") for name in trained)
    with pytest.raises(UnknownNameError, match="Unknown mask 'up-to-edit'"):
        indelible.protect(loaded, edit, mask="up-to-edit")
    trained_still = {name for name, one in loaded.model.named_parameters() if one.requires_grad}
    for protection, said in (
        ("repair", "it would change .*, which that freezes"),
        ("key-anchor", "cannot work under the mask"),
    ):
        with pytest.raises(ConfigError, match=said):
            indelible.protect(loaded, edit, protection, mask="up-to-edited")
    assert {name for name, one in loaded.model.named_parameters() if one.requires_grad} == trained_still
    context = indelible.edit(indelible.load(str(taught / "model")), edit.facts, "ike", bystanders=0)
    with pytest.raises(ConfigError, match="lies in no layer"):
        indelible.protect(loaded, context, "replay", mask="up-to-edited")
