"""Updates and edited models on disk: read back as they were, and refused when damaged."""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file
from tiny_edits import edit
from transformers import AutoModelForCausalLM
from worked_facts import CAPITALS

from indelible.care.verify import verify_facts
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.manifest import packed, with_suffix
from indelible.edits.deltas.weights import LowRank
from indelible.errors import EditError, FingerprintError
from indelible.models.fingerprint import fingerprint
from tiny_families import enliven
from tiny_models import Make, Tokenizer


def exit_at_disk_call(folder: Path, number: int) -> None:
    """End this process without a word at that call, from 0, which opens, makes, renames or removes in a folder."""
    calls = count()

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        touches = event.startswith("os.") or event == "open"
        if touches and str(folder) in str(arguments) and next(calls) == number:
            os._exit(9)

    sys.addaudithook(watch)


def test_an_edited_model_saved_by_transformers_holds_the_edit(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
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
    assert fingerprint(again) == update.manifest.fingerprint


def test_a_delta_written_over_an_old_one_is_the_old_or_the_new_whenever_it_is_killed(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """At each call that touches the disk the process that writes is gone, as after SIGKILL."""
    old, new = (edit("ft-m", tiny_model("llama"), tiny_tokenizer, CAPITALS[place : place + 1]) for place in (0, 1))
    path, found = tmp_path / "delta.safetensors", []
    old.save(path)
    while True:
        child = os.fork()
        if not child:
            exit_at_disk_call(tmp_path, len(found))
            new.save(path)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        facts = Edit.load(path).facts
        assert facts in (old.facts, new.facts)
        if code == 0:
            break
        found.append(facts == new.facts)
    assert facts == new.facts and found == sorted(found) and {*found} == {False, True} and len(found) > 5


def test_a_delta_is_one_file_that_nothing_changes_unnoticed(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    update = edit("ft-m", tiny_model("llama"), tiny_tokenizer, CAPITALS[:1])
    whole, other = tmp_path / "whole.safetensors", tmp_path / "other"
    update.save(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.safetensors"]
    raw = whole.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    with safe_open(whole, "pt") as opened:  # what other people's tools see
        assert json.loads(opened.metadata()["manifest"])["facts"][0]["new_object"] == "Oslo"
        assert set(opened.keys()) == update.tensors().keys()
    generator = random.Random(0)
    places = [*range(12), *generator.sample(range(header), 60), *generator.sample(range(header, len(raw)), 20)]
    for place in places:
        other.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(EditError, match=r"is damaged"):
            Edit.load(other)
    for part in (raw[:-1], raw[:header], raw[:10], b"", raw + b"x"):
        other.write_bytes(part)
        with pytest.raises(EditError, match=r"is damaged"):
            Edit.load(other)
    with pytest.raises(EditError, match=r"There is no delta .*whole.safetensor. Did you mean 'whole.safetensors'"):
        Edit.load(tmp_path / "whole.safetensor")
    with pytest.raises(EditError, match="is a folder, not a delta"):
        Edit.load(tmp_path)
    metadata = json.loads(raw[8:header])["__metadata__"]
    for key, value in (("sha256", 5), ("sha256", [metadata["sha256"]]), ("manifest", 7), ("manifest", None)):
        made = json.dumps({"__metadata__": metadata | {key: value}}).encode()
        other.write_bytes(len(made).to_bytes(8, "little") + made)
        with pytest.raises(EditError, match=r"is damaged"):
            Edit.load(other)
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(EditError, match="other is no delta"):
        Edit.load(other)


def test_what_another_version_wrote_is_refused(tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    update = edit("ft-m", tiny_model("llama"), tiny_tokenizer, CAPITALS[:1])
    said = json.loads(update.manifest.model_dump_json())
    tensors = {name: tensor.contiguous() for name, tensor in update.tensors().items()}
    for change, words in (
        ({"format": 4}, "has format 4, not 5. Make the edit again with this version"),
        ({"kind": 1.5}, "do not belong together.*Unknown kind of edit '1.5'"),
        ({"kind": "wights"}, "do not belong together.*Did you mean 'weights'"),
        (
            {"facts": [{**said["facts"][0], "subject": 7}]},
            r"do not belong together: facts\.0\.subject: Input should be a valid string",
        ),
        ({"fingerprint": None}, "do not belong together: fingerprint"),
        ({"parameters": ("another.weight",)}, "do not belong together"),
    ):
        manifest = SimpleNamespace(model_dump_json=partial(json.dumps, said | change))
        (tmp_path / "other").write_bytes(packed(manifest, partial(save, tensors)))
        with pytest.raises(EditError, match=words):
            Edit.load(tmp_path / "other")


NO_FIXES = {"fixed_at": torch.zeros(0, dtype=torch.int32), "fixed_to": torch.zeros(0)}


def crafted(path: Path, update: Edit, **tensors: torch.Tensor | None) -> Path:
    """The delta with other tensors (None: without them), and a hash that fits."""
    (name,) = update.parameters
    kept = {label: tensor.contiguous() for label, tensor in update.tensors().items()}
    kept |= {f"{name}:{part}": tensor for part, tensor in tensors.items() if tensor is not None}
    for part in (part for part, tensor in tensors.items() if tensor is None):
        del kept[f"{name}:{part}"]
    path.write_bytes(packed(update.manifest, partial(save, kept)))
    return path


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"full": torch.ones(1), **NO_FIXES}, r"has the shape \(32, 64\) in this model, and \(1,\) in the update"),
        ({"full": None, "left": torch.ones(10**6, 1), "right": torch.ones(1, 10**6)}, r"and \(1000000, 1000000\) in"),
        ({"full": None, "left": torch.ones(32, 2), "right": torch.ones(3, 64)}, "have 2 columns and 3 rows"),
        ({"full": None, "left": torch.ones(32, 2)}, "do not belong together: 'right'"),
        ({"full": None}, "has the parts fixed_at, fixed_to"),
        (
            {"left": torch.ones(32, 2), "right": torch.ones(2, 64)},
            "has the parts fixed_at, fixed_to, full, left, right",
        ),
        ({"full": torch.ones(32, 64, dtype=torch.int8)}, r"full is torch\.int8"),
        ({"fixed_at": torch.tensor([2048], dtype=torch.int32), "fixed_to": torch.ones(1)}, "names entries that"),
        ({"fixed_at": None, "fixed_to": None}, "the seal is not of the parameters that change"),
        ({"odd": torch.ones(1)}, "odd of 1 dimensions is no part of an update"),
    ],
)
def test_a_crafted_delta_is_refused_before_anything_is_made_of_it(
    tensors: dict[str, torch.Tensor | None], said: str, tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    update = edit("ft-m", model, tiny_tokenizer, CAPITALS[:1], steps=1)
    before = fingerprint(model)
    assert Edit.load(crafted(tmp_path / "whole", update)).parameters == update.parameters
    with pytest.raises((EditError, FingerprintError), match=said):
        Edit.load(crafted(tmp_path / "other", update, **tensors)).apply(model)
    assert fingerprint(model) == before


def test_updates_of_other_shapes_are_not_added(tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    update = edit("ft-m", tiny_model("llama"), tiny_tokenizer, CAPITALS[:1], steps=1)
    (name,) = update.parameters
    other = replace(update, deltas={name: LowRank(torch.ones(10**6, 1), torch.ones(1, 10**6))})
    with pytest.raises(EditError, match=r"different shapes, \(\d+, \d+\) and \(1000000, 1000000\)"):
        _ = update + other


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("mine", "mine.safetensors"),
        ("mine.bin", "mine.bin"),
        ("lr-0.01", "lr-0.01.safetensors"),
        ("a/v1.2-b", "a/v1.2-b.safetensors"),
        ("mine.", "mine..safetensors"),
        ("..", ".."),
        ("a/..", "a/.."),
        (".", "."),
    ],
)
def test_what_a_delta_is_called(given: str, written: str) -> None:
    assert with_suffix(Path(given)) == Path(written)
