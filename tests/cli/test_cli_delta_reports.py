"""What edit, verify and revert say of facts that never took, of parts of a sum, and of what was reverted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Said
from delta_files import NEW, facts_file, rewritten
from safetensors.torch import load_file

from indelible.edits.deltas.delta import Edit

TAKES = ("--set", "steps=60", "--set", "learning_rate=0.01")
TAKES_NOT = ("--set", "steps=1", "--set", "learning_rate=1e-9")
MANY = 6
OTHERS = 12
"""Where the facts of another relation begin, to which an edit of so small a model does not spill over."""


def typed(model: Path, facts: Path, out: Path, *more: Any) -> list[Any]:
    return ["edit", model, "--facts", facts, "--editor", "ft-m", "-o", out, *more]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("facts")
    return facts_file(folder / "some.jsonl", 0), facts_file(folder / "many.jsonl", OTHERS, MANY)


def test_facts_that_did_not_take_are_named_and_are_not_called_lost(
    facts: tuple[Path, Path], taught: Path, tmp_path: Path, said: Said
) -> None:
    some, many = facts
    model, good, weak = taught / "model", tmp_path / "good", tmp_path / "weak"
    rows = [json.loads(line) for line in many.read_text(encoding="utf-8").splitlines()]
    wanted = [f"{row['prompt'].replace('{}', row['subject'])} {row['new_object']}" for row in rows]
    shown = said(typed(model, many, weak, *TAKES_NOT))
    assert f"0 of {MANY} are answered under the edit" in shown
    assert f"Not taken: {'; '.join(wanted[:5])}; and 1 more. `indelible verify` says" in shown
    found = json.loads(said(typed(model, many, weak, *TAKES_NOT, "--json", "--force", "--limit", 2)))
    assert found["not_taken"] == [row["id"] for row in rows[:2]]
    assert "; and" not in said(typed(model, many, weak, *TAKES_NOT, "--force", "--limit", 2))
    assert "Not taken" not in said(typed(model, some, good, *TAKES))

    # In the untouched model nothing is there; only what once was has gone.
    codes = {"good": 1, "weak": 0}
    states = {name: json.loads(said(["verify", model, tmp_path / name, "--json"], codes[name])) for name in codes}
    assert states["good"]["counts"] == {"gone": NEW}
    assert states["weak"]["counts"] == {"not taken": 2}
    said(["compose", model, good, weak, "-o", tmp_path / "both"])
    said(["apply", model, tmp_path / "both", "-o", tmp_path / "edited"])
    table = said(["verify", tmp_path / "edited", tmp_path / "both"])
    assert f"{NEW} present, 0 weakened, 0 gone, 2 not taken (not answered right after the edit either)" in table
    assert table.count("  not taken  ") == 2
    # A part of the sum: not training, but the other part changed its parameters.
    assert "another delta, training or another precision changed them; projection on" in said(
        ["verify", tmp_path / "edited", good]
    )


def test_what_an_adapter_continues_keeps_its_answers(
    facts: tuple[Path, Path], taught: Path, tmp_path: Path, said: Said
) -> None:
    some, many = facts
    first, second = tmp_path / "first", tmp_path / "second"
    base = ["edit", taught / "model", "--editor", "grace", "--set", "steps=1", "--set", "learning_rate=1e-9"]
    said([*base, "--facts", some, "--limit", 1, "-o", first])
    said([*base, "--facts", many, "--limit", 1, "-o", second, "--earlier", first, "--no-exam"])
    held = Edit.load(second)
    assert len(held.facts) == 2
    assert list(held.answered) == [held.facts[0].id]
    counts = json.loads(said(["verify", taught / "model", second, "--json"], 1))["counts"]
    assert counts.pop("not taken") == 1 and sum(counts.values()) == 1, "the second was not asked when it was edited"


def test_original_bytes_are_claimed_for_a_whole_model_only(
    facts: tuple[Path, Path], taught: Path, tmp_path: Path, said: Said
) -> None:
    model, delta, edited = taught / "model", tmp_path / "delta", tmp_path / "edited"
    said(typed(model, facts[0], delta, *TAKES, "--no-exam"))
    said(["apply", model, delta, "-o", edited])
    assert "to the original bytes (float32)" in said(["revert", edited, delta, "-o", tmp_path / "back"])
    trained = rewritten(edited, tmp_path / "trained", lambda one: one.get_input_embeddings().weight.mul_(1.01))
    shown = said(["revert", trained, delta, "-o", tmp_path / "partly"])
    assert "original bytes" not in shown
    assert "the edited parameters are as they were before the edit; other weights, or the settings, changed" in shown
    for more in ([], ["--approximately"]):
        complaint = said(["revert", model, delta, "-o", tmp_path / "no", *more], 2)
        assert "The delta is not in this model" in complaint and "bit for bit as before" in complaint
        assert "approximately" not in complaint
    assert not (tmp_path / "no").exists()


def test_a_bfloat16_checkpoint_is_edited_and_given_back_in_float32(
    facts: tuple[Path, Path], taught: Path, tmp_path: Path, said: Said
) -> None:
    half, delta, edited, back = (tmp_path / name for name in ("half", "delta", "edited", "back"))
    rewritten(taught / "model", half, lambda one: one.to(torch.bfloat16))
    said(typed(half, facts[0], delta, *TAKES, "--no-exam"))
    said(["apply", half, delta, "-o", edited])
    assert "original bytes (float32)" in said(["revert", edited, delta, "-o", back])
    before, middle, after = (load_file(folder / "model.safetensors") for folder in (half, edited, back))
    assert {tensor.dtype for tensor in before.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in (*middle.values(), *after.values())} == {torch.float32}
    assert before.keys() == after.keys() and any(not torch.equal(middle[name], after[name]) for name in after)
    for name, weight in after.items():
        assert torch.equal(weight.to(torch.bfloat16).view(torch.int16), before[name].view(torch.int16))
        assert torch.equal(weight.view(torch.int32), before[name].float().view(torch.int32))
    rounded = rewritten(edited, tmp_path / "rounded", lambda one: one.to(torch.bfloat16))
    assert "saved in another precision" in said(["revert", rounded, delta, "-o", tmp_path / "no"], 2)
    for command in ("apply", "revert"):
        assert "bfloat16" in said([command, "--help"])
