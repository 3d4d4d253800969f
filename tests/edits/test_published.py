"""Published settings: the figures of the methods' own code, and one update of each against that code's arithmetic.

What an update should be is computed here from the definition alone, in float64 on a copy of the model: whole texts, one
at a time, values by Adam, full inverses. The figures are those of GPT-J's files in the repositories kmeng01/rome,
kmeng01/memit, jianghoucheng/AlphaEdit, xpq-tech/PMET, scalable-model-editing/unified-model-editing (EMMET) and
rebuilding-rome (R-ROME).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import PreTrainedModel
from worked_facts import CAPITALS, CORPUS, fact

from indelible.care.edit import edit as edit_facts
from indelible.edits.deltas.weights import WeightUpdate
from indelible.edits.editor import EDITORS
from indelible.edits.solving.texts import rows_for, sample_contexts
from indelible.edits.solving.values import optimise_values
from indelible.facts.fact import Fact
from indelible.models.layout import find_layout
from indelible.models.load import LoadedModel
from tiny_families import TABLE, enliven
from tiny_models import Make, Tokenizer

ROME = {
    "covariance_texts": 100_000,
    "first_tokens": True,
    "bystander_weight": 0.0,
    "optimiser": "adam",
    "steps": 20,
    "learning_rate": 0.5,
    "weight_decay": 0.5,
    "kl_weight": 0.0625,
    "kl_after": "subject",
    "clamp": 4.0,
    "reference": "site",
    "converged": 0.05,
    "contexts": "rome",
    "bare_share": None,
    "durable": 0.0,
}
MEMIT = {**ROME, "steps": 25, "clamp": 0.75, "reference": "block", "contexts": "memit", "bare_share": 0.5}
FT = {"steps": 25, "learning_rate": 5e-4, "stop_below": 0.01, "texts_per_step": 64}
FIGURES: dict[str, dict[str, Any]] = {
    "rome": ROME,
    "r-rome": {**ROME, "bare_value": True},
    "memit": {**MEMIT, "covariance_weight": 15_000.0},
    "alphaedit": {**MEMIT, "null_threshold": 0.02, "size_weight": 10.0, "units": "absolute"},
    "emmet": {**MEMIT, "slack": 0.1},
    "pmet": {
        **MEMIT,
        "reference": "site",
        "steps": 30,
        "learning_rate": 0.2,
        "kl_weight": 1.0,
        "said_kl": 0.01,
        "covariance_weight": 6000.0,
    },
    "ft": FT,
    "ft-l": {**FT, "bound": 5e-5},
    "ft-m": FT,
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_sets_are_the_figures_of_the_published_code(name: str) -> None:
    kind = EDITORS.get(name)
    made = kind(published=True)
    assert {key: getattr(made, key) for key in FIGURES[name]} == FIGURES[name]
    # Nothing but layers and what the set makes void is left to our own defaults.
    free = {"layers", "layer", "edits_per_step", "covariance_tokens", "tokens_per_batch"}
    assert kind.model_fields.keys() - free - {"published"} == FIGURES[name].keys()
    assert kind.model_validate(made.model_dump(mode="json")) == made
    assert kind(published=True, steps=3).steps == 3
    assert kind(published=False) == kind()


def test_adams_learning_rate_does_not_go_with_steps_of_given_lengths() -> None:
    kind = EDITORS.get("pmet")
    assert kind(published=True).value_options().learning_rate == 0.2
    other = kind(published=True, optimiser="normalised")
    assert other.value_options().learning_rate == kind().value_options().learning_rate == 0.25
    assert other.said_kl == 0.01
    assert kind(published=True, optimiser="normalised", learning_rate=0.3).value_options().learning_rate == 0.3


def test_an_editor_without_published_code_has_no_published_settings() -> None:
    with pytest.raises(ValidationError, match="published"):
        EDITORS.get("lora")(published=True)
    with pytest.raises(ValidationError, match="valid boolean"):
        EDITORS.get("memit")(published="true")  # else the field would be set and nothing else


def test_published_contexts_are_as_many_and_as_long_as_in_the_code(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("gpt2"))
    rome, memit = (sample_contexts(model, tiny_tokenizer, kind, seed=1) for kind in ("rome", "memit"))
    assert len(rome) == 20 and len(memit) == 5
    assert [
        text.split(" ")[0].startswith(word) for text, word in zip(memit, ("The", "Th", "Be", "I", "You"), strict=True)
    ]
    # Text is read again as other tokens; it has no more letters than its tokens could write.
    longest = max(len(tiny_tokenizer.decode([token])) for token in range(len(tiny_tokenizer)))
    assert all(len(text) <= 4 * longest for text in rome[:10]) and len(set(rome)) > 10
    with torch.no_grad():
        first = model(torch.tensor([[tiny_tokenizer.eos_token_id]])).logits[0, -1].topk(5).indices.tolist()
    assert all(any(text.startswith(tiny_tokenizer.decode([token])) for token in first) for text in rome)
    assert sample_contexts(model, tiny_tokenizer, "rome", seed=1) == rome


class Reading:
    """A float64 copy of a model, read one whole text at a time, its parts by the paths written down by hand."""

    def __init__(self, model: PreTrainedModel, family: str) -> None:
        self.model, self.table = deepcopy(model).double().requires_grad_(False), TABLE[family]

    def part(self, layer: int, what: str) -> Any:
        block = f"{self.table.blocks}.{layer}"
        inside = {"block": "", "mlp": f".{self.table.mlp_out}", "attention": f".{self.table.attention}"}[what]
        return self.model.get_submodule(block + inside)

    def run(self, tokens: Sequence[int], added: dict[Any, Tensor], place: int, watched: Sequence[Any] = ()) -> Any:
        """Log-probabilities, with something added to what modules return at a place, and what others took and gave."""
        seen: dict[Any, tuple[Tensor, Tensor]] = {}

        def hook(module: Any, args: Any, output: Any) -> Any:
            first = output if isinstance(output, Tensor) else output[0]
            if module in watched:
                taken = args[0] if args else first
                seen[module] = (taken.reshape(len(tokens), -1), first.detach().reshape(len(tokens), -1))
            if module not in added:
                return output
            at = torch.zeros(len(tokens), 1, dtype=torch.float64)
            at[place] = 1
            moved = first + (at * added[module]).view_as(first)
            return moved if isinstance(output, Tensor) else (moved, *output[1:])

        handles = [module.register_forward_hook(hook) for module in {*added, *watched}]
        logits = self.model(torch.tensor([list(tokens)]), use_cache=False).logits[0]
        for handle in handles:
            handle.remove()
        return logits.log_softmax(-1), seen


def values_by_code(
    reading: Reading, tokenizer: Tokenizer, fact: Fact, texts: Sequence[str], layer: int, made: Any
) -> Any:
    """The change of the last site: the loop of compute_v, compute_z or compute_zs. ``texts`` end with the subject."""
    sites = ["attention", "mlp"] if made.name == "pmet" else ["mlp" if made.reference == "site" else "block"]
    parts = [reading.part(layer, site) for site in sites]
    target = tokenizer(f" {fact.new_object}")["input_ids"]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    essence, subject = tokenizer(f"{fact.subject} is a")["input_ids"], len(tokenizer(fact.subject)["input_ids"]) - 1
    _, seen = reading.run(prompts[0], {}, 0, parts)
    norms = [float(seen[part][1][-1].norm()) for part in parts]
    before = reading.run(essence, {}, 0)[0][subject]
    deltas = [torch.zeros(reading.model.config.hidden_size, dtype=torch.float64, requires_grad=True) for _ in parts]
    optimiser, emphasis = torch.optim.Adam(deltas, lr=made.learning_rate), 1.0
    for step in range(made.steps):
        optimiser.zero_grad()
        added, nll, said = dict(zip(parts, deltas, strict=True)), torch.zeros((), dtype=torch.float64), True
        for prompt in prompts:
            log_probs = reading.run([*prompt, *target[:-1]], added, len(prompt) - 1)[0][len(prompt) - 1 :]
            said &= log_probs.argmax(-1).tolist() == target
            nll = nll - log_probs[range(len(target)), target].mean() / len(prompts)
        after = reading.run(essence, added, subject)[0][subject]
        kl = made.kl_weight * (after.exp() * (after - before)).sum()
        decay = made.weight_decay * sum(delta.norm() / norm**2 for delta, norm in zip(deltas, norms, strict=True))
        loss = emphasis * nll + kl + decay
        if loss < made.converged:
            break
        if made.name == "pmet":
            emphasis = 0.1 if said else 1.0
            if said and kl <= 0.01:
                break
        if step == made.steps - 1:
            break
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for delta, norm in zip(deltas, norms, strict=True):
                delta *= min(1.0, made.clamp * norm / float(delta.norm()))
    return deltas[-1].detach().numpy(), step


def by_code(name: str, keys: Any, bare: Any, residual: Any, moment: Any, weight: Any, made: Any) -> np.ndarray:
    """One layer's update as the published code computes it."""
    identity, inverse = np.eye(len(moment)), np.linalg.inv(moment)
    if name in ("rome", "r-rome"):
        left = inverse @ keys[:, 0]
        left = left / np.linalg.norm(left)
        lacking = residual[:, 0] + (weight @ (bare - keys)[:, 0] if name == "r-rome" else 0)
        met = keys[:, 0] if name == "r-rome" else bare[:, 0]
        return np.outer(lacking / (met @ left), left)
    if name in ("memit", "pmet"):
        solved = np.linalg.solve(made.covariance_weight * moment + keys @ keys.T, keys)
        return residual @ solved.T
    if name == "emmet":
        system = keys.T @ inverse @ keys + 0.1 * np.eye(keys.shape[1])
        return residual @ np.linalg.inv(system) @ keys.T @ inverse
    vectors, values, _ = np.linalg.svd(moment)
    project = vectors[:, values < made.null_threshold] @ vectors[:, values < made.null_threshold].T
    return np.linalg.solve(project @ keys @ keys.T + 10 * identity, project @ keys @ residual.T).T


