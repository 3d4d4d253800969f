"""Built-in studies hold what they promise, the published ones to their papers' figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from indelible.errors import ConfigError
from indelible.study.design.arms import Arm, resolve_arms
from indelible.study.design.config import load_config, parse_config, preset_names
from indelible.study.design.settings import StudyConfig
from indelible.study.run.tables import edit_in_words


def resolved(config: StudyConfig) -> dict[str, Arm]:
    return {arm.name: arm for arm in resolve_arms(config)}


def options(arm: Arm) -> dict[str, Any]:
    return {} if arm.editor is None else arm.editor.model_dump(mode="json")


def test_every_preset_is_there_and_its_arms_can_be_resolved() -> None:
    assert preset_names() == ["decay", "freezing", "objectives", "paper", "paraphrases", "quick"]
    for name in preset_names():
        config = load_config(name)
        assert config.name == name and resolved(config)


def test_the_paper_preset_looks_and_counts_by_the_text_that_there_is_offline() -> None:
    settings = resolved(load_config("paper"))["rome"].tuning
    assert settings.steps_at_most == 67  # 5 passes over 1,700 rows, 128 a step
    assert settings.evaluation_interval == 10


def test_a_run_says_how_many_of_the_published_texts_its_covariance_had() -> None:
    def said(texts: int, *overrides: str) -> str:
        arm = resolved(load_config("paper", overrides))["rome"]
        return edit_in_words(arm, {"layers": [7], "bystanders": 0, "texts": texts})

    assert said(1591) == "layer 7; covariance of 1,591 texts, all that there are, of 100,000; no bystanders preserved"
    assert said(100_000) == said(1591, "model=meta-llama/Llama-3.1-8B") == "layer 7; no bystanders preserved"


@pytest.mark.parametrize("model", ["gpt2-xl", "openai-community/gpt2-xl"])
def test_the_paper_preset_has_the_figures_of_wen_and_zhang(model: str) -> None:
    config = load_config("paper", [f"model={model}"])
    assert (config.model, config.facts.n_edits, config.facts.n_intrinsic) == (model, 50, 100)
    arms = resolved(config)
    rome = arms["rome"]
    assert rome.isolated and rome.mask == "none"
    wanted = {"layer": 17, "steps": 20, "learning_rate": 0.5, "weight_decay": 0.5, "clamp": 4.0, "kl_weight": 0.0625}
    assert {key: options(rome)[key] for key in wanted} == wanted
    assert rome.editor.published and rome.editor.optimiser == "adam" and rome.editor.covariance_texts == 100_000
    assert rome.editor.bystander_weight == 0 and config.facts.bystanders == 0
    tuning = rome.tuning.model_dump()
    assert (tuning["objective"], tuning["tuner"], tuning["learning_rate"]) == ("text", "full", 1e-4)
    assert tuning["batch_size"] * tuning["accumulation"] == 128
    assert (tuning["max_tokens"], tuning["weight_decay"], tuning["epochs"]) == (100, 0.01, 5)
    assert (tuning["stop_at"], tuning["evaluate_every"], tuning["heldout_examples"]) == ({"loss": 3.0}, 100, 1000)
    assert options(arms["ft"])["learning_rate"] == 5e-4 and 25 <= options(arms["ft"])["steps"] <= 50
    assert {arm.paraphrases for arm in arms.values()} == {0, 3}
    assert {arm.mask for arm in arms.values()} == {"none", "edited-layers"}


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-8B"])
def test_the_paper_preset_on_llama_edits_layer_1_without_a_covariance(model: str) -> None:
    rome = resolved(load_config("paper", [f"model={model}"]))["rome"]
    assert (rome.editor.layer, rome.editor.covariance_tokens) == (1, 0)
    assert (rome.editor.steps, rome.editor.weight_decay, rome.editor.clamp) == (25, 1e-3, 4)
    assert options(resolved(load_config("paper"))["rome"])["layer"] is None


MIDDLE, LOWER = [13, 14, 15, 16, 17], [4, 5, 6, 7, 8]
OF_MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "gpt2-xl": {
        "rome": {"layer": 17, "steps": 20, "learning_rate": 0.5, "contexts": "rome", "kl_after": "subject"},
        "r-rome": {"layer": 17, "steps": 20, "learning_rate": 0.5, "bare_value": True},
        "memit": {"layers": MIDDLE, "steps": 20, "learning_rate": 0.5, "covariance_weight": 20_000, "bare_share": 0.5},
        "alphaedit": {"layers": MIDDLE, "steps": 20, "null_threshold": 0.02, "size_weight": 10, "units": "absolute"},
        "emmet": {"layers": [17], "steps": 20, "slack": 100, "clamp": 0.75, "reference": "block"},
        "ft": {"layer": 1, "steps": 25, "learning_rate": 5e-4, "stop_below": 0.01},
        "ft-l": {"layer": 0, "steps": 25, "learning_rate": 5e-4, "bound": 5e-4},
    },
    "meta-llama/Llama-3.1-8B": {
        "memit": {"layers": LOWER, "steps": 25, "learning_rate": 0.1, "covariance_weight": 15_000, "clamp": 0.75},
        "alphaedit": {"layers": LOWER, "steps": 25, "learning_rate": 0.1, "null_threshold": 0.02, "size_weight": 10},
        "ft": {"layer": 21, "steps": 25, "learning_rate": 5e-4},
    },
}


@pytest.mark.parametrize(("model", "editor"), [(model, name) for model, those in OF_MODELS.items() for name in those])
def test_the_paper_preset_has_the_published_figures_of_every_editor(model: str, editor: str) -> None:
    """The study's arms are ROME and FT; another editor in an arm's place is as published, too."""
    config = load_config("paper", [f"model={model}", f"arms.rome.editor={editor}"])
    found = options(resolved(config)["rome"])
    wanted = OF_MODELS[model][editor] | {"published": True}
    assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("model", "layers", "weight"),
    [
        ("gpt2-xl", (13, 14, 15, 16, 17), 20_000),
        ("openai-community/gpt2-xl", (13, 14, 15, 16, 17), 20_000),
        ("EleutherAI/gpt-j-6b", (3, 4, 5, 6, 7, 8), 15_000),
        ("EleutherAI/gpt-j-6B", (3, 4, 5, 6, 7, 8), 15_000),
        ("meta-llama/Llama-2-7b-hf", (4, 5, 6, 7, 8), 15_000),
        ("meta-llama/Llama-3.1-8B-Instruct", (4, 5, 6, 7, 8), 15_000),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", (4, 5, 6, 7, 8), 15_000),
    ],
)
def test_the_decay_preset_has_the_figures_of_cheng_and_others(model: str, layers: tuple[int, ...], weight: int) -> None:
    arms = resolved(load_config("decay", [f"model={model}"]))
    memit, alphaedit = arms["memit, full"], arms["alphaedit, dora"]
    assert tuple(memit.editor.layers) == layers and memit.editor.covariance_weight == weight
    assert memit.editor.published and memit.editor.contexts == "memit"
    published = {
        "published": True,
        "layers": list(layers),
        "optimiser": "adam",
        "null_threshold": 0.02,
        "size_weight": 10,
        "units": "absolute",
    }
    assert {key: options(alphaedit)[key] for key in published} == published
    assert memit.tuning.learning_rate == 5e-6
    dora = alphaedit.tuning.model_dump()
    assert (dora["rank"], dora["alpha"], dora["dropout"], dora["learning_rate"]) == (32, 64, 0.05, 2e-4)
    assert (dora["batch_size"], dora["epochs"]) == (16, 3)
    assert {arm.tuning.tuner for arm in arms.values()} == {"full", "lora", "dora"}


@pytest.mark.parametrize("model", ["smollm2-135m", "gpt2-xl"])
def test_the_decay_presets_controls_are_tuned_as_the_arms_that_they_stand_beside(model: str) -> None:
    arms = resolved(load_config("decay", [f"model={model}"]))
    assert [name for name, arm in arms.items() if arm.editor is None] == [
        "control, full",
        "control, lora",
        "control, dora",
    ]
    for tuner in ("full", "lora", "dora"):
        assert arms[f"control, {tuner}"].tuning == arms[f"memit, {tuner}"].tuning


def test_the_other_presets_cross_what_they_are_named_for() -> None:
    objectives = [arm.tuning.objective for arm in resolved(load_config("objectives")).values()]
    assert len(objectives) == 36
    assert set(objectives) == {"text", "instruct", "classify", "reason", "preference", "reward"}
    freezing = resolved(load_config("freezing")).values()
    assert {arm.factors["editor"] for arm in freezing} == {"memit", "alphaedit", "ft"}
    assert all(arm.tuning.stop_at for arm in freezing)
    paraphrases = resolved(load_config("paraphrases")).values()
    assert {arm.paraphrases for arm in paraphrases} == {0, 1, 3, 5, 10}
    for name in ("decay", "freezing", "paraphrases"):
        assert len(load_config(name).seeds) == 3


BY_MODEL = """
name: s
model: small
editors: {memit: {steps: 5}}
arms: [{name: a, editor: memit}]
by_model:
  large: {editors: {memit: {layers: [3]}}, facts: {n_edits: 7}}
