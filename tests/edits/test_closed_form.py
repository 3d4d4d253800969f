"""Every closed-form editor's update of a tiny model, against float64 numpy from its own keys, values and moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_edits import BY_FORMULA, ONE_BY_ONE, assert_near, bench_of
from tiny_edits import editor as any_editor
from torch import Tensor
from transformers import PreTrainedModel
from worked_facts import CAPITALS, CORPUS

from indelible.edits.deltas.weights import WeightUpdate
from indelible.edits.solving.closed_form import ClosedFormEditor
from indelible.edits.solving.covariance import second_moments
from indelible.edits.solving.keys import read_subjects
from indelible.edits.solving.texts import FactRows, rows_for, sample_contexts
from indelible.edits.solving.values import optimise_values
from indelible.models.fingerprint import Identity
from indelible.models.layout import find_layout
from tiny_families import TABLE, enliven
from tiny_models import Make, Tokenizer


def editor(name: str, **more: Any) -> Any:
    less = {"null_threshold": 0.5} if name == "alphaedit" else {}
    return any_editor(name, **{"steps": 6, **less, **more})


def edit(made: ClosedFormEditor, model: PreTrainedModel, tokenizer: Any, facts: Any, **more: Any) -> WeightUpdate:
    update = made.edit(model, tokenizer, facts, corpus=CORPUS, **more)
    assert isinstance(update, WeightUpdate)
    return update


def by_formula(name: str, made: Any, keys: Any, bare: Any, residual: Any, moment: Any, earlier: Any) -> np.ndarray:
    """The update of one layer as the paper writes it, with full inverses.

    The residual is what is still missing of the value layer's block, or in PMET of its MLP (``states_by_hand``).
    """
    if name == "rome":
        directions = np.linalg.inv(moment) @ keys
        return residual @ np.linalg.inv(directions.T @ bare) @ directions.T
    if name in ("r-rome", "emmet"):
        inverse = np.linalg.inv(moment)
        return residual @ np.linalg.inv(keys.T @ inverse @ keys) @ keys.T @ inverse
    if name in ("memit", "pmet"):
        return residual @ keys.T @ np.linalg.inv(made.covariance_weight * moment + keys @ keys.T)
    values, vectors = np.linalg.eigh(moment)
    kept = vectors[:, values < made.null_threshold * values.mean()]
    project = kept @ kept.T
    system = earlier @ earlier.T @ project + keys @ keys.T @ project
    system += made.size_weight * values.mean() * np.eye(len(moment))
    return residual @ keys.T @ project @ np.linalg.inv(system)


def states_by_hand(model: PreTrainedModel, family: str, layer: int, rows: Sequence[FactRows], mlp: bool) -> np.ndarray:
    """What a block, or its MLP, returns at the bare wordings' subjects: whole passes, paths written down by hand."""
    table = TABLE[family]
    module = model.get_submodule(f"{table.blocks}.{layer}" + (f".{table.mlp_out}" if mlp else ""))
    kept: list[Tensor] = []
    handle = module.register_forward_hook(
        lambda _module, _args, output: kept.append((output if isinstance(output, Tensor) else output[0]).clone())
    )
    bare = [wording[0] for texts in rows for wording in texts.wordings]
    with torch.no_grad():
        for row in bare:
            model(torch.tensor([row.tokens]), use_cache=False)
    handle.remove()
    found = [output.view(len(row.tokens), -1)[row.subject] for output, row in zip(kept, bare, strict=True)]
    return torch.stack(found, dim=1).double().numpy()


