"""Short edits of tiny models, and what can be seen of a model from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedModel
from worked_facts import CAPITALS, CORPUS

from indelible.edits.deltas.weights import WeightUpdate
from indelible.edits.editor import EDITORS, Workbench
from indelible.facts.fact import Fact
from indelible.models.layout import find_layout
from indelible.models.tokens import encode_prompt, encode_target
from tiny_models import Tokenizer, build_tokenizer

# Short, and strong enough for models that know nothing; the defaults are for trained ones.
_VALUES = {"steps": 15, "contexts": 1, "covariance_tokens": 600, "clamp": 4.0, "kl_weight": 0.0, "weight_decay": 1e-4}
SETTINGS: dict[str, dict[str, Any]] = {
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
# Those that change no weights; what else is asked of them stands in test_grace.py and test_ike.py.
BESIDE: dict[str, dict[str, Any]] = {"grace": {"layer": 2, "steps": 15}, "ike": {"copies": 1}}
ONE_BY_ONE = ("rome", "r-rome")
SEVERAL_LAYERS = ("memit", "pmet", "alphaedit", "lora")
BY_GRADIENT = ("ft", "ft-l", "ft-m", "lora")
BY_FORMULA = tuple(name for name in SETTINGS if name not in BY_GRADIENT)
# One fact of several may gain less: EMMET's equality pulls its three wordings apart in these random models, PMET leaves
# attention's part of the value out, AlphaEdit what lies outside its null space, and FT learns an object's tokens as a
# set.
LEAST_GAIN = {"emmet": 0.1, "pmet": 0.1, "alphaedit": 0.3, "ft": -0.5, "ft-l": -0.5}
_NO_OPTIONS = {"paraphrases", "earlier", "seed", "corpus", "bystanders", "cache", "identity", "progress"}


def editor(name: str, **more: Any) -> Any:
    return EDITORS.get(name)(**{**(SETTINGS | BESIDE)[name], **more})


def edit(name: str, model: PreTrainedModel, tokenizer: Tokenizer, facts: Sequence[Fact] = CAPITALS, **more: Any) -> Any:
    """With short settings; ``more`` are options of the editor, or what else ``Editor.edit`` takes."""
    given = {key: more.pop(key) for key in _NO_OPTIONS & more.keys()}
    return editor(name, **more).edit(model, tokenizer, facts, **{"corpus": CORPUS, **given})


def one_vocabulary(*, space: bool, start: bool, side: str = "right") -> Tokenizer:
    """The tiny tokenizer, perhaps with a space put before every text, perhaps with its end token as a beginning."""
    fast = build_tokenizer(pad="<|pad|>")
    fast.padding_side = side
    if space:
        fast.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    if start:
        fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|end|> $A", special_tokens=[("<|end|>", fast.bos_token_id)]
        )
    return fast


def logits(model: PreTrainedModel, tokens: Any, **options: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.as_tensor(tokens), **options).logits
    return found


def log_prob(model: PreTrainedModel, tokenizer: Tokenizer, one: Fact, name: str = "") -> float:
    """Mean log-probability of the new object's tokens; of its first for FT, which learns them as a set."""
    assert one.new_object is not None
    prompt, target = encode_prompt(tokenizer, one.text()), encode_target(tokenizer, one.text(), one.new_object)
    with torch.no_grad():
        log_probs = model(torch.tensor([prompt + target])).logits[0].log_softmax(-1)
    if name in ("ft", "ft-l"):
        target = target[:1]
    places = range(len(prompt) - 1, len(prompt) + len(target) - 1)
    return float(torch.stack([log_probs[place, token] for place, token in zip(places, target, strict=True)]).mean())


def assert_near(found: WeightUpdate, expected: WeightUpdate, share: float = 1e-3) -> None:
    """Differences agree within a share of the largest entry."""
    assert found.parameters == expected.parameters
    for name in expected.parameters:
        wanted = expected.deltas[name].difference()
        error = (found.deltas[name].difference() - wanted).abs().max()
        assert error < share * wanted.abs().max(), (name, float(error), float(wanted.abs().max()))


def bench_of(model: PreTrainedModel, tokenizer: Tokenizer, **more: Any) -> Workbench:
    """What an editor works with, without the checks made of what users give."""
    return Workbench.model_construct(model=model, tokenizer=tokenizer, layout=find_layout(model), **more)


def train(model: PreTrainedModel, names: tuple[str, ...] | None = None, size: float = 1e-4) -> None:
    """Every weight (or those named) moves a little, as training moves them."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if names is None or name in names:
                weight.add_(size * torch.randn(weight.shape, generator=generator))