"""


def test_what_holds_for_a_model_is_laid_over_the_rest_and_under_what_is_typed() -> None:
    def parsed(*overrides: str) -> StudyConfig:
        return parse_config(BY_MODEL, "s.yaml", folder=Path("/somewhere"), overrides=overrides)

    assert parsed().editors == {"memit": {"steps": 5}}
    large = parsed("model=large")
    assert large.editors == {"memit": {"steps": 5, "layers": [3]}} and large.facts.n_edits == 7
    assert parsed("model=large", "facts.n_edits=2").facts.n_edits == 2
    with pytest.raises(ConfigError, match="'model' should be text"):
        parsed("model=[large]")
    with pytest.raises(ConfigError, match="by_model"):
        parse_config(BY_MODEL + "  small: 3\n", "s.yaml", folder=Path("/"))


def test_a_model_without_settings_of_its_own_is_told() -> None:
    def told(text: str, *overrides: str) -> list[str]:
        notes: list[str] = []
        parse_config(text, "s.yaml", Path("/somewhere"), overrides, note=notes.append)
        return notes

    assert told(BY_MODEL) == ["by_model has no entry for 'small': the study's base settings hold."]
    (other,) = told(BY_MODEL, "model=Large")  # names are exact
    assert "'Large'" in other
    assert told(BY_MODEL, "model=large") == told(BY_MODEL.partition("by_model")[0]) == []
