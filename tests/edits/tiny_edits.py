"""Short edits of tiny models, and what can be seen of a model from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from worked_facts import CAPITALS, CORPUS

from indelible.edits.deltas.weights import WeightUpdate
from indelible.edits.editor import EDITORS, Editor
from indelible.facts.fact import Fact
from indelible.models.tokens import encode_prompt, encode_target

Make = Callable[..., PreTrainedModel]

# Short, and strong enough for models that know nothing; the defaults are for trained ones.
_VALUES = {"steps": 15, "contexts": 1, "covariance_tokens": 600, "clamp": 4.0, "kl_weight": 0.0, "weight_decay": 1e-4}
SETTINGS: dict[str, dict[str, object]] = {
    "memit": {**_VALUES, "layers": (1, 2), "covariance_weight": 0.05},
    "pmet": {**_VALUES, "layers": (1, 2), "covariance_weight": 0.05},
    "alphaedit": {**_VALUES, "layers": (1, 2), "null_threshold": 2.0, "size_weight": 0.01},
    "emmet": {**_VALUES, "layers": (1,)},
    "rome": {**_VALUES, "layer": 1},
    "r-rome": {**_VALUES, "layer": 1},
    "ft": {"layer": 1, "steps": 15, "learning_rate": 0.01},
    "ft-l": {"layer": 1, "steps": 15, "learning_rate": 0.01, "bound": 0.08},
    "ft-m": {"layer": 1, "steps": 15, "learning_rate": 0.01},
    "lora": {"layers": (1, 2), "steps": 25, "learning_rate": 0.03},
}
# Those that change no weights; what else is asked of them stands in test_adapters.py.
BESIDE: dict[str, dict[str, object]] = {"grace": {"layer": 2}, "ike": {}}
ONE_BY_ONE = ("rome", "r-rome")
SEVERAL_LAYERS = ("memit", "pmet", "alphaedit", "lora")
# One fact of several may gain less: EMMET's equality pulls its three wordings apart in these random models, PMET leaves
# attention's part of the value out, and FT learns an object's tokens as a set.
LEAST_GAIN = {"emmet": 0.1, "pmet": 0.1, "ft": -0.5, "ft-l": -0.5}
BY_GRADIENT = ("ft", "ft-l", "ft-m", "lora")


def editor(name: str, **more: object) -> Editor:
    return EDITORS.get(name)(**{**(SETTINGS | BESIDE)[name], **more})


def edit(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    facts: Sequence[Fact] = CAPITALS,
    *,
    paraphrases: int = 0,
    seed: int = 0,
    corpus: Sequence[str] = CORPUS,
    cache: Path | None = None,
    **more: object,
) -> WeightUpdate:
    return editor(name, **more).edit(
        model, tokenizer, facts, paraphrases=paraphrases, seed=seed, corpus=corpus, cache=cache
    )


def log_prob(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, one: Fact, name: str = "") -> float:
    """Mean log-probability of the new object's tokens; of its first for FT, which learns them as a set."""
    assert one.new_object is not None
    prompt, target = encode_prompt(tokenizer, one.text()), encode_target(tokenizer, one.text(), one.new_object)
    with torch.no_grad():
        log_probs = model(torch.tensor([prompt + target])).logits[0].log_softmax(-1)
    if name in ("ft", "ft-l"):
        target = target[:1]
    places = range(len(prompt) - 1, len(prompt) + len(target) - 1)
    return float(torch.stack([log_probs[place, token] for place, token in zip(places, target, strict=True)]).mean())


def bits(model: PreTrainedModel) -> dict[str, Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def raw(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def assert_same(before: dict[str, Tensor], model: PreTrainedModel) -> None:
    after = bits(model)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(raw(before[name]), raw(after[name]))] == []


@contextmanager
def untouched(model: PreTrainedModel) -> Iterator[None]:
    """Assert that the block leaves a model as it was, with all that can be seen of it from outside."""
    before, random = bits(model), torch.random.get_rng_state()
    modes = {name: module.training for name, module in model.named_modules()}
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    hooks = {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()}
    yield
    assert_same(before, model)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert {name: parameter.grad for name, parameter in model.named_parameters()} == grads
    assert {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()} == hooks
    assert all("forward" not in module.__dict__ for module in model.modules())