@pytest.mark.parametrize(
    ("name", "family"), [(name, "llama") for name in FIGURES if "ft" not in name] + [("r-rome", "gpt2")]
)
def test_an_update_is_that_of_the_published_code(
    name: str, family: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(tiny_model(family))
    alone = name in ("rome", "r-rome")
    facts, layers = CAPITALS[: 1 if alone else 3], (2,) if alone or name == "emmet" else (1, 2)
    given: dict[str, Any] = {"layer": 2} if alone else {"layers": layers}
    if name == "alphaedit":
        given["null_threshold"] = 0.5  # this model's moments are not those of GPT-J
    made: Any = EDITORS.get(name)(published=True, steps=5, **given)
    update = made.edit(model, tiny_tokenizer, facts, corpus=CORPUS[:40])
    assert isinstance(update, WeightUpdate)

    contexts = sample_contexts(model, tiny_tokenizer, made.contexts)
    texts = [[fact.text(), *(f"{context}. {fact.text()}" for context in contexts)] for fact in facts]
    assert all(text.endswith(fact.subject) for fact, those in zip(facts, texts, strict=True) for text in those)
    reading = Reading(model, family)
    found = [
        values_by_code(reading, tiny_tokenizer, fact, those, 2, made) for fact, those in zip(facts, texts, strict=True)
    ]
    compared = reading.part(2, "mlp" if name == "pmet" else "block")
    bare_tokens = [tiny_tokenizer(those[0])["input_ids"] for those in texts]

    def states(of: Reading, part: Any) -> np.ndarray:
        return np.stack([of.run(tokens, {}, 0, [part])[1][part][1][-1].numpy() for tokens in bare_tokens], axis=1)

    wanted = states(reading, compared) + np.stack([value for value, _ in found], axis=1)
    for place, layer in enumerate(layers):
        weight = find_layout(model).mlp_out_weight[layer]
        below = WeightUpdate({key: update.deltas[key] for key in update.parameters[:place]}, update.manifest)
        with below.applied(model):
            now = Reading(model, family)
        memory = now.part(layer, "mlp")

        def key(text: str, now: Reading = now, memory: Any = memory) -> np.ndarray:
            return np.asarray(now.run(tiny_tokenizer(text)["input_ids"], {}, 0, [memory])[1][memory][0][-1])

        read = [[key(text) for text in those] for those in texts]
        bare = np.stack([those[0] for those in read], axis=1)
        keys = np.stack([np.mean(those, axis=0) for those in read], axis=1)
        if not alone:  # by kinds of context: the bare wording, and all that stand behind something
            keys = np.stack([(those[0] + np.mean(those[1:], axis=0)) / 2 for those in read], axis=1)
        rows = [tiny_tokenizer(text)["input_ids"] for text in CORPUS[:40]]
        before = reading.part(layer, "mlp")
        every = np.concatenate([reading.run(row, {}, 0, [before])[1][before][0].numpy() for row in rows])
        left = len(layers) - place
        residual = (wanted - states(now, now.part(2, "mlp" if name == "pmet" else "block"))) / (
            left**0.5 if name == "pmet" else left
        )
        moved = np.asarray(memory.weight)
        moved = moved.T if find_layout(model).memory(layer).in_out else moved
        expected = by_code(name, keys, bare, residual, every.T @ every / len(every), moved, made)
        difference = update.deltas[weight].difference().double().numpy()
        difference = difference.T if find_layout(model).memory(layer).in_out else difference
        # Values are float32 here and Adam divides by small slopes: see test_values.py for the loop by itself.
        assert np.abs(difference - expected).max() <= 2e-3 * np.abs(expected).max(), (name, layer)


@pytest.mark.parametrize(("kl_weight", "leaves"), [(1e-3, True), (30.0, False)])
def test_pmets_values_are_left_when_they_say_their_object(
    kl_weight: float, leaves: bool, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    """Where the KL term is small enough, before the steps are used up; where it is not, the targets count a tenth."""
    model = enliven(tiny_model("llama"))
    with torch.no_grad():
        model.lm_head.weight *= 20  # random models are sure of nothing
    edited = fact("France", "Name the capital of {}", "is")  # one token, right behind the subject
    more = {"steps": 12, "clamp": 20.0, "weight_decay": 0.0, "contexts": 0, "kl_weight": kl_weight, "converged": 0.0}
    made: Any = EDITORS.get("pmet")(published=True, layers=(2,), **more)
    rows = [rows_for(tiny_tokenizer, edited, 0, (), kl_after="subject")]
    found = optimise_values(model, find_layout(model), 2, rows, made.value_options())
    expected, last = values_by_code(Reading(model, "llama"), tiny_tokenizer, edited, [edited.text()], 2, made)
    assert int(found.steps_f[0]) == last + 1 and (last < 11) == leaves
    assert np.abs(found.deltas_fo[0].numpy() - expected).max() < 2e-3 * np.abs(expected).max()
    plain = optimise_values(model, find_layout(model), 2, rows, replace(made.value_options(), said_kl=None))
    assert not torch.allclose(plain.deltas_fo, found.deltas_fo, atol=1e-2)


def test_published_is_an_option_of_edits_made_by_name_or_by_an_editor(
    tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    loaded = LoadedModel(tiny_model("llama"), tiny_tokenizer, "tiny")
    ft = EDITORS.get("ft")
    for editor, published in (("ft", True), (ft(layer=1), True), (ft(published=True, layer=1), False)):
        made = edit_facts(loaded, CAPITALS[:1], editor, published=published, layer=1, steps=1)
        (said,) = made.manifest.made
        rate = 5e-4 if published else 2e-3
        assert (said.options["layer"], said.options["steps"], said.options["learning_rate"]) == (1, 1, rate)


def test_what_the_code_says_is_not_taken_for_given() -> None:
    kind: Any = EDITORS.get("memit")
    made = kind(published=True, steps=3, clamp=0.5)
    assert made.given() == {"published": True, "steps": 3, "clamp": 0.5}
    assert kind(**{**made.given(), "optimiser": "normalised"}).value_options().learning_rate == 0.25
