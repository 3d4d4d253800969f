"""The gradient editors against plain loops over single texts, and what adapters leave behind: nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_edits import assert_near, bench_of
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from worked_facts import CAPITALS, VARIED

from family.tiny import build
from indelible.edits.deltas.adapter import product
from indelible.edits.deltas.weights import Dense, LowRank, WeightUpdate, restored
from indelible.edits.editor import EDITORS, Workbench
from indelible.edits.editors.lora import Lora, adapted
from indelible.edits.solving.descent import GradientEditor
from indelible.edits.solving.texts import rows_for
from indelible.edits.weight_editor import Change
from indelible.errors import EditError
from indelible.facts.fact import Fact
from indelible.models.layout import find_layout
from indelible.models.trace import evaluating
from tiny_families import TABLE, build_family, enliven
from tiny_models import Make, Tokenizer
from untouched import untouched

ALL = ("ft", "ft-l", "ft-m", "lora")
SHORT: dict[str, dict[str, Any]] = {
    "ft": {"layer": 1},
    "ft-l": {"layer": 1, "bound": 4e-3},
    "ft-m": {"layer": 1},
    "lora": {"layers": (1, 2), "rank": 3, "alpha": 6},
}


def editor(name: str, **more: Any) -> Any:
    return EDITORS.get(name)(**{"steps": 4, "learning_rate": 3e-3, "stop_below": 0.0, **SHORT[name], **more})


def change(made: GradientEditor, bench: Workbench, facts: Sequence[Fact], paraphrases: int = 0) -> Change:
    return made.changer(bench, paraphrases).change(facts, {})


def full(found: Change | WeightUpdate, name: str) -> Tensor:
    """A difference in the precision in which it was computed."""
    delta = found.deltas[name]
    return delta.full if isinstance(delta, Dense) else delta.left @ delta.right


def in_double(family: str, tokenizer: Tokenizer) -> PreTrainedModel:
    """Rounding then hides no mistake: Adam's first steps are as large where a gradient is nothing but rounding."""
    return enliven(build_family(family, len(tokenizer))).double()


def plain_loss(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    facts: Sequence[Fact],
    paraphrases: int,
    weights: Mapping[str, Tensor],
    *,
    forced: bool,
) -> Tensor:
    """The mean over texts of the mean over an object's tokens, whole model and one text at a time."""
    losses = []
    for fact in facts:
        for row in rows_for(tokenizer, fact, paraphrases, ()).rewrites:
            prompt, target = list(row.tokens[: -row.target]), list(row.tokens[-row.target :])
            read = prompt + target if forced else prompt
            output = functional_call(model, dict(weights), (torch.tensor([read]),), {"use_cache": False})
            log_probs = output.logits[0].log_softmax(-1)
            at = range(len(prompt) - 1, len(read) - 1) if forced else [len(prompt) - 1] * len(target)
            losses.append(-sum(log_probs[place, token] for place, token in zip(at, target, strict=True)) / len(target))
    return torch.stack(losses).mean()


def adam(trained: list[Tensor], loss: Callable[..., Tensor], steps: int, rate: float, of: Sequence[Any] = ()) -> None:
    """Kingma and Ba's algorithm 1; the steps may be of losses of different things, in turns."""
    first, second = [torch.zeros_like(x) for x in trained], [torch.zeros_like(x) for x in trained]
    for step in range(1, steps + 1):
        given = [of[(step - 1) % len(of)]] if of else []
        for number, gradient in enumerate(torch.autograd.grad(loss(*given), trained)):
            first[number] = 0.9 * first[number] + 0.1 * gradient
            second[number] = 0.999 * second[number] + 0.001 * gradient**2
            towards = (first[number] / (1 - 0.9**step)) / ((second[number] / (1 - 0.999**step)).sqrt() + 1e-8)
            trained[number].data -= rate * towards


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom", "opt"])
@pytest.mark.parametrize("name", ["ft", "ft-m"])
def test_steps_are_those_of_a_plain_loop(name: str, family: str, layer: int, tiny_tokenizer: Tokenizer) -> None:
    model = in_double(family, tiny_tokenizer)
    bench = bench_of(model, tiny_tokenizer)
    weight = bench.layout.mlp_out_weight[layer]
    facts, old = VARIED[:6], model.get_parameter(weight).detach()
    for steps in (1, 4):
        found = full(change(editor(name, layer=layer, steps=steps, tokens_per_batch=40), bench, facts, 1), weight)
        difference = torch.zeros_like(old, requires_grad=True)

        def loss(difference: Tensor = difference) -> Tensor:
            weights = {weight: old + difference}
            return plain_loss(model, tiny_tokenizer, facts, 1, weights, forced=name == "ft-m")

        adam([difference], loss, steps, 3e-3)
        assert difference.abs().max() > 2.9e-3
        torch.testing.assert_close(found, difference.detach(), atol=1e-7, rtol=1e-5)


