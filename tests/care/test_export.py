"""An edit as an adapter with a card: exported, read where a delta is read, and made ready for the hub, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

import indelible
from indelible.care.card import card
from indelible.care.export import Exported, export
from indelible.care.push import prepared, push
from indelible.cli.main import main
from indelible.edits.deltas.delta import Edit
from indelible.errors import ConfigError, EditError, IndelibleError, StoreError
from indelible.facts.fact import fact_from
from indelible.models.load import load
from tiny_studies import taught_facts

NEW = 3


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(tokens).logits
    return found


@pytest.fixture(scope="module")
def made(taught: Path, tmp_path_factory: pytest.TempPathFactory, own_cache: None) -> Path:
    """A folder with the deltas ``low`` and ``full``, and the adapter of the one."""
    folder = tmp_path_factory.mktemp("exported")
    facts = [fact_from({**row, "neighbours": ()}) for row in taught_facts()[:NEW]]
    base = load(str(taught / "model"), device="cpu")
    options = {"learning_rate": 0.03, "layers": (0, 1), "rank": 2}
    indelible.edit(base, facts, "lora", steps=40, out=folder / "low.safetensors", **options)
    indelible.edit(base, facts, "ft-m", steps=60, learning_rate=0.01, out=folder / "full.safetensors")
    assert (
        main(["export", str(folder / "low"), "--base", str(taught / "model"), "--peft", str(folder / "adapter")]) == 0
    )
    return folder


def test_an_exported_edit_is_the_edit(made: Path, taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = load(str(taught / "model"), device="cpu")
    tokens = base.tokenizer("The capital of Arvo is Peru.", return_tensors="pt")["input_ids"]
    with Edit.load(made / "low").applied(base.model):
        edited = logits(base.model, tokens)
    plain = AutoModelForCausalLM.from_pretrained(taught / "model")
    assert (logits(plain, tokens) - edited).abs().max() > 0.1
    adapted = PeftModel.from_pretrained(plain, str(made / "adapter")).eval()
    assert (logits(adapted, tokens) - edited).abs().max() < 1e-3
    # The adapter stands for the delta, and the folder for the edited model.
    assert main(["verify", str(made / "adapter"), str(made / "adapter"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"present": NEW}
    assert found["weights"]["share"] == pytest.approx(1, abs=1e-5)
    assert main(["apply", str(taught / "model"), str(made / "adapter"), "-o", str(made / "edited")]) == 0
    assert main(["verify", str(made / "edited"), str(made / "low"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["weights"]["state"] == "exact"


def test_what_has_no_low_rank_is_told(made: Path, taught: Path, tmp_path: Path) -> None:
    model, full = str(taught / "model"), Edit.load(made / "full")
    with pytest.raises(EditError, match=r"no low rank.*give a rank"):
        export(full, tmp_path / "no", model=model)
    assert not (tmp_path / "no").exists()
    found = export(full, tmp_path / "cut", model=model, rank=12)
    assert found.rank == 12 and found.vllm_rank == 16
    assert 0.01 < max(found.errors.values()) < 1 and found.logits > 1e-3
    said = (tmp_path / "cut" / "README.md").read_text(encoding="utf-8")
    assert "leaves out up to" in said and f"{found.answered[0]} of {NEW}" in said
    assert Exported(600, {}, 0.0, ()).vllm_rank is None
    with pytest.raises(IndelibleError, match=r"'model', which cannot be loaded.*--base"):
        export(full, tmp_path / "no", rank=2)
    with pytest.raises(EditError, match="codebook changes no weights"):
        export(indelible.edit(model, full.facts[:1], "grace", layer=1, steps=2), tmp_path / "no", model=model)


def test_the_card_says_what_was_measured_and_nothing_of_the_machine(made: Path, taught: Path) -> None:
    said = (made / "adapter" / "README.md").read_text(encoding="utf-8")
    _, head, text = said.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "peft",
        "tags": ["model-editing", "knowledge-editing", "indelible", "lora"],
    }
    assert str(taught) not in said
    assert f"| editor | lora |\n| edited facts | {NEW} |" in text
    assert f"| edited facts that are answered (efficacy) | {NEW} of {NEW} |" in text
    assert "held-out wordings that are answered" in text and "disable_adapter" in text
    assert "| The capital of Arvo is | Peru | Port |" in text
    manifest = Edit.load(made / "low").manifest
    named = manifest.but(
        model=manifest.model.model_copy(update={"name": "org/base"}),
        facts=(indelible.Fact("f", "<b>|", "r", "{}\n# x", "*", "`"),),
        answered={"f": "gone"},
    )
    said = card(named, library="transformers", use="", revert="")
    assert yaml.safe_load(said.split("---\n", 2)[1])["base_model"] == "org/base"
    assert r"| &lt;b&gt;\| \# x | \* | \` |" in said and "| 0 of 1 |" in said


def test_what_would_be_pushed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, settings = made / "adapter", made / "adapter" / "adapter_config.json"
    with pytest.raises(StoreError, match="names a folder as its model"):
        prepared(adapter, "me/edit")
    before = settings.read_text(encoding="utf-8")
    settings.write_text(json.dumps(json.loads(before) | {"base_model_name_or_path": "org/base"}), encoding="utf-8")
    (adapter / ".secret").touch()
    try:
        assert list(prepared(adapter, "me/edit").files) == [
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
        assert main(["push", str(adapter), "me/edit", "--dry-run"]) == 0
        assert "adapter_model.safetensors" in capsys.readouterr().out
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        assert main(["push", str(adapter), "me/edit"]) == 2
        assert capsys.readouterr().err.startswith("Error: There is no token for the hub. Log in")
        with pytest.raises(ConfigError, match="no name of a repository"):
            push(adapter, "me/my/edit")
        said = "does not say which model it belongs to"
        for damaged, expected in (("{", "adapter_config.json: not JSON"), ("[]", said), ("{}", said)):
            settings.write_text(damaged, encoding="utf-8")
            assert main(["push", str(adapter), "me/edit", "--dry-run"]) == 2
            assert expected in capsys.readouterr().err
    finally:
        (adapter / ".secret").unlink()
        settings.write_text(before, encoding="utf-8")
    for folder, words in ((tmp_path, "neither a model nor an adapter"), (made, "neither a model")):
        with pytest.raises(StoreError, match=words):
            prepared(folder, "me/edit")
