"""The quick value optimisation against a slow one that computes everything, one fact and one text at a time.

The slow one stands here, straight from the definition: whole texts, all layers, all logits, both step rules by hand.
Optimising with one step, two, three and so on gives the delta after every update, so that whole trajectories are
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from worked_facts import VARIED

from indelible.edits.solving.suffixes import Site
from indelible.edits.solving.texts import FactRows, Row, rows_for
from indelible.edits.solving.values import ValueOptions, Values, optimise_values
from indelible.edits.solving.views import shaken
from indelible.errors import EditError
from indelible.models.layout import find_layout
from tiny_families import ODD, TABLE, build_family, build_odd, enliven
from tiny_models import Make, Tokenizer
from untouched import untouched

OPTIONS = ValueOptions(steps=5, learning_rate=0.1, weight_decay=0.4, kl_weight=0.7, clamp=0.6, converged=0.0)
LEAVING = replace(OPTIONS, steps=10, converged=5.95, kl_weight=0.1, weight_decay=0.001, learning_rate=0.2, clamp=4.0)
NORMALISED = replace(OPTIONS, optimiser="normalised", learning_rate=0.2)
NORMALISED_LEAVING = replace(LEAVING, optimiser="normalised", learning_rate=0.04)
CONTEXTS = ("I rain in the north",)
SOME = [0, 1, 3, 14]  # nothing before the subject; a context; a long target; nothing after the subject


def test_a_loss_that_is_no_number_is_not_taken_for_converged(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    rows = [rows_for(tiny_tokenizer, fact, 0, CONTEXTS) for fact in VARIED[:2]]
    with pytest.raises(EditError, match=r"became nan at step 1.*kl_weight"):
        optimise_values(model, find_layout(model), 1, rows, replace(OPTIONS, kl_weight=float("inf")))


@dataclass(frozen=True)
class Trajectory:
    """One fact's deltas, ``(sites, hidden)`` at each evaluation of its loss, and the losses."""

    deltas: list[Tensor]
    losses: list[float]

    def at(self, steps: int) -> Tensor:
        """The delta when so many evaluations are allowed: the last one's, if it converged before."""
        return self.deltas[min(steps, len(self.deltas)) - 1]


def plain(
    model: PreTrainedModel, family: str, layer: int, texts: FactRows, options: ValueOptions, *others: PreTrainedModel
) -> Trajectory:
    """One fact's trajectory, each step in the next of the models; parts are looked up by the paths written by hand."""
    losses = [_loss(one, family, layer, texts, options) for one in (model, *others)]
    norms, width = losses[0].norms, losses[0].width
    deltas_so = torch.zeros(len(options.sites), width)
    mean, square = torch.zeros_like(deltas_so), torch.zeros_like(deltas_so)
    found, right = Trajectory([], []), 0
    for step in range(1, options.steps + 1):
        deltas_so.requires_grad_(True)
        loss = losses[(step - 1) % len(losses)].of(deltas_so)
        found.deltas.append(deltas_so.detach())
        found.losses.append(loss.item())
        right = right + 1 if loss.item() < options.converged else 0
        if right == len(losses) or step == options.steps:
            return found
        (slope,) = torch.autograd.grad(loss, deltas_so)
        with torch.no_grad():
            if options.optimiser == "adam":
                mean = 0.9 * mean + 0.1 * slope
                square = 0.999 * square + 0.001 * slope**2
                move = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
            else:
                lengths = [options.clamp * norm * min(loss.item(), 1) ** 0.5 for norm in norms]
                towards = [
                    length * part / part.norm().clamp_min(1e-12) for length, part in zip(lengths, slope, strict=True)
                ]
                move = mean = 0.5 * mean + torch.stack(towards)
            deltas_so = deltas_so - options.learning_rate * move
            for delta_o, norm in zip(deltas_so, norms, strict=True):
                if delta_o.norm() > options.clamp * norm:
                    delta_o *= options.clamp * norm / delta_o.norm()
    raise AssertionError("the last step returns")


@dataclass(frozen=True)
class Loss:
    """One fact's loss in one model, by its deltas, with the norms that these are measured in."""

    of: Callable[[Tensor], Tensor]
    norms: list[Tensor]
    width: int


