"""What every editor refuses: facts, layers, options and corpora that do not do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from pydantic import ValidationError
from tiny_edits import BESIDE, BY_FORMULA, SETTINGS, edit, editor
from worked_facts import CAPITALS, fact

from indelible.edits.editor import EDITORS
from indelible.errors import ConfigError, EditError, FactsError, ModelError, UnknownNameError
from tiny_models import Make, Tokenizer
from untouched import untouched


@pytest.mark.parametrize("name", [*SETTINGS, *BESIDE])
def test_a_fact_that_cannot_be_edited_is_refused(name: str, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    for facts, error, words in (
        ([], EditError, "no facts"),
        ([CAPITALS[0], replace(CAPITALS[1], new_object=None)], EditError, "has no new object"),
        ([CAPITALS[0], CAPITALS[0]], EditError, "is given twice"),
        ([fact("Peru", "Peru is", "x")], FactsError, "has no slot"),
        ([fact("Peru", "{} is", " ")], FactsError, "has no tokens"),
        ([fact(" ", "{} is", "x")], FactsError, "has no token"),
    ):
        with untouched(model), pytest.raises(error, match=words):
            edit(name, model, tiny_tokenizer, facts)
    with pytest.raises(EditError, match="paraphrases is -1"):
        edit(name, model, tiny_tokenizer, paraphrases=-1)
    with untouched(model), pytest.raises(EditError, match="paraphrases were asked for"):
        edit(name, model, tiny_tokenizer, paraphrases=1000)
    with pytest.raises(EditError, match=r"loaded in torch.bfloat16. Load it in float32"):
        edit(name, tiny_model("llama").to(torch.bfloat16), tiny_tokenizer)


@pytest.mark.parametrize("name", [*SETTINGS, *BESIDE])
def test_a_model_that_is_not_alone_is_refused(name: str, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    """A saved copy, or the model that others have, would not be the one that the edit was made for."""
    wrapped = torch.compile(tiny_model("llama"), backend="eager")
    with pytest.raises(EditError, match="stands inside a OptimizedModule"):
        edit(name, wrapped, tiny_tokenizer)
    config = LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    for merged in (False, True):
        tuned = get_peft_model(tiny_model("llama"), config)
        if merged:
            tuned.merge_adapter()
        for model in (tuned, tuned.base_model.model):
            with untouched(model), pytest.raises(EditError, match="peft"):
                edit(name, model, tiny_tokenizer)
        assert edit(name, tuned.merge_and_unload(), tiny_tokenizer).manifest.facts == tuple(CAPITALS)


@pytest.mark.parametrize("name", [*SETTINGS, *BESIDE])
def test_a_tokenizer_that_the_model_has_no_words_for_is_refused(
    name: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = tiny_model("llama")
    model.resize_token_embeddings(300)
    with untouched(model), pytest.raises(ModelError, match=r"token 3\d\d, and the model's vocabulary has 300"):
        edit(name, model, tiny_tokenizer)


@pytest.mark.parametrize("name", BY_FORMULA)
def test_a_model_that_has_come_to_grief_is_refused(name: str, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    model.model.norm.weight.data.fill_(torch.nan)
    with untouched(model), pytest.raises(EditError, match="no probabilities"):
        edit(name, model, tiny_tokenizer)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("memit", {"layers": (1, 4)}),
        ("memit", {"layers": (2, 1)}),
        ("memit", {"layers": (1, 1)}),
        ("memit", {"layers": (-1,)}),
        ("memit", {"layers": ()}),
        ("rome", {"layer": 4}),
        ("ft", {"layer": -1}),
    ],
)
def test_layers_that_do_not_fit_are_refused(
    name: str, options: dict[str, object], tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    with pytest.raises(ConfigError, match="do not fit a model of 4 layers"):
        edit(name, tiny_model("llama"), tiny_tokenizer, **options)


@pytest.mark.parametrize("name", [*SETTINGS, "grace"])
def test_options_are_checked_when_an_editor_is_made(name: str) -> None:
    """Numbers are finite, and layers whole ones."""
    layers = {"layers": (True, 2)} if "layers" in SETTINGS.get(name, {}) else {"layer": True}
    wrongs: list[dict[str, Any]] = [{"stepps": 3}, {"steps": 0}, {"learning_rate": -1.0}, {"steps": "many"}, layers]
    wrongs += [{"learning_rate": 1e38}, *([{"clamp": float("inf")}] if name in BY_FORMULA else [])]
    for wrong in wrongs:
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            editor(name, **wrong)
    made = editor(name)
    with pytest.raises(ValidationError):
        made.steps = 3


def test_what_no_editor_takes_is_refused(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    for name in ("ft-m", "grace"):
        with pytest.raises(TypeError, match="takes no 'sed'; it takes bystanders"):
            EDITORS.get(name)().edit(tiny_model("llama"), tiny_tokenizer, CAPITALS[:1], sed=3)


def test_unknown_editors_are_met_with_a_suggestion() -> None:
    assert EDITORS.names() == sorted([*SETTINGS, *BESIDE])
    with pytest.raises(UnknownNameError, match="Did you mean 'memit'"):
        EDITORS.get("memitt")
