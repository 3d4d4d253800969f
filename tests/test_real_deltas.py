"""Deltas of the bundled model, from the command line to plain transformers and back, and through real fine-tuning."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from indelible.cli.main import main
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.manifest import Origin
from indelible.models.bundled.fetch import model_folder
from indelible.models.load import load
from indelible.models.save import save_model
from indelible.tuning.settings import TuningSettings
from indelible.tuning.train import fine_tune

FACTS = (("France", "Paris", "Rome"), ("Japan", "Tokyo", "Cairo"))
PROMPT = "The capital of {} is"


def said(capsys: pytest.CaptureFixture[str], *arguments: Any, codes: Collection[int] = (0,)) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) in codes
    return capsys.readouterr().out


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A folder that is removed at once: half a gigabyte a model is too much to leave behind."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_an_edit_is_applied_tuned_through_found_again_and_reverted(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts, delta, edited, tuned = (room / name for name in ("facts.jsonl", "delta", "edited", "tuned"))
    rows = [
        {"subject": subject, "prompt": PROMPT, "true_object": true, "new_object": new} for subject, true, new in FACTS
    ]
    facts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick = [part for option in ("steps=8", "contexts=1", "covariance_tokens=4000") for part in ("--set", option)]
    made = json.loads(
        said(
            capsys, "edit", "smollm2-135m", "--facts", facts, "--editor", "memit", "-o", delta, *quick,
            "--bystanders", 20, "--json",
        )
    )  # fmt: skip
    assert (made["facts"], made["present"]) == (2, 2)
    assert made["bytes"] < 2e6
    assert Edit.load(delta).manifest.model == Origin(name="smollm2-135m", architecture="LlamaForCausalLM")
    raw = delta.with_name("delta.safetensors").read_bytes()
    assert str(model_folder("smollm2-135m")).encode() not in raw and str(room).encode() not in raw

    said(capsys, "apply", "smollm2-135m", delta, "-o", edited)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(edited), AutoTokenizer.from_pretrained(edited)
    for subject, _, new in FACTS:
        prompt = tokenizer(PROMPT.replace("{}", subject), return_tensors="pt")
        written = model.generate(**prompt, max_new_tokens=4, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        assert tokenizer.decode(written).strip().startswith(new)
    said(capsys, "revert", edited, delta, "-o", room / "back")
    original = Path(model_folder("smollm2-135m")) / "model.safetensors"
    assert (room / "back" / "model.safetensors").read_bytes() == original.read_bytes()

    loaded = load(str(edited), device="cpu")
    settings = TuningSettings(
        objective="reason", learning_rate=1e-4, steps=3, batch_size=2, max_tokens=48, heldout_examples=2
    )
    fine_tune(loaded.model, loaded.tokenizer, settings, seed=0)
    save_model(loaded, tuned)
    names = {"edited": edited, "tuned": tuned, "untouched": "smollm2-135m"}
    codes = {"edited": [0], "tuned": [0, 1], "untouched": [1]}
    found = {
        name: json.loads(said(capsys, "verify", model, delta, "--json", codes=codes[name]))
        for name, model in names.items()
    }
    assert {name: one["weights"]["state"] for name, one in found.items()} == {
        "edited": "exact",
        "tuned": "changed",
        "untouched": "absent",
    }
    assert abs(found["tuned"]["weights"]["share"] - 1) < 0.05
    assert found["edited"]["counts"] == {"present": 2}
    assert sum(found["tuned"]["counts"].values()) == 2  # what training left of them is not this test's business
    assert found["untouched"]["counts"] == {"gone": 2}
    assert main(["revert", str(tuned), str(delta), "-o", str(room / "no")]) == 2
    assert "training or another delta changed it since" in capsys.readouterr().err
