"""The quick value optimisation against a slow one that computes everything, one fact and one text at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from worked_facts import VARIED

from indelible.edits.values import ValueOptions, optimise_values
from indelible.edits.wordings import FactRows, Row, rows_for
from indelible.models.layout import find_layout
from tiny_families import TABLE, build_family, enliven

OPTIONS = ValueOptions(steps=5, learning_rate=0.1, weight_decay=0.4, kl_weight=0.7, clamp=0.6, converged=0.0)
CONTEXTS = ("I rain in the north",)
CASES = [(family, layer) for family in ("gpt2", "llama") for layer in (0, 1, 3)] + [
    (family, 1) for family in ("gpt_neox", "qwen2", "qwen3", "opt", "bloom", "gptj", "gemma2", "olmo2")
]


def plain(
    model: PreTrainedModel, block: nn.Module, memory: nn.Module, texts: FactRows, options: ValueOptions
) -> tuple[Tensor, int]:
    """One fact's delta and its number of steps, straight from the definition of the loss and of Adam."""

    def logits_of(row: Row, delta: Tensor) -> Tensor:
        def add(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
            at = torch.zeros(1, len(row.tokens), 1)
            at[0, row.subject] = 1
            return output + at * delta

        handle = memory.register_forward_hook(add)
        try:
            return model(torch.tensor([row.tokens]), use_cache=False).logits[0].log_softmax(-1)
        finally:
            handle.remove()

    kept: list[Tensor] = []
    handle = block.register_forward_hook(
        lambda _module, _args, output: kept.append(output if isinstance(output, Tensor) else output[0])
    )
    first = texts.rewrites[0]
    bare = first.tokens[: len(first.tokens) - first.target]
    with torch.no_grad():
        model(torch.tensor([bare]), use_cache=False)
    handle.remove()
    norm = kept[0][0, first.subject].norm()

    delta = torch.zeros(kept[0].shape[-1])
    before = logits_of(texts.essence, delta)[-1].detach()
    mean, square = torch.zeros_like(delta), torch.zeros_like(delta)
    for step in range(1, options.steps + 1):
        delta.requires_grad_(True)
        loss = torch.zeros(())
        for row in texts.rewrites:
            log_probs = logits_of(row, delta)
            start = len(row.tokens) - row.target
            chosen = [log_probs[place - 1, row.tokens[place]] for place in range(start, len(row.tokens))]
            loss = loss - torch.stack(chosen).mean() / len(texts.rewrites)
        after = logits_of(texts.essence, delta)[-1]
        loss = loss + options.kl_weight * (after.exp() * (after - before)).sum()
        loss = loss + options.weight_decay * delta.norm() / norm**2
        if loss.item() < options.converged or step == options.steps:
            return delta.detach(), step
        (slope,) = torch.autograd.grad(loss, delta)
        with torch.no_grad():
            mean = 0.9 * mean + 0.1 * slope
            square = 0.999 * square + 0.001 * slope**2
            move = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
            delta = delta - options.learning_rate * move
            if delta.norm() > options.clamp * norm:
                delta = delta * options.clamp * norm / delta.norm()
    raise AssertionError("the last step returns")


def rows_of_all(tokenizer: PreTrainedTokenizerFast) -> list[FactRows]:
    """Bare, with a paraphrase, behind a context, or all of it; and some essences longer, which then come later."""
    rows = [
        rows_for(tokenizer, fact, number % 3 % 2, CONTEXTS if number % 2 else ()) for number, fact in enumerate(VARIED)
    ]
    longer = [replace(texts.essence, tokens=(*texts.essence.tokens, 7, 30)) for texts in rows]
    return [replace(texts, essence=longer[number]) if number % 4 == 0 else texts for number, texts in enumerate(rows)]


def plain_values(
    model: PreTrainedModel, family: str, layer: int, facts: Sequence[FactRows], options: ValueOptions
) -> tuple[Tensor, list[int]]:
    """The slow reference for several facts; parts are looked up by the paths written down by hand."""
    block = model.get_submodule(f"{TABLE[family].blocks}.{layer}")
    memory = block.get_submodule(TABLE[family].mlp_out)
    model.requires_grad_(False)
    results = [plain(model, block, memory, texts, options) for texts in facts]
    return torch.stack([delta for delta, _ in results]), [steps for _, steps in results]


@pytest.mark.parametrize(("family", "layer"), CASES)
def test_deltas_are_those_of_the_plain_loop(family: str, layer: int, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = enliven(build_family(family, len(tiny_tokenizer)))
    layout = find_layout(model)
    facts = rows_of_all(tiny_tokenizer)
    some = [0, 1, 3, 5, 7, 14]
    expected, steps = plain_values(model, family, layer, [facts[index] for index in some], OPTIONS)
    together = optimise_values(model, layout, layer, facts, OPTIONS)
    assert expected.norm(dim=-1).max() > 0.1
    torch.testing.assert_close(together.deltas_fo[some], expected, atol=1e-4, rtol=1e-4)
    assert together.steps_f.tolist() == [OPTIONS.steps] * 16
    assert steps == [OPTIONS.steps] * len(some)
    for chosen in ([0], [3, 0]):
        few = optimise_values(model, layout, layer, [facts[index] for index in chosen], OPTIONS)
        torch.testing.assert_close(few.deltas_fo, together.deltas_fo[chosen], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("family", "layer"), [("gpt2", 0), ("llama", 1)])
def test_facts_leave_when_they_have_converged(family: str, layer: int, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = enliven(build_family(family, len(tiny_tokenizer)))
    facts = rows_of_all(tiny_tokenizer)
    options = replace(
        OPTIONS, steps=10, converged=5.95, kl_weight=0.1, weight_decay=0.001, learning_rate=0.2, clamp=4.0
    )
    expected, steps = plain_values(model, family, layer, facts[:8], options)
    assert len(set(steps)) > 1 and max(steps) == options.steps
    for tokens in (8192, 40):  # all together, and in batches of a few facts
        values = optimise_values(model, find_layout(model), layer, facts[:8], replace(options, tokens_per_batch=tokens))
        assert values.steps_f.tolist() == steps
        torch.testing.assert_close(values.deltas_fo, expected, atol=1e-4, rtol=1e-4)
        left = [loss < options.converged for loss in values.losses_f.tolist()]
        assert left == [number < options.steps for number in steps]


def test_deltas_stay_within_the_clamp(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = enliven(build_family("llama", len(tiny_tokenizer)))
    facts = rows_of_all(tiny_tokenizer)[:4]
    options = replace(OPTIONS, clamp=0.05)
    expected, _ = plain_values(model, "llama", 1, facts, options)
    values = optimise_values(model, find_layout(model), 1, facts, options)
    torch.testing.assert_close(values.deltas_fo, expected, atol=1e-5, rtol=1e-4)
    free = optimise_values(model, find_layout(model), 1, facts, replace(OPTIONS, clamp=100.0))
    assert bool((values.deltas_fo.norm(dim=-1) < 0.9 * free.deltas_fo.norm(dim=-1)).all())


def test_progress_counts_up_to_all_steps_of_all_facts(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = enliven(build_family("gpt2", len(tiny_tokenizer)))
    facts = rows_of_all(tiny_tokenizer)[:6]
    seen: list[tuple[int, int]] = []
    options = replace(OPTIONS, converged=6.0, tokens_per_batch=60)
    optimise_values(model, find_layout(model), 1, facts, options, lambda done, total, _note: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {len(facts) * options.steps}
    assert seen[-1][0] == len(facts) * options.steps
