"""Editors in one family: the closed form, its keys and values, and FT-M's first step, from plain passes in float64.

What an editor made is recomputed here from its published formula: values by Adam over whole passes with a hook that
adds to what the memory returns at the subject's last token, keys and covariances by hooks, the solution by algebra.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from family.plain import Off, as_it_stands, changed_at, differences, log_probs, logits_tv, seen_at
from indelible.edits.editor import EDITORS
from indelible.facts.fact import Fact
from indelible.models.layout import Layout, find_layout

FACTS = (
    Fact(
        *("1", "France", "capital", "The capital of {} is", "Paris", "Lima in Peru"),
        paraphrases=("While it rains in the north of Japan and the fox is in Spain, the capital city of {} is",),
    ),
    Fact(
        *("2", "gold", "symbol", "What is the chemical symbol of {}? The answer is", "Au", "Portuguese"),
        paraphrases=("We write {} as",),
    ),
)
VALUES = {"steps": 10, "contexts": 0, "clamp": 4.0, "kl_weight": 0.0, "weight_decay": 0.0, "converged": 0.0}
"""Without the terms that only keep values small, and short: the formula is what is held here."""
RATE = 0.1
LAMBDA = 0.01
CLOSE = 2e-2
"""Of the norm of an update: Adam's first steps are signs, and a gradient near zero may round to either."""


@dataclass(frozen=True)
class Text:
    """A wording in tokens: the prompt, where its subject ends, and the new object."""

    prompt: list[int]
    subject: int
    target: list[int]


def texts_of(tokenizer: Any, fact: Fact, paraphrases: int) -> list[Text]:
    found = []
    for template in (fact.prompt, *fact.paraphrases[:paraphrases]):
        upto = template[: template.index("{}")] + fact.subject
        prompt = tokenizer(template.replace("{}", fact.subject))["input_ids"]
        target = tokenizer(f" {fact.new_object}", add_special_tokens=False)["input_ids"]
        found.append(Text(prompt, len(tokenizer(upto)["input_ids"]) - 1, target))
    return found


def corpus(words: int = 1500) -> list[str]:
    drawn = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "en", "i", "or", "u", "est")]
    return [" ".join("".join(drawn.choices(syllables, k=drawn.randint(1, 3))) for _ in range(words)) for _ in range(2)]


def rome(model: Any, tokenizer: Any) -> str:
    (layer,) = _layers(model, 1)
    return _closed_form(model, tokenizer, "rome", FACTS[:1], 0, {"layer": layer}, (layer,))


def memit(model: Any, tokenizer: Any) -> str:
    layers = _layers(model, 2)
    return _closed_form(model, tokenizer, "memit", FACTS, 1, {"layers": layers, "covariance_weight": LAMBDA}, layers)


def _layers(model: Any, count: int) -> tuple[int, ...]:
    """So many layers, in the middle where those have a memory."""
    known = find_layout(model).known_memories
    return tuple(sorted(sorted(known, key=lambda layer: (layer == 0, layer))[:count])) or (1,)


def _closed_form(
    model: Any, tokenizer: Any, name: str, facts: Sequence[Fact], paraphrases: int, options: Any, layers: Sequence[int]
) -> str:
    layout = find_layout(model)
    tokens = 8 * layout.key_width
    published = {"optimiser": "adam", "learning_rate": RATE, "bystander_weight": 0}
    editor = EDITORS.get(name)(**VALUES, **published, covariance_tokens=tokens, **options)
    before = as_it_stands(model)
    edit = editor.edit(model, tokenizer, facts, paraphrases=paraphrases, corpus=corpus())
    _same(before, model, "making the edit")
    layers = layers if all(layout.memory(layer).adds_to_residual for layer in layers) else layers[-1:]
    texts = [texts_of(tokenizer, fact, paraphrases) for fact in facts]
    expected = _expected(model, tokenizer, layout, name, layers, texts, tokens)
    found = _differences_in(model, edit, before)
    if {*found} != {*expected}:
        raise Off(f"changes {sorted(found)}, not {sorted(expected)}")
    for parameter, change in expected.items():
        off = float((found[parameter] - change).norm() / change.norm())
        if not off < CLOSE:
            raise Off(f"{parameter}: {off:.3f} of its norm from the formula")
    gained = _gained(model, edit, [text for fact in texts for text in fact], before)
    return f"{gained:+.2f} nats a token"  # of so small a model that all else that reads the memory counts, too