@pytest.mark.parametrize("paraphrases", [0, 1])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", BY_FORMULA)
def test_an_update_is_the_papers_formula_of_what_was_read(
    name: str, family: str, paraphrases: int, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(tiny_model(family))
    layout, made = find_layout(model), editor(name)
    facts = CAPITALS[: 1 if name in ("rome", "r-rome") else 3]
    earlier: WeightUpdate | None = None
    if name == "alphaedit":
        earlier = edit(made, model, tiny_tokenizer, CAPITALS[3:5])
        assert set(earlier.keys) == set(earlier.parameters)
    update = edit(made, model, tiny_tokenizer, facts, paraphrases=paraphrases, earlier=earlier)

    layers = made.layers_in(layout)
    contexts = sample_contexts(model, tiny_tokenizer, 1, seed=0)
    rows = [rows_for(tiny_tokenizer, fact, paraphrases, contexts) for fact in facts]
    options = made.value_options()
    assert options.sites == (("attention", "mlp") if name == "pmet" else ("mlp",))
    assert options.reference == ("block" if name in ("memit", "alphaedit") else "site")
    deltas = optimise_values(model, layout, layers[-1], rows, options).deltas_fo
    made_with = bench_of(model, tiny_tokenizer, corpus=CORPUS, identity=Identity.of(model))
    moments = second_moments(made_with, layers, 600)
    first = read_subjects(model, layout, layers[0], layers[-1], rows)
    reading = partial(states_by_hand, model, family, layers[-1], rows, name == "pmet")
    wanted = reading() + deltas.T[:, first.facts_n].double().numpy()
    columns = np.sqrt(np.bincount(first.facts_n.numpy())[first.facts_n.numpy()])
    for place, layer in enumerate(layers):
        weight = layout.mlp_out_weight[layer]
        # The layers below have been changed already when this one is read.
        below = WeightUpdate({key: update.deltas[key] for key in update.parameters[:place]}, update.manifest)
        with below.applied(model):
            read = read_subjects(model, layout, layer, layers[-1], rows)
            states = reading()
        left = len(layers) - place
        missing = (wanted - states) / (left**0.5 if name == "pmet" else left)
        expected = by_formula(
            name,
            made,
            read.keys_dn.double().numpy() / columns,
            read.bare_dn.double().numpy() / columns,
            missing / columns,
            moments[layer].double().numpy(),
            None if earlier is None else earlier.keys[weight].double().numpy(),
        )
        found = update.deltas[weight].difference().double().numpy()
        found = found.T if layout.memory(0).in_out else found
        # States are float32; the formula in float64 from equal inputs is held to 1e-6 in test_solve.py.
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max(), (name, layer)
    before = states_by_hand(model, family, layers[-1], rows, False)
    with update.applied(model):
        moved = states_by_hand(model, family, layers[-1], rows, False) - before
    for number, fact in enumerate(facts):
        delta, own = deltas[number].double().numpy(), first.facts_n.numpy() == number
        share = np.mean(delta @ moved[:, own]) / (delta @ delta)
        assert update.manifest.arrived[fact.id] == pytest.approx(share, rel=1e-3, abs=1e-4)
    if name == "rome" and not paraphrases:  # the only one that meets its value at the bare key
        assert update.manifest.arrived[facts[0].id] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", BY_FORMULA)
def test_sequential_edits_are_a_chain(name: str, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    """Two steps of one fact each: the second edits the model that the first left, with the unedited model's moments."""
    model, facts = enliven(tiny_model("llama")), CAPITALS[:2]
    made = editor(name, edits_per_step=1)
    update = edit(made, model, tiny_tokenizer, facts)
    bench = bench_of(model, tiny_tokenizer, identity=Identity.of(model), corpus=CORPUS)
    changer = made.changer(bench, 0)
    first = changer.change(facts[:1], {})
    keys: Mapping[str, Tensor] = first.keys
    assert bool(keys) == (name == "alphaedit")
    with WeightUpdate(first.deltas, update.manifest).applied(model), torch.enable_grad():
        second = changer.change(facts[1:], keys)
    for weight in update.parameters:
        chained = first.deltas[weight].difference() + second.deltas[weight].difference()
        found = update.deltas[weight].difference()
        assert (found - chained).abs().max() < 1e-5 * chained.abs().max()
    if name in ONE_BY_ONE:
        return
    together = edit(editor(name), model, tiny_tokenizer, facts)
    weight = update.parameters[-1]
    apart = (together.deltas[weight].difference() - update.deltas[weight].difference()).abs().max()
    assert apart > 1e-3 * update.deltas[weight].difference().abs().max()


def test_alphaedits_numbers_are_absolute_where_that_is_asked_for(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    """The published numbers, times the mean eigenvalue that relative ones are in units of, are the same edit."""
    model = enliven(tiny_model("llama"))
    relative = editor("alphaedit", layers=(1,))
    made_with = bench_of(model, tiny_tokenizer, corpus=CORPUS, identity=Identity.of(model))
    moment = second_moments(made_with, [1], 600)[1]
    mean = float(moment.double().trace()) / len(moment)
    absolute = editor("alphaedit", layers=(1,), null_threshold=0.5 * mean, size_weight=0.01 * mean, units="absolute")
    assert abs(mean - 1) > 0.1
    assert_near(*(edit(made, model, tiny_tokenizer, CAPITALS[:2]) for made in (absolute, relative)), share=1e-5)
    assert absolute.model_dump()["units"] == "absolute"


def test_the_identity_can_stand_in_for_the_covariance(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    plain = editor("r-rome", covariance_tokens=0)
    update = plain.edit(model, tiny_tokenizer, CAPITALS[:1])  # no corpus is needed
    assert isinstance(update, WeightUpdate)
    (delta,) = update.deltas.values()
    rows = [rows_for(tiny_tokenizer, CAPITALS[0], 0, sample_contexts(model, tiny_tokenizer, 1, seed=0))]
    key = read_subjects(model, find_layout(model), 1, 1, rows).keys_dn[:, 0].double()
    dense = delta.difference().double()
    along = dense @ torch.outer(key, key) / (key @ key)
    assert torch.allclose(along, dense, atol=1e-6 * float(dense.abs().max()) + 1e-9)  # C^-1 k has the key's direction
    (other,) = edit(editor("r-rome"), model, tiny_tokenizer, CAPITALS[:1]).deltas.values()
    assert not torch.allclose(other.difference().double(), dense)


def test_alphaedit_has_no_null_space_without_a_covariance() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        editor("alphaedit", covariance_tokens=0)