def _loss(model: PreTrainedModel, family: str, layer: int, texts: FactRows, options: ValueOptions) -> Loss:
    if family in ODD:
        blocks, paths = ODD[family].blocks, {"mlp": ODD[family].memories[layer][0]}
    else:
        blocks, paths = TABLE[family].blocks, {"attention": TABLE[family].attention, "mlp": TABLE[family].mlp_out}
    block = model.get_submodule(f"{blocks}.{layer}")
    changed = [block.get_submodule(paths[site]) for site in options.sites]
    model.requires_grad_(False)

    def logits_of(row: Row, deltas_so: Tensor) -> Tensor:
        def add(delta_o: Tensor, _module: object, _args: object, output: Tensor | tuple[Tensor, ...]) -> object:
            first = output if isinstance(output, Tensor) else output[0]
            at = torch.zeros(len(row.tokens), 1)
            at[row.subject] = 1
            moved = first + (at * delta_o).view_as(first)
            return moved if isinstance(output, Tensor) else (moved, *output[1:])

        handles = [
            module.register_forward_hook(partial(add, delta_o))
            for module, delta_o in zip(changed, deltas_so, strict=True)
        ]
        try:
            return model(torch.tensor([row.tokens]), use_cache=False).logits[0].log_softmax(-1)
        finally:
            for handle in handles:
                handle.remove()

    kept: list[Tensor] = []
    measured = changed if options.reference == "site" else [block] * len(changed)
    handles = [
        module.register_forward_hook(
            lambda _module, _args, output: kept.append((output if isinstance(output, Tensor) else output[0]).clone())
        )
        for module in measured
    ]
    first = texts.rewrites[0]
    bare = first.tokens[: len(first.tokens) - first.target]
    with torch.no_grad():
        model(torch.tensor([bare]), use_cache=False)
    for handle in handles:
        handle.remove()
    # Attention runs before the MLP, so that what was kept stands in the order of the sites.
    norms = [output.reshape(len(bare), -1)[first.subject].norm() for output in kept]

    width = kept[0].shape[-1]
    before = logits_of(texts.essence, torch.zeros(len(options.sites), width))[-1].detach()

    def of(deltas_so: Tensor) -> Tensor:
        loss = torch.zeros(())
        for row in texts.rewrites:
            log_probs = logits_of(row, deltas_so)
            start = len(row.tokens) - row.target
            chosen = [log_probs[place - 1, row.tokens[place]] for place in range(start, len(row.tokens))]
            loss = loss - torch.stack(chosen).mean() / len(texts.rewrites)
        after = logits_of(texts.essence, deltas_so)[-1]
        loss = loss + options.kl_weight * (after.exp() * (after - before)).sum()
        for delta_o, norm in zip(deltas_so, norms, strict=True):
            loss = loss + options.weight_decay * delta_o.norm() / norm**2
        return loss

    return Loss(of, norms, width)


def rows_of_all(tokenizer: Tokenizer) -> list[FactRows]:
    """Bare, with a paraphrase, behind a context, or all of it; and some essences longer, which then come later."""
    rows = [
        rows_for(tokenizer, fact, number % 3 % 2, CONTEXTS if number % 2 else ()) for number, fact in enumerate(VARIED)
    ]
    longer = [replace(texts.essence, tokens=(*texts.essence.tokens, 7, 30)) for texts in rows]
    return [replace(texts, essence=longer[number]) if number % 4 == 0 else texts for number, texts in enumerate(rows)]


def compare(
    quick: Callable[[Sequence[FactRows], ValueOptions], Values],
    facts: Sequence[FactRows],
    plainly: Sequence[Trajectory],
    options: ValueOptions,
) -> None:
    """Hold the deltas after every update, the losses and the numbers of steps against the plain loop's."""
    for steps in range(1, options.steps + 1):
        values = quick(facts, replace(options, steps=steps))
        expected = torch.stack([trajectory.at(steps)[-1] for trajectory in plainly])
        torch.testing.assert_close(values.deltas_fo, expected, atol=1e-4, rtol=1e-4)
        taken = [min(steps, len(trajectory.losses)) for trajectory in plainly]
        assert values.steps_f.tolist() == taken
        losses = [trajectory.losses[count - 1] for trajectory, count in zip(plainly, taken, strict=True)]
        assert values.losses_f.tolist() == pytest.approx(losses, abs=1e-4, rel=1e-4)