def _expected(
    model: Any,
    tokenizer: Any,
    layout: Layout,
    name: str,
    layers: Sequence[int],
    texts: Sequence[list[Text]],
    tokens: int,
) -> dict[str, Tensor]:
    """The update by its formula, float64, in the parameters' own orientation."""
    top = layers[-1]
    deltas = [_value(model, layout, top, fact, VALUES, of_block=name == "memit") for fact in texts]
    columns = [(text, delta, len(fact) ** -0.5) for fact, delta in zip(texts, deltas, strict=True) for text in fact]
    found: dict[str, Tensor] = {}
    wanted: list[Tensor] = []
    with torch.no_grad(), ExitStack() as stack:
        moments = {layer: _moment(model, tokenizer, layout.memory(layer).path, tokens) for layer in layers}
        for place, layer in enumerate(layers):
            keys, states = [], []
            for text, _, _ in columns:
                with seen_at(model, layout.memory(layer).path) as memory, seen_at(model, layout.blocks[top]) as block:
                    logits_tv(model, text.prompt)
                keys.append(_rows(memory["in"])[text.subject])
                states.append(_rows(block["out"])[text.subject])
            wanted = wanted or [state + delta for state, (_, delta, _) in zip(states, columns, strict=True)]
            shares = torch.tensor([share for _, _, share in columns]).double()
            keys_dn = torch.stack(keys, 1).double() * shares
            missing = [want - state for want, state in zip(wanted, states, strict=True)]
            residual_on = torch.stack(missing, 1).double() / (len(layers) - place) * shares
            if name == "rome":
                solved_dn = torch.linalg.solve(moments[layer], keys_dn)
                change_od = residual_on @ torch.linalg.inv(keys_dn.T @ solved_dn) @ solved_dn.T
            else:
                system_dd = LAMBDA * moments[layer] + keys_dn @ keys_dn.T
                change_od = torch.linalg.solve(system_dd, keys_dn @ residual_on.T).T
            weight = model.get_submodule(layout.memory(layer).path).weight
            in_out = isinstance(model.get_submodule(layout.memory(layer).path), Conv1D)
            found[f"{layout.memory(layer).path}.weight"] = change_od.T if in_out else change_od
            kept = weight.data.clone()
            stack.callback(lambda weight=weight, kept=kept: weight.data.copy_(kept))
            weight.data += found[f"{layout.memory(layer).path}.weight"].float()
    return found


def _value(model: Any, layout: Layout, layer: int, texts: Sequence[Text], options: Any, *, of_block: bool) -> Tensor:
    """The change of what the layer's memory returns at the subject: Adam on the mean loss of the wordings' objects."""
    with torch.no_grad(), seen_at(model, layout.blocks[layer] if of_block else layout.memory(layer).path) as seen:
        logits_tv(model, texts[0].prompt)
        longest = options["clamp"] * float(_rows(seen["out"])[texts[0].subject].norm())
    delta = torch.zeros(layout.hidden_size, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=RATE)
    for _ in range(options["steps"] - 1):  # the last of the steps only looks at the loss
        loss = torch.zeros(()).double()
        for text in texts:
            with changed_at(model, layout.memory(layer).path, _added_at(text, delta)):
                loss = loss - log_probs(model, text.prompt, text.target).mean() / len(texts)
        (delta.grad,) = torch.autograd.grad(loss, [delta])
        optimiser.step()
        with torch.no_grad():
            delta *= min(1.0, longest / float(delta.norm()))
    return delta.detach()


