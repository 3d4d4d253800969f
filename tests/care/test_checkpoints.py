"""What is written is what was edited: read back, compared, and nothing left where it is another model."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

import indelible
from indelible.care import checkpoints
from indelible.care.checkpoints import write_edited, write_reverted
from indelible.edits.deltas.weights import WeightUpdate
from indelible.errors import StoreError
from tiny_studies import taught_facts
from untouched import untouched


def other_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("down_proj.weight"))
    tensors[name][0, 0] += 1e-3
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def other_settings(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["rms_norm_eps"] = 1.0
    (folder / "config.json").write_text(json.dumps(config))


def other_tokens(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:1]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_weights, r"'model.layers.0.mlp.down_proj.weight' has other values"),
        (other_settings, "it answers '.*' otherwise"),
        (other_tokens, "it has other tokens for '"),
    ],
)
def test_a_folder_that_holds_another_model_is_not_left(
    spoil: Callable[[Path], None],
    said: str,
    taught: Path,
    tmp_path: Path,
    own_cache: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = indelible.load(str(taught / "model"))
    facts = [indelible.Fact(**{**row, "paraphrases": (), "held_out": ()}) for row in taught_facts()[:1]]
    edit = indelible.edit(loaded, facts, "ft-m", steps=2)
    assert isinstance(edit, WeightUpdate)
    kind = type(loaded.tokenizer)
    save = kind.save_pretrained

    def spoiling(self: Any, folder: Path, *around: Any, **more: Any) -> Any:
        written = save(self, folder, *around, **more)
        spoil(Path(folder))
        return written

    with monkeypatch.context() as planted:
        planted.setattr(kind, "save_pretrained", spoiling)
        with untouched(loaded.model), pytest.raises(StoreError, match=f"is not written.*{said}"):
            write_edited(loaded, edit, tmp_path / "edited")
        with edit.applied(loaded.model), untouched(loaded.model), pytest.raises(StoreError, match=said):
            write_reverted(loaded, edit, tmp_path / "back")
    assert list(tmp_path.iterdir()) == []
    write_edited(loaded, edit, tmp_path / "edited")
    assert indelible.verify(str(tmp_path / "edited"), edit).in_words.startswith("the delta is in them")


def weights_in_memory() -> int:
    models = [one for one in gc.get_objects() if isinstance(one, PreTrainedModel)]
    return sum({id(weight): weight.numel() for model in models for weight in model.parameters()}.values())


def test_of_a_model_given_by_name_one_is_held_at_a_time(
    taught: Path, tmp_path: Path, own_cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(taught / "model")
    facts = [indelible.Fact(**{**row, "paraphrases": (), "held_out": ()}) for row in taught_facts()[:1]]
    edit = indelible.edit(name, facts, "ft-m", steps=2)
    gc.collect()
    before, held = weights_in_memory(), list[int]()

    def read_again(*around: Any, **more: Any) -> indelible.LoadedModel:
        held.append(weights_in_memory())
        return indelible.load(*around, **more)

    monkeypatch.setattr(checkpoints, "load", read_again)
    write_edited(name, edit, tmp_path / "edited")
    assert write_reverted(str(tmp_path / "edited"), edit, tmp_path / "back").original
    assert held == [before, before]
