"""Updates and edited models on disk: read back as they were, and refused when damaged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_deltas import Make, edit
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from worked_facts import CAPITALS

from indelible.care.verify import verify_facts
from indelible.edits.deltas.weights import WeightUpdate
from indelible.errors import EditError
from indelible.models.fingerprint import fingerprint
from tiny_families import enliven


def test_an_edited_model_saved_by_transformers_holds_the_edit(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = enliven(tiny_model("qwen2"))  # whose head is tied to its embeddings
    update = edit("ft-m", model, tiny_tokenizer)
    states = [one.state for one in verify_facts(model, tiny_tokenizer, CAPITALS)]
    assert "present" not in states
    update.apply(model)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert update.presence(again).state == "exact"
    assert "present" in [one.state for one in verify_facts(again, tiny_tokenizer, CAPITALS)]
    update.revert(again)
    assert fingerprint(again) == update.manifest["fingerprint"]


def test_damaged_updates_are_refused(tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    update = edit("ft-m", tiny_model("llama"), tiny_tokenizer, CAPITALS[:1])

    def damaged(name: str, text: str | None) -> Path:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        update.save(folder)
        if text is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(text)
        return folder

    update.save(tmp_path / "whole")
    written = json.loads((tmp_path / "whole" / "manifest.json").read_text())

    def hashed(manifest: dict[str, Any]) -> str:
        """By someone who knows how the hash is made: the types are looked at all the same."""
        bare = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
        canonical = json.dumps(bare, sort_keys=True, separators=(",", ":"))
        return json.dumps({**bare, "manifest_sha256": hashlib.sha256(canonical.encode()).hexdigest()})

    def altered(**changes: object) -> Path:
        return damaged("manifest.json", hashed({**written, **changes}))

    without = {key: value for key, value in written.items() if key != "parameters"}
    seal, fact = written["seal"], written["facts"][0]
    (tmp_path / "laid out otherwise").mkdir()
    for name in ("manifest.json", "update.safetensors"):
        (tmp_path / "laid out otherwise" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    (tmp_path / "laid out otherwise" / "manifest.json").write_text(json.dumps(written, sort_keys=True))
    assert WeightUpdate.load(tmp_path / "laid out otherwise").manifest == update.manifest
    # As an earlier version wrote it: neither the model's name nor how the facts were answered.
    older = WeightUpdate.load(damaged("manifest.json", hashed({k: v for k, v in written.items() if k != "model"})))
    assert "model" not in older.manifest and older.answered == {}
    for change in ({"seed": 1}, {"facts": [{**fact, "new_object": "Rome"}]}, {"seal": {**seal, "result": "0"}}):
        with pytest.raises(EditError, match=r"manifest.json is damaged, or was changed after it was written"):
            WeightUpdate.load(damaged("manifest.json", json.dumps({**written, **change})))
    for folder, words in (
        (tmp_path / "nowhere", "no manifest.json"),
        (damaged("manifest.json", None), "no manifest.json"),
        (damaged("update.safetensors", None), "no update.safetensors"),
        (damaged("manifest.json", "{"), r"manifest.json is not JSON: .*property name"),
        (damaged("manifest.json", "[]"), "manifest.json is not a delta's manifest"),
        (damaged("manifest.json", '{"name": "an app"}'), "manifest.json is not a delta's manifest"),
        (altered(format=1), "format 1, not"),
        (altered(format=3), "format 3, not 4. Make the edit again with this version"),
        (damaged("manifest.json", json.dumps(dict(update.manifest))), "is damaged"),
        (damaged("manifest.json", hashed(dict(update.manifest))), "safetensors is damaged"),
        (damaged("update.safetensors", "short"), "is damaged"),
        (damaged("manifest.json", hashed(without)), "do not belong together"),
        (altered(parameters=["another.weight"]), "do not belong together"),
        (altered(parameters=7), "do not belong together"),
        (altered(kind="wights"), "do not belong together.*Did you mean 'weights'"),
        (altered(fingerprint=None), "do not belong together"),
        (altered(facts=[{"id": "x"}]), "do not belong together"),
        (altered(facts=None), "do not belong together"),
        (altered(facts={"x": fact}), "facts is no list"),
        (altered(facts="x"), "facts is no list"),
        *(
            (altered(facts=[{**fact, **wrong}]), "number 0 is no fact with a new object")
            for wrong in (
                {"new_object": None},
                {"subject": 7},
                {"prompt": ["x"]},
                {"paraphrases": "x"},
                {"held_out": None},
                {"neighbours": [{"prompt": 1, "answer": "x"}]},
                {"neighbours": [7]},
                {"another": 1},
            )
        ),
        (altered(editor=None), "editor is no text"),
        (altered(model={"name": "x"}), "model is no name and architecture"),
        (altered(model={"name": 7, "architecture": "x"}), "model is no name and architecture"),
        (altered(answered=["x"]), "answered is no state by fact"),
        (altered(answered={fact["id"]: 1}), "answered is no state by fact"),
        (altered(bystanders=7), "bystanders is no list"),
        (altered(parts=[7]), "parts is no list"),
        (altered(leaves="x"), "leaves is no list"),
        (altered(seal={**seal, "before": {}}), "seal is of other parameters"),
        (altered(seal=[]), "seal is incomplete"),
        (altered(seal={**seal, "more": 1}), "seal is incomplete"),
        (altered(seal={**seal, "result": 1}), "seal is incomplete"),
        (altered(seal={**seal, "after": ["x"]}), "the seal's after"),
        (altered(seal={**seal, "products": dict.fromkeys(seal["products"], "x")}), "the seal's products"),
    ):
        with pytest.raises(EditError, match=words):
            WeightUpdate.load(folder)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("left", lambda one: one[:, :-1], "factors of .* have the shapes"),
        ("left", lambda one: one.flatten(), "factors of .* have the shapes"),
        ("left", lambda one: one.long(), "is not of finite numbers"),
        ("right", lambda one: one / 0, "is not of finite numbers"),
        ("fixed_at", lambda one: one.float(), "are no places"),
        ("fixed_at", lambda one: one[:-1], "are no places"),
        ("fixed_at", lambda one: one - 10_000, "lie outside"),
        ("fixed_at", lambda one: one + 10_000, "lie outside"),
    ],
)
def test_tensors_that_make_no_difference_are_refused(
    part: str, change: Any, words: str, tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    update = edit("memit", enliven(tiny_model("llama")), tiny_tokenizer, CAPITALS[:1])
    tensors = update.tensors()
    assert WeightUpdate.from_saved(update.manifest, tensors).parameters == update.parameters
    name = f"{update.parameters[0]}:{part}"
    with pytest.raises(ValueError, match=words):
        WeightUpdate.from_saved(update.manifest, {**tensors, name: change(tensors[name])})


def test_an_update_half_written_over_another_is_refused(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (edit("ft-m", tiny_model("llama"), tiny_tokenizer, [fact]) for fact in CAPITALS[:2])
    one.save(tmp_path)
    assert not {"tensors_sha256", "manifest_sha256"} & set(one.manifest)
    assert dict(WeightUpdate.load(tmp_path).manifest) == dict(one.manifest)
    rename_to = Path.replace

    def killed(name: str) -> None:
        def rename(path: Path, target: Path) -> Path:
            if target.name == name:
                raise KeyboardInterrupt
            return rename_to(path, target)

        monkeypatch.setattr(Path, "replace", rename)
        with pytest.raises(KeyboardInterrupt):
            two.save(tmp_path)
        monkeypatch.setattr(Path, "replace", rename_to)

    killed("update.safetensors")
    assert dict(WeightUpdate.load(tmp_path).manifest) == dict(one.manifest)
    killed("manifest.json")
    with pytest.raises(EditError, match=r"is damaged, or not the one that its manifest names. Save the edit again"):
        WeightUpdate.load(tmp_path)
    two.save(tmp_path)
    assert dict(WeightUpdate.load(tmp_path).manifest) == dict(two.manifest)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "update.safetensors"}