def _added_at(text: Text, delta: Tensor) -> Callable[[Tensor], Tensor]:
    """Adds the delta where the text's subject ends."""
    here = torch.zeros(len(text.prompt) + len(text.target), 1)
    here[text.subject] = 1
    return lambda output: output + (here * delta).view(output.shape)


def _moment(model: Any, tokenizer: Any, memory: str, tokens: int) -> Tensor:
    """Second moment of a memory's keys over rows of 128 tokens of text, but for the first of each."""
    stream = [token for text in corpus() for token in tokenizer(text)["input_ids"]][: tokens // 128 * 128]
    found = []
    for start in range(0, len(stream), 128):
        with seen_at(model, memory) as seen:
            logits_tv(model, stream[start : start + 128])
        found.append(_rows(seen["in"])[1:].double())
    keys = torch.cat(found)
    moment = keys.T @ keys / len(keys)
    silent = moment.diagonal() == 0  # units that never fire count as the rarest of those that do
    moment.diagonal()[silent] = moment.diagonal()[~silent].min()
    return moment


def ft_m(model: Any, tokenizer: Any) -> str:
    layout = find_layout(model)
    (layer,) = _layers(model, 1)
    path = layout.memory(layer).path
    before = as_it_stands(model)
    one = EDITORS.get("ft-m")(layer=layer, steps=1, learning_rate=0.01)
    edit = one.edit(model, tokenizer, FACTS, paraphrases=1)
    _same(before, model, "making the edit")
    found = _differences_in(model, edit, before)
    weight = model.get_submodule(path).weight
    if [*found] != [f"{path}.weight"]:
        raise Off(f"changes {sorted(found)}")
    texts = [text for fact in FACTS for text in texts_of(tokenizer, fact, 1)]
    loss = sum(-log_probs(model, text.prompt, text.target).mean() for text in texts) / len(texts)
    (gradient,) = torch.autograd.grad(loss, [weight])
    # Adam's first step is the gradient's sign, where that is not rounding.
    clear = gradient.abs() > 1e-3 * gradient.abs().max()
    (change,) = found.values()
    wrong = int(((change - -0.01 * gradient.sign()).abs() > 1e-4)[clear].sum())
    if wrong:
        raise Off(f"{wrong} of {int(clear.sum())} weights do not go down their gradient")
    edit = EDITORS.get("ft-m")(layer=layer, steps=8, learning_rate=0.01).edit(model, tokenizer, FACTS, paraphrases=1)
    gained = _gained(model, edit, texts, before)
    if not gained > 0:
        raise Off(f"new objects gain {gained:.3f} nats a token")
    return f"{gained:+.2f} nats a token"


def _rows(value: Tensor) -> Tensor:
    return value.reshape(-1, value.shape[-1])


def _differences_in(model: Any, edit: Any, before: Any) -> dict[str, Tensor]:
    """What applying the edit changes, by parameter; the model is as it was afterwards."""
    edit.apply(model)
    now = dict(model.named_parameters())
    found = {name: now[name].detach().double() - was.double() for name, was in before["weights"].items()}
    edit.revert(model)
    _same(before, model, "reverting")
    return {name: change for name, change in found.items() if bool(change.any())}


def _gained(model: Any, edit: Any, texts: Sequence[Text], before: Any) -> float:
    """By how much new objects are more probable in a plain pass under the edit, which is then reverted."""
    with torch.no_grad():
        was = [float(log_probs(model, text.prompt, text.target).mean()) for text in texts]
        edit.apply(model)
        now = [float(log_probs(model, text.prompt, text.target).mean()) for text in texts]
    edit.revert(model)
    _same(before, model, "reverting")
    return sum(now) / len(now) - sum(was) / len(was)


def _same(before: Any, model: Any, what: str) -> None:
    if changed := differences(before, as_it_stands(model)):
        raise Off(f"{what} left changed: {', '.join(changed[:3])}")
