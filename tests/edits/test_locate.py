"""Causal tracing against a plain pass for every restoration, and what is made of it."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_edits import bench_of
from torch import Tensor
from transformers import PreTrainedModel
from worked_facts import CORPUS, VARIED

from indelible.edits.deltas.weights import WeightUpdate
from indelible.edits.editor import EDITORS
from indelible.edits.tracing import trace
from indelible.edits.tracing.locate import choose_layers, located_layers, neighbours
from indelible.edits.tracing.trace import GROUPS, Traced, trace_facts
from indelible.edits.weight_editor import WeightEditor
from indelible.errors import EditError, LayoutError
from indelible.facts.fact import Fact
from indelible.models.fingerprint import Identity
from indelible.models.layout import find_layout
from indelible.models.tokens import encode_prompt, encode_target, subject_tokens
from tiny_families import ODD, TABLE, build_family, enliven
from tiny_models import Make, Tokenizer
from untouched import assert_same, bits, untouched


def known(model: PreTrainedModel, tokenizer: Tokenizer) -> list[Fact]:
    """Facts that this random model knows: whatever it says next is true."""
    found = []
    wordings = [(one.prompt, one.subject) for one in VARIED if one.prompt != "{}"]
    wordings += [(prompt, subject) for prompt, _ in wordings for subject in ("Denmark and Peru", "Zanzibar", "gold")]
    for number, (prompt, subject) in enumerate(wordings):
        if len(found) == 3:
            break
        tokens = encode_prompt(tokenizer, prompt.replace("{}", subject))
        with torch.no_grad():
            token = int(model(torch.tensor([tokens])).logits[0, -1].argmax())
        text = tokenizer.decode([token]).strip()
        if text and encode_target(tokenizer, prompt.replace("{}", subject), text)[0] == token:
            found.append(Fact(str(number), subject, "r", prompt, text))
    return found


def plain(model: PreTrainedModel, family: str, tokenizer: Any, fact: Fact, kind: str, layer: int, place: int) -> float:
    """One restoration by hooks on a whole pass, with the parts' paths written down by hand; window 1, one sample."""
    table = TABLE[family]
    tokens = torch.tensor([encode_prompt(tokenizer, fact.text())])
    path = f"{table.blocks}.{layer}"
    path += {"hidden": "", "mlp": f".{table.mlp_out}", "attention": f".{table.attention}"}[kind]
    kept: list[Tensor] = []

    def first(output: Any) -> Tensor:
        return output if isinstance(output, Tensor) else output[0]

    handle = model.get_submodule(path).register_forward_hook(lambda _m, _a, output: kept.append(first(output).clone()))
    model(tokens)
    handle.remove()
    begin, end = subject_tokens(tokenizer, fact.prompt, fact.subject)
    digest = hashlib.sha256(f"0 {fact.id}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    weight = model.get_input_embeddings().weight
    spread = model.get_input_embeddings()(torch.arange(len(weight))).std()  # Gemma scales after the look-up
    noise = 3.0 * float(spread) * torch.randn((1, end + 1 - begin, weight.shape[1]), generator=generator)

    def corrupt(_module: Any, _args: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, begin : end + 1] += noise
        return changed

    def put_back(_module: Any, _args: Any, output: Any) -> Any:
        changed = first(output).clone()
        shaped = changed.view(1, tokens.shape[1], -1)
        shaped[:, place] = kept[0].view(1, tokens.shape[1], -1)[:, place]
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    handles = [
        model.get_input_embeddings().register_forward_hook(corrupt),
        model.get_submodule(path).register_forward_hook(put_back),
    ]
    logits = model(tokens).logits[0, -1]
    for handle in handles:
        handle.remove()
    target = encode_target(tokenizer, fact.text(), fact.true_object)[0]
    return float(logits.softmax(-1)[target])


@pytest.mark.parametrize("family", TABLE)
def test_effects_are_those_of_plain_passes(family: str, tiny_tokenizer: Tokenizer) -> None:
    for seed in range(5):  # some random models only ever say what does not read back as one token
        model = enliven(build_family(family, len(tiny_tokenizer), seed))
        facts = known(model, tiny_tokenizer)
        if facts:
            break
    assert facts, "no fact to trace"
    with untouched(model):
        traced = trace_facts(model, tiny_tokenizer, find_layout(model), facts, samples=1, window=1)
    assert {one.fact_id for one in traced} == {fact.id for fact in facts}
    assert len({round(one.restored, 6) for one in traced}) > 10
    by_id = {fact.id: fact for fact in facts}
    with torch.no_grad():
        for one in traced[:: max(1, len(traced) // 40)]:
            expected = plain(model, family, tiny_tokenizer, by_id[one.fact_id], one.kind, one.layer, one.position)
            assert one.restored == pytest.approx(expected, abs=1e-5), one
    for one in traced:  # the last state of the last position is the whole answer
        if one.kind == "hidden" and one.layer == 3 and one.group == "last token":
            assert one.restored == pytest.approx(one.clean, abs=1e-5)


def test_samples_and_windows_and_groups(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    layout, facts = find_layout(model), known(model, tiny_tokenizer)
    settings: dict[str, Any] = {"samples": 3, "seed": 4}
    first = trace_facts(model, tiny_tokenizer, layout, facts, **settings)
    assert first == trace_facts(model, tiny_tokenizer, layout, facts, **settings)
    assert first != trace_facts(model, tiny_tokenizer, layout, facts, samples=3, seed=5)
    some = trace_facts(model, tiny_tokenizer, layout, facts, kinds=("mlp",), groups=(GROUPS[2],), **settings)
    same = [one for one in first if one.kind == "mlp" and one.group == GROUPS[2]]
    assert [(one.fact_id, one.layer) for one in some] == [(one.fact_id, one.layer) for one in same]
    assert [one.restored for one in some] == pytest.approx([one.restored for one in same], abs=1e-6)
    whole = trace_facts(model, tiny_tokenizer, replace(layout, resumes=False), facts, **settings)
    assert [one.restored for one in whole] == pytest.approx([one.restored for one in first], abs=1e-6)
    wide = trace_facts(model, tiny_tokenizer, layout, facts, kinds=("mlp",), window=8, **settings)
    # A window as wide as the model restores the same layers whatever its middle, as long as it reaches both ends.
    ends = {(one.fact_id, one.position): one.restored for one in wide if one.layer == 0}
    assert all(one.restored == pytest.approx(ends[one.fact_id, one.position], abs=1e-6) for one in wide)
    for fact in facts:
        groups = {one.position: one.group for one in first if one.fact_id == fact.id}
        begin, end = subject_tokens(tiny_tokenizer, fact.prompt, fact.subject)
        assert groups[end] == "last subject token"
        assert begin == end or groups[begin] == "first subject token"
        assert min(groups) == begin


def test_however_many_facts_are_of_one_length_no_pass_is_longer_than_it_may_be(
    tiny_model: Make, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = enliven(tiny_model("llama"))
    layout, one = find_layout(model), known(model, tiny_tokenizer)[0]
    facts = [replace(one, id=str(number)) for number in range(7)]
    whole = trace_facts(model, tiny_tokenizer, layout, facts, samples=2)
    most = 3 * 2 * len(encode_prompt(tiny_tokenizer, one.text()))
    monkeypatch.setattr(trace, "_TOKENS_PER_PASS", most)
    passes = list[int]()
    embedding = model.get_input_embeddings()
    with embedding.register_forward_hook(lambda _module, args, _output: passes.append(args[0].numel())):
        cut = trace_facts(model, tiny_tokenizer, layout, facts, samples=2)
    assert max(size for size in passes if size < len(embedding.weight)) == most
    assert [(each.fact_id, each.kind, each.layer, each.position) for each in cut] == [
        (each.fact_id, each.kind, each.layer, each.position) for each in whole
    ]
    assert [each.restored for each in cut] == pytest.approx([each.restored for each in whole], abs=1e-6)


def test_layers_end_at_the_peak_of_the_mlps_at_the_subject(tiny_model: Make) -> None:
    layout = find_layout(tiny_model("llama"))

    def traced(effects: list[float], kind: Any = "mlp", group: str = GROUPS[2]) -> list[Traced]:
        return [Traced("f", kind, layer, 0, group, 1.0, 0.0, effect) for layer, effect in enumerate(effects)]

    assert choose_layers(traced([0.1, 0.5, 0.9, 0.2]), layout, 2) == (1, 2)
    assert choose_layers(traced([0.9, 0.5, 0.3, 0.2]), layout, 2) == (0, 1)
    assert choose_layers(traced([0.1, 0.5, 0.3, 0.9]), layout, 1) == (2,)  # nothing of the last reaches a later token
    mixed = traced([0.1, 0.5, 0.3, 0.2]) + traced([0.0, 0.0, 0.0, 1.0], "attention") + traced([0, 0, 0, 1], group="x")
    assert choose_layers(mixed, layout, 1) == (1,)
    with pytest.raises(EditError, match="No MLP was traced"):
        choose_layers(traced([1.0], "hidden"), layout, 1)


def test_layers_without_a_memory_are_neither_traced_nor_chosen(tiny_tokenizer: Tokenizer) -> None:
    """Three dense layers under one of experts: only windows within the three can be chosen, wherever the peak is."""
    family = replace(ODD["deepseek_v3"], settings={**ODD["deepseek_v3"].settings, "first_k_dense_replace": 3})
    model = enliven(build_family("deepseek_v3", len(tiny_tokenizer), settings=family.settings))
    layout, facts = find_layout(model), known(model, tiny_tokenizer)
    assert set(layout.known_memories) == {0, 1, 2} and facts
    assert neighbours(layout, 2) == {0: (0, 1), 1: (0, 1), 2: (1, 2), 3: (1, 2)}
    assert neighbours(replace(layout, memories=("a", *layout.memories[1:])), 2) == {2: (1, 2), 3: (1, 2)}
    chosen = located_layers(bench_of(model, tiny_tokenizer, identity=Identity.of(model)), facts, 2)
    assert chosen in ((0, 1), (1, 2))
    traced = trace_facts(model, tiny_tokenizer, layout, facts, kinds=("mlp", "hidden"), window=1)
    assert {one.layer for one in traced if one.kind == "mlp"} == {0, 1, 2}
    assert {one.layer for one in traced if one.kind == "hidden"} == {0, 1, 2, 3}
    with pytest.raises(LayoutError, match=r"no 4 neighbours have a linear map to edit.*from 0, 1, 2"):
        neighbours(layout, 4)
    with pytest.raises(LayoutError, match="Layer 0 has no one linear map"):
        trace_facts(model, tiny_tokenizer, replace(layout, memories=("experts",) * 4), facts)


def test_layers_are_chosen_once_and_kept(tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = enliven(tiny_model("llama"))
    facts = known(model, tiny_tokenizer)
    calls: list[int] = []
    given = {"identity": Identity.of(model), "cache": tmp_path}
    bench = bench_of(model, tiny_tokenizer, **given, progress=lambda *_: calls.append(1))
    chosen = located_layers(bench, facts, 2)
    assert len(chosen) == 2 and len(calls) == len(facts)
    assert located_layers(bench, facts, 2) == chosen
    assert len(calls) == len(facts)
    (file,) = tmp_path.iterdir()
    whole = file.read_text()
    for content in (whole[:20], whole.replace("0.", "1.", 1), "[]"):
        file.write_text(content)
        assert located_layers(bench, facts, 2) == chosen and file.read_text() == whole
    located_layers(bench.model_copy(update={"identity": Identity("another", {})}), facts, 2)
    assert len(list(tmp_path.iterdir())) == 2


def test_facts_are_asked_until_sixteen_known_ones_are_found(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = enliven(tiny_model("llama"))
    one = known(model, tiny_tokenizer)[0]
    facts = [replace(one, id=f"known {number}") for number in range(20)]
    unknown = [replace(one, id=f"unknown {number}", true_object="Zanzibar") for number in range(30)]
    bench = bench_of(model, tiny_tokenizer, identity=Identity.of(model), cache=tmp_path)

    def traced(asked: list[Fact]) -> list[str]:
        before = set(tmp_path.iterdir())
        located_layers(bench, asked, 1)
        (file,) = set(tmp_path.iterdir()) - before
        return list(dict.fromkeys(entry["fact_id"] for entry in json.loads(file.read_text("utf-8"))["traced"]))

    assert traced([*unknown, *facts]) == [fact.id for fact in facts[:16]]
    assert traced([*unknown, *facts[4:]]) == [fact.id for fact in facts[4:]], "another question, another answer"
    with pytest.raises(EditError, match="answers none of all 30 facts"):
        located_layers(bench, unknown, 1)


def test_steps_choose_layers_and_leave_the_model_as_it_was(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    before = bits(model)
    facts = [replace(fact, new_object="gold") for fact in known(model, tiny_tokenizer)][:2]
    made = EDITORS.get("ft-m")(layer="auto", steps=2, edits_per_step=1)
    assert isinstance(made, WeightEditor)
    bench = bench_of(model, tiny_tokenizer, identity=Identity.of(model), seed=0)
    update = made.edit(model, tiny_tokenizer, facts)
    assert isinstance(update, WeightUpdate) and len(update.parameters) == 1
    (name,) = update.parameters
    with closing(made.in_steps(bench, [[fact] for fact in facts], 0)) as changes:
        seen = [(set(change.deltas), model.get_parameter(name).detach().clone()) for change in changes]
    assert [names for names, _ in seen] == [{name}, {name}], "auto is never every layer"
    assert not torch.equal(seen[0][1], seen[1][1])
    with update.applied(model):
        torch.testing.assert_close(model.get_parameter(name).detach(), seen[1][1], atol=1e-6, rtol=0)
    with closing(made.in_steps(bench, [[fact] for fact in facts], 0)) as changes:
        next(changes)
        assert not torch.equal(model.get_parameter(name), before[name]), "the model holds what has come so far"
    assert_same(before, model)


def test_one_block_with_a_norm_behind_its_memory_is_not_missed(tiny_model: Make) -> None:
    model = tiny_model("llama")
    assert find_layout(model).adds_to_residual
    layers: Any = model.get_submodule("model.layers")
    layers[2].mlp = torch.nn.Sequential(layers[2].mlp, torch.nn.LayerNorm(32))
    layout = find_layout(model)
    assert layout.mlp_out[2] == "model.layers.2.mlp.0.down_proj" and not layout.adds_to_residual


@pytest.mark.parametrize(
    ("name", "key"), [("memit", "layers"), ("rome", "layer"), ("ft-m", "layer"), ("lora", "layers")]
)
def test_editors_take_the_layers_that_tracing_chooses(
    name: str, key: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(tiny_model("llama"))
    layout = find_layout(model)
    facts = [Fact(f.id, f.subject, f.relation, f.prompt, f.true_object, "gold") for f in known(model, tiny_tokenizer)]
    options: dict[str, Any] = {"steps": 2}
    if name in ("memit", "rome"):
        options |= {"contexts": 0, "covariance_tokens": 600}
    made = EDITORS.get(name)(**options, **{key: "auto"})
    span = 1 if key == "layer" else len(EDITORS.get(name)().layers_in(layout))
    update = made.edit(model, tiny_tokenizer, facts[:1], corpus=CORPUS)
    layers = located_layers(bench_of(model, tiny_tokenizer, identity=Identity.of(model)), facts[:1], span)
    assert update.parameters == tuple(layout.mlp_out_weight[layer] for layer in layers)
    assert update.manifest.made[0].options[key] == (list(layers) if key == "layers" else layers[-1])
    unknown = [Fact("u", "Peru", "r", "The capital of {} is", "Zanzibar", "gold")]
    with pytest.raises(EditError, match=r"answers none of all 1 facts.*Give layers instead of auto"):
        made.edit(model, tiny_tokenizer, unknown, corpus=CORPUS)