def test_a_step_may_be_of_so_many_texts(tiny_tokenizer: Tokenizer) -> None:
    """Four facts to a step, then the two that are left: the published code's loop, with its 64 made small."""
    model = in_double("llama", tiny_tokenizer)
    bench = bench_of(model, tiny_tokenizer)
    weight = bench.layout.mlp_out_weight[1]
    old = model.get_parameter(weight).detach()
    found = full(change(editor("ft", steps=2, texts_per_step=4, tokens_per_batch=40), bench, VARIED[:6]), weight)
    difference = torch.zeros_like(old, requires_grad=True)

    def loss(facts: Sequence[Fact]) -> Tensor:
        return plain_loss(model, tiny_tokenizer, facts, 0, {weight: old + difference}, forced=False)

    adam([difference], loss, 4, 3e-3, of=[VARIED[:4], VARIED[4:6]])
    torch.testing.assert_close(found, difference.detach(), atol=1e-7, rtol=1e-5)
    # A piece below the limit takes no step, though the other does.
    difference.data.zero_()
    losses = [float(loss(piece).detach()) for piece in (VARIED[:4], VARIED[4:6])]
    limit = sum(losses) / 2
    once = full(change(editor("ft", steps=1, texts_per_step=4, stop_below=limit), bench, VARIED[:6]), weight)
    assert once.abs().max() == pytest.approx(3e-3, rel=1e-3), "Adam's first step, and only one of the two"


