"""Drift of keys, outputs and read-outs: against what hooks and plain products show, one fact at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from indelible.edits.editors.ike import InContext
from indelible.facts.fact import Fact
from indelible.models.fingerprint import fingerprint
from indelible.models.layout import find_layout
from indelible.why.drift import measure_drift, turned
from indelible.why.drift_summary import LABELS
from tiny_families import enliven
from tiny_models import FAMILIES, Make, Tokenizer, moved

FACTS = [
    Fact("a", "France", "capital", "The capital of {} is", "Paris", "Oslo"),
    Fact("b", "Norway", "capital", "People say that the capital of {} is now", "Oslo", "Lima"),
    Fact("c", "Peru", "capital", "{} has the capital", "Lima", "Kyoto"),
]


def seen(model: PreTrainedModel, tokenizer: Tokenizer, fact: Fact, path: str) -> tuple[np.ndarray, ...]:
    """What enters and what leaves a projection at the subject's last token, and what the head reads at the end."""
    kept: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(path).register_forward_hook(
            lambda module, args, output: kept.update(key=args[0], output=output - (module.bias if has_bias else 0))
        ),
        model.get_output_embeddings().register_forward_hook(lambda module, args, output: kept.update(state=args[0])),
    ]
    has_bias = getattr(model.get_submodule(path), "bias", None) is not None
    text = fact.text()
    end = text.index(fact.subject) + len(fact.subject)
    subject = len(tokenizer(text[:end])["input_ids"]) - 1
    with torch.no_grad():
        model(torch.tensor([tokenizer(text)["input_ids"]]))
    for handle in handles:
        handle.remove()
    at_subject = [kept[name].reshape(-1, kept[name].shape[-1])[subject] for name in ("key", "output")]
    return tuple(tensor.double().numpy() for tensor in (*at_subject, kept["state"][0, -1]))


def compared(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    norms = np.linalg.norm(old), np.linalg.norm(new)
    return float(old @ new / norms[0] / norms[1]), float(norms[1] / norms[0] - 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_drift_is_what_the_two_models_show(tiny_model: Make, tiny_tokenizer: Tokenizer, family: str) -> None:
    model = enliven(tiny_model(family))
    layout = find_layout(model)
    layers = (1, 2)
    tuned = moved(model, "")
    before = fingerprint(model)
    names = [layout.mlp_out_weight[layer] for layer in layers]
    table = measure_drift(model, tiny_tokenizer, layout, FACTS, names, tuned)
    assert fingerprint(model) == before
    assert len(table) == len(FACTS) * (4 * len(layers) + 2) and set(table["quantity"]) == set(LABELS)
    other = enliven(tiny_model(family))
    with torch.no_grad():
        for name, weight in tuned.items():
            other.get_parameter(name).copy_(weight)
    for fact in FACTS:
        own = table[table["fact_id"] == fact.id].set_index(["quantity", "parameter"])[["cosine", "norm_change"]]
        for layer, name in zip(layers, names, strict=True):
            key, output, state = seen(model, tiny_tokenizer, fact, layout.mlp_out[layer])
            new_key, new_output, new_state = seen(other, tiny_tokenizer, fact, layout.mlp_out[layer])
            weights = [one.get_parameter(name).detach().double().numpy() for one in (model, other)]
            maps = [weight.T if layout.memory(0).in_out else weight for weight in weights]
            expected = {
                "key": compared(key, new_key),
                "output": compared(output, new_output),
                "output_by_weight": compared(output, maps[1] @ key),
                "output_by_key": compared(output, maps[0] @ new_key),
            }
            for quantity, values in expected.items():
                assert tuple(own.loc[(quantity, name)]) == pytest.approx(values, abs=1e-4)
        last = own[own.index.get_level_values("parameter").isna()].droplevel("parameter")
        assert tuple(last.loc["state"]) == pytest.approx(compared(state, new_state), abs=1e-4)
        token = tiny_tokenizer(f"{fact.text()} {fact.new_object}")["input_ids"][
            len(tiny_tokenizer(fact.text())["input_ids"])
        ]
        rows = [one.get_output_embeddings().weight[token].detach().double().numpy() for one in (model, other)]
        assert tuple(last.loc["head_row"]) == pytest.approx(compared(*rows), abs=1e-6)


def test_what_moved_tells_weights_from_keys(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    layout = find_layout(model)
    name = layout.mlp_out_weight[1]

    def cosines(*begins: str) -> dict[str, float]:
        table = measure_drift(model, tiny_tokenizer, layout, FACTS, [name], moved(model, *begins))
        return table.groupby("quantity")["cosine"].mean().to_dict()

    by_weight = cosines(name)
    assert by_weight["key"] == by_weight["output_by_key"] == by_weight["head_row"] == pytest.approx(1, abs=1e-12)
    assert by_weight["output"] == by_weight["output_by_weight"] < 0.999
    by_key = cosines("model.layers.0.")
    assert by_key["output_by_weight"] == by_key["head_row"] == pytest.approx(1, abs=1e-12)
    assert by_key["key"] < 0.999 and by_key["output"] == by_key["output_by_key"] < 0.999
    above = cosines("model.layers.3.")
    assert above["key"] == above["output"] == pytest.approx(1, abs=1e-12)
    assert above["state"] < 0.999


def test_keys_can_be_read_at_the_prompts_end(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    layout = find_layout(model)
    ends = [Fact("x", "Peru", "r", "The capital of {}", "Lima", "Oslo"), FACTS[0]]

    def keys(keys_at: str) -> list[float]:
        table = measure_drift(
            model,
            tiny_tokenizer,
            layout,
            ends,
            [layout.mlp_out_weight[2]],
            moved(model, "model.layers.0."),
            keys_at=keys_at,  # type: ignore[arg-type]
        )
        return table[table["quantity"] == "key"].set_index("fact_id")["cosine"].tolist()

    subject, prompt = keys("subject"), keys("prompt")
    assert subject[0] == prompt[0]  # the prompt ends in its subject
    assert subject[1] != prompt[1]


def test_edits_in_no_layer_have_their_read_out_only(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    layout = find_layout(model)
    edit = InContext(copies=1).edit(model, tiny_tokenizer, FACTS, layout=layout)
    tuned = moved(model, "model.layers.")
    bare = measure_drift(model, tiny_tokenizer, layout, FACTS, edit.parameters, tuned)
    table = measure_drift(model, tiny_tokenizer, layout, FACTS, edit.parameters, tuned, context=edit.context)
    assert set(table["quantity"]) == {"state", "head_row"} and table["layer"].isna().all()
    assert not table["cosine"].equals(bare["cosine"])


def test_weights_that_are_no_linear_map_have_no_key(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("gpt2")
    layout = find_layout(model)
    names = ["transformer.h.1.mlp.c_proj.bias", "transformer.h.1.ln_1.weight", "transformer.h.1.attn.c_proj.weight"]
    table = measure_drift(model, tiny_tokenizer, layout, FACTS, names, moved(model, "transformer.h."))
    assert set(table["parameter"].dropna()) == {"transformer.h.1.attn.c_proj.weight"}
    assert set(table["layer"].dropna()) == {1}


def test_turned_by_hand() -> None:
    old = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    new = torch.tensor([[6.0, 8.0], [0.0, 0.5], [1.0, 0.0]])
    cosine, change = turned(old, new)
    assert cosine[:2].tolist() == pytest.approx([1, 0]) and change[:2].tolist() == pytest.approx([1, -0.5])
    assert bool(cosine[2].isnan()) and bool(change[2].isnan())