@pytest.mark.parametrize(
    ("family", "layer"),
    [(family, layer) for family in ("gpt2", "llama") for layer in (0, 3)]
    + [(family, 1) for family in TABLE if family != "llama"],
)
def test_every_step_is_that_of_the_plain_loop(family: str, layer: int, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(build_family(family, len(tiny_tokenizer)))
    facts = [rows_of_all(tiny_tokenizer)[number] for number in SOME]
    for options in (OPTIONS, NORMALISED):
        plainly = [plain(model, family, layer, texts, options) for texts in facts]
        assert max(float(trajectory.deltas[-1].norm()) for trajectory in plainly) > 0.1
        compare(partial(optimise_values, model, find_layout(model), layer), facts, plainly, options)


@pytest.mark.parametrize(
    ("family", "options"),
    [("gemma2", OPTIONS), ("llama", NORMALISED_LEAVING)],
    ids=["adam, all steps", "normalised, facts leave"],
)
def test_steps_in_several_views_are_the_plain_loops_in_so_many_models(
    family: str, options: ValueOptions, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(build_family(family, len(tiny_tokenizer)))
    layout = find_layout(model)
    views = shaken(model, layout, [1], 0.2, 2, seed=0)
    others = []
    for view in (1, 2):
        with views.seen(view):
            others.append(deepcopy(model))
    facts = [rows_of_all(tiny_tokenizer)[number] for number in SOME]
    plainly = [plain(model, family, 1, texts, options, *others) for texts in facts]
    alone = [plain(model, family, 1, texts, options) for texts in facts]
    assert all(not torch.allclose(a.deltas[-1], b.deltas[-1], atol=1e-2) for a, b in zip(plainly, alone, strict=True))
    with untouched(model):
        compare(partial(optimise_values, model, layout, 1, views=views), facts, plainly, options)


@pytest.mark.parametrize(("family", "layer"), [("bamba", 1), ("mistral", 2), ("roberta", 1), ("gemma4_text", 0)])
def test_texts_are_read_whole_where_prefixes_cannot_be_kept(family: str, layer: int, tiny_tokenizer: Tokenizer) -> None:
    """Recurrent states, windows shorter than a prefix, positions from the padding on, states shared between layers."""
    model = build_odd(family, len(tiny_tokenizer))
    facts = [rows_of_all(tiny_tokenizer)[number] for number in (0, 1, 14)]
    plainly = [plain(model, family, layer, texts, OPTIONS) for texts in facts]
    compare(partial(optimise_values, model, find_layout(model), layer), facts, plainly, OPTIONS)


def test_a_value_that_reaches_no_prediction_is_refused(tiny_tokenizer: Tokenizer) -> None:
    """The upper layers attend to keys and values that the lower ones made before this one's memory."""
    model = build_odd("gemma4_text", len(tiny_tokenizer))
    with pytest.raises(EditError, match=r"layer 1 returns at subjects does not reach.*Edit a lower layer"):
        optimise_values(model, find_layout(model), 1, rows_of_all(tiny_tokenizer)[:2], OPTIONS)


@pytest.mark.parametrize(
    "options",
    [OPTIONS, LEAVING, NORMALISED, NORMALISED_LEAVING],
    ids=["adam, all steps", "adam, facts leave", "normalised, all steps", "normalised, facts leave"],
)
def test_one_two_and_sixteen_facts_take_the_same_steps(options: ValueOptions, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(build_family("llama", len(tiny_tokenizer)))
    facts = rows_of_all(tiny_tokenizer)
    plainly = [plain(model, "llama", 1, texts, options) for texts in facts]
    lengths = {len(trajectory.losses) for trajectory in plainly}
    assert len(lengths) > 3 if options.converged else lengths == {options.steps}
    quick = partial(optimise_values, model, find_layout(model), 1)
    compare(quick, facts, plainly, options)
    compare(quick, facts, plainly, replace(options, tokens_per_batch=40))
    for size in (1, 2):
        few = range(0, 16, 16 // (4 // size))
        for start in few:
            compare(quick, facts[start : start + size], plainly[start : start + size], options)


@pytest.mark.parametrize("family", TABLE)
def test_attention_and_mlp_are_optimised_together(family: str, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(build_family(family, len(tiny_tokenizer)))
    options = replace(OPTIONS, steps=4, sites=("attention", "mlp"), clamp=0.2)
    facts = [rows_of_all(tiny_tokenizer)[number] for number in SOME]
    plainly = [plain(model, family, 1, texts, options) for texts in facts]
    last = torch.stack([trajectory.deltas[-1] for trajectory in plainly])
    assert bool((last.norm(dim=-1) > 0.01).all())
    compare(partial(optimise_values, model, find_layout(model), 1), facts, plainly, options)
    alone = optimise_values(model, find_layout(model), 1, facts, replace(options, sites=("mlp",)))
    assert bool(((alone.deltas_fo - last[:, -1]).norm(dim=-1) > 0.01).any())


@pytest.mark.parametrize("sites", [("mlp",), ("attention", "mlp")])
@pytest.mark.parametrize(("family", "layer"), [("gpt2", 0), ("llama", 2), ("gemma2", 1), ("bloom", 1)])
def test_deltas_are_measured_against_the_site_where_that_is_asked(
    family: str, layer: int, sites: tuple[Site, ...], tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(build_family(family, len(tiny_tokenizer)))
    facts = [rows_of_all(tiny_tokenizer)[number] for number in SOME]
    quick = partial(optimise_values, model, find_layout(model), layer)
    options = replace(OPTIONS, sites=sites, reference="site", weight_decay=0.02, clamp=0.1)
    compare(quick, facts, [plain(model, family, layer, texts, options) for texts in facts], options)
    # Both the clamp and the weight decay are other numbers than in the block's units.
    clamped, decayed = replace(options, weight_decay=0.0), replace(options, clamp=1e6, weight_decay=10.0)
    lengths = [quick(facts, replace(clamped, reference=which)).deltas_fo.norm(dim=-1) for which in ("site", "block")]
    assert bool(((lengths[0] - lengths[1]).abs() > 0.01).any())
    losses = [quick(facts, replace(decayed, reference=which)).losses_f for which in ("site", "block")]
    assert bool(((losses[0] - losses[1]).abs() > 0.01).any())


def test_a_step_looks_at_the_device_once_beside_what_the_model_does(tiny_tokenizer: Tokenizer) -> None:
    """On a GPU every number that Python reads waits for all that was asked before."""
    model = enliven(build_family("llama", len(tiny_tokenizer)))
    facts = rows_of_all(tiny_tokenizer)[:6]
    for options, each in ((NORMALISED, 1), (OPTIONS, 2)):  # torch's Adam counts its steps in a tensor on the host
        few, more = (_reads(model, facts, replace(options, steps=steps)) for steps in (3, 7))
        assert more - few == 4 * each


def _reads(model: PreTrainedModel, facts: Sequence[FactRows], options: ValueOptions) -> int:
    """Numbers and whole tensors read by Python while these values are optimised, but for the model's own passes."""
    reads, inside = 0, False

    class Reads(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal reads
            whole = (Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.numpy)
            reads += func in whole and not inside
            return func(*args, **(kwargs or {}))

    def begins(*_seen: object) -> None:
        nonlocal inside
        inside = True

    def ends(*_seen: object) -> None:
        nonlocal inside
        inside = False

    handles = [model.register_forward_pre_hook(begins), model.register_forward_hook(ends, always_call=True)]
    try:
        with Reads():
            optimise_values(model, find_layout(model), 1, facts, options)
    finally:
        for handle in handles:
            handle.remove()
    return reads


def test_a_batch_that_does_not_fit_is_taken_in_halves(tiny_tokenizer: Tokenizer) -> None:
    model = enliven(build_family("llama", len(tiny_tokenizer)))
    facts = rows_of_all(tiny_tokenizer)[:6]
    expected = optimise_values(model, find_layout(model), 1, facts, OPTIONS)
    seen: list[tuple[int, int]] = []
    refused = 0

    def refuse(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal refused
        if torch.is_grad_enabled() and arguments[0][..., 0].numel() > 70:
            refused += 1
            raise torch.OutOfMemoryError

    handle = model.lm_head.register_forward_pre_hook(refuse)
    try:
        found = optimise_values(
            model, find_layout(model), 1, facts, OPTIONS, lambda done, total, _note: seen.append((done, total))
        )
        with pytest.raises(EditError, match=r"one fact in all its texts.*fewer contexts or paraphrases"):
            many = replace(facts[4], rewrites=facts[4].rewrites * 5)
            optimise_values(model, find_layout(model), 1, [many], OPTIONS)
    finally:
        handle.remove()
    assert refused > 1
    assert seen[-1] == (6 * OPTIONS.steps, 6 * OPTIONS.steps)
    assert not any(parameter.grad is not None for parameter in model.parameters())
    torch.testing.assert_close(found.deltas_fo, expected.deltas_fo, atol=1e-4, rtol=1e-4)