@pytest.mark.parametrize("target", ["memory", "all-linear"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_adapters_take_the_steps_of_a_plain_loop(family: str, target: str, tiny_tokenizer: Tokenizer) -> None:
    """From the factors at which peft's adapters start, with the products that they stand for."""
    model = in_double(family, tiny_tokenizer)
    bench = bench_of(model, tiny_tokenizer, seed=3)
    made = editor("lora", target=target)
    found = change(made, bench, VARIED[:3])
    paths = made.modules_in(model, bench.layout)
    assert list(found.deltas) == [f"{path}.weight" for path in paths]
    with adapted(model, paths, 3, 6, 3) as adapters:
        starts = [adapter.lora_A["default"].weight.detach().clone() for adapter in adapters.values()]
        widths = [adapter.lora_B["default"].weight.shape[0] for adapter in adapters.values()]
    model.requires_grad_(False)
    trained = [start.requires_grad_(True) for start in starts]
    trained += [torch.zeros(width, 3, dtype=torch.float64, requires_grad=True) for width in widths]

    def weights() -> dict[str, Tensor]:
        pairs = zip(paths, trained[: len(paths)], trained[len(paths) :], strict=True)
        products = {path: 2.0 * second @ first for path, first, second in pairs}
        turned = {path: isinstance(model.get_submodule(path), Conv1D) for path in paths}
        return {
            f"{path}.weight": model.get_parameter(f"{path}.weight") + (product.T if turned[path] else product)
            for path, product in products.items()
        }

    def loss() -> Tensor:
        return plain_loss(model, tiny_tokenizer, VARIED[:3], 0, weights(), forced=True)

    adam(trained, loss, 4, 3e-3)
    for name, expected in weights().items():
        difference = (expected - model.get_parameter(name)).detach()
        assert difference.abs().max() > 1e-4
        torch.testing.assert_close(full(found, name), difference, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_neither_batches_nor_the_order_of_facts_change_the_result(name: str, tiny_tokenizer: Tokenizer) -> None:
    bench = bench_of(in_double("llama", tiny_tokenizer), tiny_tokenizer, seed=0)
    expected = change(editor(name, tokens_per_batch=100_000), bench, VARIED, 1)
    for tokens in (1, 60):
        found = change(editor(name, tokens_per_batch=tokens), bench, VARIED, 1)
        for parameter in expected.deltas:
            torch.testing.assert_close(full(found, parameter), full(expected, parameter), atol=1e-9, rtol=1e-6)
    turned = change(editor(name, tokens_per_batch=60), bench, VARIED[::-1], 1)
    assert all(torch.equal(full(found, parameter), full(turned, parameter)) for parameter in found.deltas)


def test_the_bound_is_never_exceeded_and_met_where_ft_would_exceed_it(
    tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(tiny_model("qwen3"))
    bench = bench_of(model, tiny_tokenizer)
    name = bench.layout.mlp_out_weight[1]
    for steps in range(1, 6):
        found = full(change(editor("ft-l", steps=steps, bound=5e-3), bench, CAPITALS), name)
        assert found.abs().max() <= torch.tensor(5e-3)
    assert (found.abs() == 5e-3).float().mean() > 0.05
    assert (found.abs() < 4.9e-3).any()
    # After one step, which is taken from the same place, it is exactly FT cut off at the bound.
    free = full(change(editor("ft", steps=1), bench, CAPITALS), name)
    bounded = full(change(editor("ft-l", steps=1, bound=2e-3), bench, CAPITALS), name)
    assert (free.abs() > 2e-3).any()
    assert torch.equal(bounded, free.clamp(-2e-3, 2e-3))
    # A bound that is never met changes nothing.
    assert torch.equal(
        full(change(editor("ft-l", bound=1.0), bench, CAPITALS), name),
        full(change(editor("ft"), bench, CAPITALS), name),
    )


@pytest.mark.parametrize("family", TABLE)
def test_the_update_computes_what_peft_computes(family: str, tiny_tokenizer: Tokenizer) -> None:
    """With adapters in place, with peft's own merging, and with our factors added: the same logits."""
    from peft import LoraConfig, get_peft_model

    model = enliven(build_family(family, len(tiny_tokenizer)))
    paths = Lora(layers=(0, 2), target="all-linear").modules_in(model, find_layout(model))
    assert len(paths) >= 8
    tokens = torch.arange(1, 25).view(2, 12)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        before = model(tokens).logits
        with untouched(model), evaluating(model), adapted(model, paths, 3, 6, 0) as adapters:
            for adapter in adapters.values():
                second = adapter.lora_B["default"].weight
                second.copy_(0.3 * torch.randn(second.shape, generator=generator))
            attached = model(tokens).logits
            update = WeightUpdate({f"{path}.weight": product(adapter) for path, adapter in adapters.items()}, {})
        with update.installed(model):
            added = model(tokens).logits
        with restored(model, update.parameters):
            transposed = isinstance(model.get_submodule(paths[0]), Conv1D)
            config = LoraConfig(r=3, lora_alpha=6, target_modules=list(paths), fan_in_fan_out=transposed)
            wrapped = get_peft_model(model, config)
            for path in paths:
                layer, delta = model.get_submodule(path), update.deltas[f"{path}.weight"]
                assert isinstance(delta, LowRank)
                second, first = (delta.right.T, delta.left.T) if transposed else (delta.left, delta.right)
                layer.lora_A["default"].weight.copy_(first)
                layer.lora_B["default"].weight.copy_(second / 2)
            merged = wrapped.merge_and_unload()(tokens).logits
    scale = float(attached.abs().max())
    assert (attached - before).abs().max() > 1e-2 * scale
    for found in (added, merged):
        torch.testing.assert_close(found, attached, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("target", ["memory", "all-linear"])
@pytest.mark.parametrize("rank", [1, 3])
def test_adapters_have_their_rank_and_leave_nothing_behind(
    rank: int, target: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(tiny_model("gpt2"))
    model.peft_config = {"another": "'s"}
    modules, attributes = {name: id(module) for name, module in model.named_modules()}, dict(model.__dict__)
    made = editor("lora", rank=rank, target=target, edits_per_step=1)
    with untouched(model):
        update = made.edit(model, tiny_tokenizer, CAPITALS[:2])
    assert {name: id(module) for name, module in model.named_modules()} == modules
    assert model.__dict__.keys() == attributes.keys() and model.peft_config == {"another": "'s"}
    assert len(update.deltas) == (2 if target == "memory" else 8)
    one = editor("lora", rank=rank, target=target).edit(model, tiny_tokenizer, CAPITALS[:1])
    for name, delta in one.deltas.items():
        assert isinstance(delta, LowRank) and delta.left.shape[1] == rank
        assert torch.linalg.matrix_rank(delta.difference()) == rank
        assert delta.difference().shape == model.get_parameter(name).shape


@pytest.mark.parametrize("name", ALL)
def test_edits_in_steps_are_made_one_on_the_other(name: str, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    more = {"target": "all-linear"} if name == "lora" else {}
    made = editor(name, **more)
    facts = CAPITALS[:3]
    with untouched(model):
        steps = editor(name, edits_per_step=2, **more).edit(model, tiny_tokenizer, facts, paraphrases=1)
    first = made.edit(model, tiny_tokenizer, facts[:2], paraphrases=1)
    with first.applied(model):
        second = made.edit(model, tiny_tokenizer, facts[2:], paraphrases=1)
    for parameter in steps.deltas:
        wanted = full(first, parameter) + full(second, parameter)
        torch.testing.assert_close(full(steps, parameter), wanted, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_training_stops_as_soon_as_the_loss_is_small(name: str, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model, forced = enliven(tiny_model("llama")), name in ("ft-m", "lora")
    seen: list[int] = []

    def loss_after(**more: Any) -> float:
        seen.clear()
        made = editor(name, **{"learning_rate": 0.01, **({"bound": 1.0} if name == "ft-l" else {}), **more})
        update = made.edit(model, tiny_tokenizer, CAPITALS[:1], progress=lambda done, _total, _note: seen.append(done))
        with update.applied(model), torch.no_grad():
            return float(plain_loss(model, tiny_tokenizer, CAPITALS[:1], 0, {}, forced=forced))

    limit = 3.0 if forced else 4.0
    assert loss_after(steps=60, stop_below=limit) < limit
    evaluations = len(seen)
    assert 3 < evaluations < 60
    assert loss_after(steps=evaluations - 2) >= limit
    untrained = loss_after(steps=60, stop_below=1e6)
    assert seen == [1]
    assert untrained == float(plain_loss(model, tiny_tokenizer, CAPITALS[:1], 0, {}, forced=forced))
    loss_after(steps=60)
    assert len(seen) == 60


def test_all_layers_are_run_where_none_can_be_skipped(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    layout = find_layout(model)
    quick, whole = (
        editor("ft-m", layer=1, steps=3).edit(model, tiny_tokenizer, CAPITALS, layout=one)
        for one in (layout, replace(layout, resumes=False))
    )
    assert_near(whole, quick)


def test_a_rate_that_blows_up_is_refused(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    with untouched(model), pytest.raises(EditError, match=r"loss is (nan|inf) after \d+ steps.*lower learning_rate"):
        editor("ft-m", learning_rate=3e37).edit(model, tiny_tokenizer, CAPITALS)


def test_a_rank_beyond_the_matrix_is_refused(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    most = min(model.get_parameter("model.layers.1.mlp.down_proj.weight").shape)
    with untouched(model), pytest.raises(EditError, match=rf"at most rank {most}.*Give a rank up to {most}"):
        editor("lora", layers=(1,), rank=most + 1).edit(model, tiny_tokenizer, CAPITALS)
    editor("lora", layers=(1,), rank=most, steps=1).edit(model, tiny_tokenizer, CAPITALS)


@pytest.mark.parametrize(("name", "target"), [("deepseek_v3", "memory"), ("mamba", "all-linear")])
def test_adapters_are_put_where_peft_would_rename_or_refuse(name: str, target: str, tiny_tokenizer: Tokenizer) -> None:
    model = build(name, len(tiny_tokenizer))
    options: dict[str, Any] = {"layers": (0,), "target": target, "rank": 1, "steps": 2}
    with untouched(model):
        update = EDITORS.get("lora")(**options).edit(model, tiny_tokenizer, CAPITALS[:1])
    mixer = {f"backbone.layers.0.mixer.{part}_proj.weight" for part in ("in", "x", "dt", "out")}
    assert set(update.parameters) == ({"model.layers.0.mlp.down_proj.weight"} if target == "memory" else mixer)
    assert isinstance(update, WeightUpdate)
    changed = {name for name, delta in update.deltas.items() if bool(delta.difference().any())}
    assert mixer - changed == ({"backbone.layers.0.mixer.dt_proj.weight"} if target != "memory" else mixer)  # read bare
