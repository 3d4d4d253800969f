"""Mixtures of edited and tuned weights: exact at both ends, whole in the middle, and nothing left behind."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel

from indelible.edits.editors.grace import Grace
from indelible.edits.editors.ike import InContext
from indelible.errors import EditError, ModelError
from indelible.exam.exam import answers_frame, take_exam
from indelible.exam.questions import own_prompts
from indelible.facts.fact import Fact
from indelible.models.fingerprint import fingerprint
from indelible.models.layout import Layout, find_layout
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.why import shares as analysis
from indelible.why.mixtures import (
    changed_weights,
    exchanging,
    in_gray_order,
    mixture_exams,
    parameter_groups,
)
from tiny_models import FAMILIES, Make, Tokenizer, moved

ANSWERS = ("success", "first_token", "log_prob")

EDITED = [
    Fact("a", "France", "capital", "The capital of {} is", "Paris", "Oslo"),
    Fact("b", "Norway", "capital", "The capital of {} is", "Oslo", "Lima", held_out=("{} has the capital",)),
]
INTRINSIC = [Fact("c", "Egypt", "language", "In {} people speak", "Arabic"), Fact("d", "gold", "symbol", "{} is", "Au")]
QUESTIONS = own_prompts(EDITED, "edited") + own_prompts(INTRINSIC, "intrinsic")


def edited_names(layout: Layout, *layers: int) -> list[str]:
    return [layout.mlp_out_weight[layer] for layer in layers]


def grouped(model: PreTrainedModel, *layers: int) -> dict[str, tuple[str, ...]]:
    """Groups around an edit of the MLPs in some layers."""
    layout = find_layout(model)
    return parameter_groups(model, layout, edited_names(layout, *layers))


def answers(model: PreTrainedModel, tokenizer: Any, questions: Any = QUESTIONS) -> pd.DataFrame:
    return answers_frame(take_exam(model, tokenizer, questions)).set_index("fact_id")[list(ANSWERS)]


def in_mixture(table: pd.DataFrame, mixture: str) -> pd.DataFrame:
    return table[table["mixture"] == mixture].set_index("fact_id")[list(ANSWERS)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_in_one_group_and_lies_where_the_group_says(tiny_model: Make, family: str) -> None:
    model = tiny_model(family)
    layout = find_layout(model)
    edited = edited_names(layout, 1, 2)
    groups = parameter_groups(model, layout, edited)
    listed = [name for name, _ in model.named_parameters()]
    assert sorted(name for members in groups.values() for name in members) == sorted(listed)
    assert set(groups["projections"]) == set(edited)
    layers = {group: {layout.layer_of(name) for name in members} for group, members in groups.items()}
    assert layers["beside"] == {1, 2}
    assert layers["above"] == {3, None}
    assert set(groups["above"]) >= {f"{path}.weight" for path in layout.after_blocks}
    assert layers["below"] - {None} == {0}
    if layout.tied:
        assert len(groups["tied"]) == 1 and "head" not in groups
        assert model.get_parameter(f"{layout.head}.weight") is model.get_parameter(groups["tied"][0])
    else:
        assert groups["head"] == (f"{layout.head}.weight",) and "tied" not in groups
        assert {f"{path}.weight" for path in layout.embeddings} <= set(groups["below"])


def test_groups_of_edits_at_the_edges_with_gaps_and_beside_weights(tiny_model: Make) -> None:
    model = tiny_model("gpt2")
    groups = parameter_groups(model, find_layout(model), ["transformer.h.0.mlp.c_proj.weight"])
    assert groups["below"] == ("transformer.wpe.weight",), "position embeddings lie below"
    model = tiny_model("llama")
    layout = find_layout(model)
    groups = parameter_groups(model, layout, edited_names(layout, 0, 3))
    assert {layout.layer_of(name) for name in groups["beside"]} == {0, 1, 2, 3}
    assert groups["below"] == ("model.embed_tokens.weight",) and groups["above"] == ("model.norm.weight",)
    groups = parameter_groups(model, layout, edited_names(layout, 2), changes_weights=False)
    assert "projections" not in groups and edited_names(layout, 2)[0] in groups["beside"]
    assert list(parameter_groups(model, layout, [])) == ["embeddings", "layers", "head"]
    with pytest.raises(EditError, match=r"'nowhere.weight' is not in this model"):
        parameter_groups(model, layout, ["nowhere.weight"])
    with pytest.raises(EditError, match=r"changes no layer \(lm_head.weight\)"):
        parameter_groups(model, layout, ["lm_head.weight"])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ends_are_the_edited_and_the_tuned_model(tiny_model: Make, tiny_tokenizer: Tokenizer, family: str) -> None:
    model = tiny_model(family)
    groups = grouped(model, 1, 2)
    tuned = moved(model)
    before = fingerprint(model)
    table = mixture_exams(model, tiny_tokenizer, QUESTIONS, groups, tuned)
    assert fingerprint(model) == before
    names = list(table["mixture"].unique())
    assert len(names) == 2 ** len(groups) and len(table) == len(QUESTIONS) * len(names)
    assert set(table["fact_set"]) == {"edited", "intrinsic"}
    pd.testing.assert_frame_equal(in_mixture(table, "none"), answers(model, tiny_tokenizer), check_exact=True)
    with torch.no_grad():
        for name, weight in tuned.items():
            model.get_parameter(name).copy_(weight)
    whole = "+".join(groups)
    pd.testing.assert_frame_equal(in_mixture(table, whole), answers(model, tiny_tokenizer), check_exact=True)


def test_a_mixture_is_the_model_with_those_weights(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("qwen2")
    groups = grouped(model, 1)
    tuned = moved(model)
    table = mixture_exams(model, tiny_tokenizer, QUESTIONS, groups, tuned)
    with torch.no_grad():
        for name in (*groups["beside"], *groups["tied"]):
            model.get_parameter(name).copy_(tuned[name])
    pd.testing.assert_frame_equal(in_mixture(table, "beside+tied"), answers(model, tiny_tokenizer), check_exact=True)


def test_groups_in_which_nothing_changed_are_left_out(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    groups = grouped(model, 1)
    tuned = moved(model, "model.layers.0.", "model.layers.3.")
    tuned |= {name: model.get_parameter(name).detach().clone() for name in groups["projections"]}
    table = mixture_exams(model, tiny_tokenizer, QUESTIONS, groups, tuned)
    assert list(table["mixture"].unique()) == ["none", "below", "below+above", "above"]


def test_neighbouring_mixtures_differ_by_one_group() -> None:
    for count in range(7):
        order = in_gray_order([str(number) for number in range(count)])
        assert len({frozenset(mixture) for mixture in order}) == 2**count and order[0] == ()
        assert all(len(set(one) ^ set(two)) == 1 for one, two in pairwise(order))


def test_weights_come_back_whatever_happens(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("gpt2")
    groups = grouped(model, 1)
    places = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    before = fingerprint(model)

    def interrupt(done: int, total: int, note: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mixture_exams(model, tiny_tokenizer, QUESTIONS, groups, moved(model), progress=interrupt)
    assert fingerprint(model) == before
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == places


def test_tuned_weights_go_by_any_of_their_names(tiny_model: Make) -> None:
    model = tiny_model("gpt2")
    other = model.transformer.wte.weight.detach() + 1
    assert list(changed_weights(model, {"lm_head.weight": other})) == ["transformer.wte.weight"]
    with exchanging(model, changed_weights(model, {"lm_head.weight": other})) as exchange:
        exchange({"transformer.wte.weight"})
        assert torch.equal(model.lm_head.weight, other) and model.lm_head.weight is model.transformer.wte.weight


def test_weights_that_do_not_fit_are_refused(tiny_model: Make) -> None:
    model = tiny_model("gpt2")
    wte = model.transformer.wte.weight.detach()
    with pytest.raises(ModelError, match="changed no weight"):
        changed_weights(model, {"transformer.wte.weight": wte.clone()})
    with pytest.raises(ModelError, match=r"'transformer.wte.weight', \(3, 2\) in torch.float32, does not fit"):
        changed_weights(model, {"transformer.wte.weight": torch.zeros(3, 2)})
    with pytest.raises(ModelError, match=r"torch\.float16, does not fit"):
        changed_weights(model, {"transformer.wte.weight": wte.half()})
    with pytest.raises(ModelError, match="no such parameter"):
        changed_weights(model, {"transformer.elsewhere": wte})
    with pytest.raises(ModelError, match="one tensor in the edited model"):
        changed_weights(model, {"transformer.wte.weight": wte + 1, "lm_head.weight": wte + 2})


@pytest.mark.parametrize("editor", [Grace(steps=5, radius=1e3), InContext(copies=1)])
def test_edits_beside_the_weights_stay_in_place(
    tiny_model: Make, tiny_tokenizer: Tokenizer, editor: Grace | InContext
) -> None:
    model = tiny_model("llama")
    layout = find_layout(model)
    edit = editor.edit(model, tiny_tokenizer, EDITED, layout=layout)
    asked = [replace(question, context=edit.context) for question in QUESTIONS]
    groups = parameter_groups(model, layout, edit.parameters, changes_weights=False)
    tuned = moved(model)
    bare = answers(model, tiny_tokenizer)
    with edit.applied(model):
        table = mixture_exams(model, tiny_tokenizer, asked, groups, tuned)
        expected = answers(model, tiny_tokenizer, asked)
        pd.testing.assert_frame_equal(in_mixture(table, "none"), expected, check_exact=True)
    assert not in_mixture(table, "none")["log_prob"].equals(bare["log_prob"])
    with torch.no_grad():
        for name, weight in tuned.items():
            model.get_parameter(name).copy_(weight)
    with edit.installed(model):
        whole = in_mixture(table, "+".join(groups))
        pd.testing.assert_frame_equal(whole, answers(model, tiny_tokenizer, asked), check_exact=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_freeze_the_groups_that_forecasts_take_for_them(tiny_model: Make, family: str) -> None:
    model = tiny_model(family)
    layout = find_layout(model)
    edited = edited_names(layout, 1, 2)
    groups = parameter_groups(model, layout, edited)
    for mask, frozen in analysis.MASKS.items():
        members = {name for group in frozen for name in groups.get(group, ())}
        assert members == frozen_parameters(mask, model, layout, edited), mask


def test_shares_read_what_mixtures_write(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("gpt2")
    groups = grouped(model, 1)
    table = mixture_exams(model, tiny_tokenizer, QUESTIONS, groups, moved(model)).assign(arm="tiny", seed=0)
    found = analysis.shares(table.assign(success=True), of="log_prob", draws=50).set_index(["fact_set", "group"])
    means = table.pivot_table("log_prob", "mixture", "fact_set", "mean")
    fallen = means.loc["none"] - means.loc["+".join(groups)]
    for fact_set in ("edited", "intrinsic"):
        assert list(found.loc[fact_set].index) == list(groups)
        assert found.loc[fact_set, "share"].sum() == pytest.approx(fallen[fact_set], abs=1e-9)
