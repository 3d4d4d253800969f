"""Durable edits: values found in several views of a model, of which nothing stays behind."""

from __future__ import annotations

import pytest
import torch
from tiny_edits import BY_FORMULA, ONE_BY_ONE, bench_of, edit, editor
from worked_facts import CAPITALS, CORPUS

from indelible.edits.solving.spread import spread
from indelible.edits.solving.texts import rows_for, sample_contexts
from indelible.edits.solving.values import optimise_values
from indelible.edits.solving.views import shaken
from indelible.models.fingerprint import Identity
from indelible.models.layout import find_layout
from tiny_families import build_family, enliven
from tiny_models import Make, Tokenizer
from untouched import untouched


@pytest.mark.parametrize(("name", "family"), [*((name, "llama") for name in BY_FORMULA), ("memit", "gpt2")])
def test_a_durable_edit_writes_values_found_in_the_views(
    name: str, family: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(tiny_model(family))
    layout, made = find_layout(model), editor(name, steps=6, durable=0.2)
    facts = CAPITALS[: 1 if name in ONE_BY_ONE else 3]
    with untouched(model):
        update = edit(name, model, tiny_tokenizer, facts, steps=6, durable=0.2, seed=4)
    layers = made.layers_in(layout)
    contexts = sample_contexts(model, tiny_tokenizer, 1, seed=4)
    rows = [rows_for(tiny_tokenizer, fact, 0, contexts) for fact in facts]
    views = shaken(model, layout, layers, 0.2, 2, seed=4)
    values = optimise_values(model, layout, layers[-1], rows, made.value_options(), views=views)
    bench = bench_of(model, tiny_tokenizer, corpus=CORPUS, identity=Identity.of(model), bystanders=(), seed=4)
    solve = made.solver(bench, layers)
    change, _ = spread(
        bench, layers, rows, values.deltas_fo, solve, share=made.share, compared=made.compared, bare_share=None
    )
    for parameter, delta in change.deltas.items():
        torch.testing.assert_close(update.deltas[parameter].difference(), delta.difference(), rtol=1e-5, atol=1e-6)

    plain = edit(name, model, tiny_tokenizer, facts, steps=6, seed=4)
    none = edit(name, model, tiny_tokenizer, facts, steps=6, seed=4, durable=0.0)
    for parameter, delta in plain.deltas.items():
        assert torch.equal(none.deltas[parameter].difference(), delta.difference())
        assert not torch.allclose(update.deltas[parameter].difference(), delta.difference(), atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "opt"])
def test_views_move_the_blocks_weights_by_that_share_and_leave_the_memories(
    family: str, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(build_family(family, len(tiny_tokenizer)))
    layout = find_layout(model)
    memories = {layout.memory(layer).weight for layer in (1, 2)}
    views = shaken(model, layout, (1, 2), 0.1, 2, seed=0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    moved: list[dict[str, torch.Tensor]] = []
    for view in range(len(views)):
        with untouched(model), pytest.raises(KeyError, match="inside"), views.seen(view):
            after = {name: weight.detach().clone() for name, weight in model.named_parameters()}
            moved.append({name: after[name] - one for name, one in before.items() if not torch.equal(after[name], one)})
            raise KeyError("inside")
    assert moved[0] == {}
    in_blocks = {name for name, one in before.items() if layout.layer_of(name) is not None and one.ndim > 1}
    assert moved[1].keys() == moved[2].keys() == in_blocks - memories
    for name, first in moved[1].items():
        size, second = before[name].square().mean().sqrt(), moved[2][name]
        assert float(first.square().mean().sqrt() / size) == pytest.approx(0.1, rel=0.2)
        assert not torch.allclose(first, second)
