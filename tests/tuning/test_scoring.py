"""The loss on labels is the plain one, gradients too, however many pieces; nothing as wide as all logits is made."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from indelible.tuning.objective import NO_LOSS, Run, tuning_settings
from indelible.tuning.training import scoring
from indelible.tuning.training.batches import computing
from indelible.tuning.training.proof import proved_reading
from indelible.tuning.training.scoring import score_labels, scored
from tiny_families import LAYERS, SHAPE, TABLE, build_family, enliven
from tiny_models import Tokenizer

_GROUPED = {**SHAPE, "num_key_value_heads": 2, "tie_word_embeddings": False}
_EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {**TABLE["gpt2"].settings, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "llama": _GROUPED,
    "gemma2": {**TABLE["gemma2"].settings, "final_logit_softcapping": 3.0},
    "cohere": {**_GROUPED, "logit_scale": 0.25, "pad_token_id": 0, "tie_word_embeddings": True},
    "granite": {**_GROUPED, "logits_scaling": 4.0},
    "qwen3_moe": {**_GROUPED, **_EXPERTS, "output_router_logits": True, "router_aux_loss_coef": 0.5},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4},
}


def made(name: str, vocabulary: int = 400) -> PreTrainedModel:
    model = build_family(name, vocabulary, settings=FAMILIES[name])
    return model if name == "mamba" else enliven(model)


def batch() -> dict[str, torch.Tensor]:
    """Three rows of unequal length; loss on all of the first, the end of the second, and none of the third."""
    ids = torch.randint(4, 400, (3, 14), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    labels = ids.masked_fill(mask == 0, NO_LOSS)
    labels[:, 0] = labels[1, :6] = labels[2] = NO_LOSS
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def with_gradients(model: PreTrainedModel, loss: Callable[[], torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    value = loss()
    value.backward()
    return value.item(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("positions", [3, 1000])
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients_are_the_plain_ones(
    name: str, positions: int, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = made(name), batch()
    expected, gradients = with_gradients(model, lambda: model(**rows).loss)
    assert name != "qwen3_moe" or model(**rows).aux_loss.item() > 0
    monkeypatch.setattr(scoring, "LOGITS", positions * 400)
    score_labels(model, whole=whole, statistics=True)
    found, own = with_gradients(model, lambda: model(**rows).loss)
    assert found == pytest.approx(expected, rel=1e-6)
    assert own.keys() == gradients.keys()
    for one, gradient in gradients.items():
        torch.testing.assert_close(own[one], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("positions", [3, 1000])
def test_what_trl_asks_for_is_what_all_logits_say(
    positions: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, and gradients of any mixture of log-probabilities and entropies with them."""
    model, rows = made("gemma2"), batch()
    labels = rows.pop("labels")
    mask = labels[:, 1:] != NO_LOSS
    monkeypatch.setattr(scoring, "LOGITS", positions * 400)
    generator = torch.Generator().manual_seed(2)
    weights, others = (torch.randn(mask.shape, generator=generator) for _ in range(2))

    def plain() -> dict[str, torch.Tensor]:
        logits = model(**rows).logits[:, :-1].double() / temperature
        chances = logits.softmax(-1)
        said = {
            "log_probs": chances.log().gather(2, labels[:, 1:].clamp_min(0)[..., None])[..., 0],
            "entropy": -(chances * chances.log()).sum(-1),
            "log_sum_sq_probs": (chances**2).sum(-1).log(),
            "mean_logits": logits.mean(-1),
            "is_top1": (logits.argmax(-1) == labels[:, 1:]).double(),
        }
        return {what: value * mask for what, value in said.items()}

    def ours() -> dict[str, torch.Tensor]:
        found = scored(model, model, rows, labels, whole=False, temperature=temperature, statistics=True)
        return {what: found[what] for what in plain()}

    def mixture(said: dict[str, torch.Tensor]) -> torch.Tensor:
        return (said["log_probs"] * weights + said["entropy"] * others).sum()

    expected = plain()
    for what, value in ours().items():
        torch.testing.assert_close(value.double(), expected[what], rtol=1e-4, atol=1e-5)
    value, gradients = with_gradients(model, lambda: mixture(plain()))
    found, own = with_gradients(model, lambda: mixture(ours()))
    assert found == pytest.approx(value, rel=1e-5)
    for one, gradient in gradients.items():
        torch.testing.assert_close(own[one], gradient, rtol=1e-3, atol=1e-5)


def test_a_part_of_the_labels_bears_its_part_of_the_loss() -> None:
    """So that the parts of a step add up, routers' losses included."""
    model, rows = made("qwen3_moe"), batch()
    labels = rows.pop("labels")
    number = int((labels != NO_LOSS).sum())
    found = [scored(model, model, rows, labels, whole=False, count=times * number) for times in (1, 2)]
    assert float(found[1].loss) == pytest.approx(float(found[0].loss) / 2, rel=1e-6)


def test_a_batch_without_labels_has_no_loss() -> None:
    model, rows = made("llama"), batch()
    rows["labels"] = torch.full_like(rows["labels"], NO_LOSS)
    score_labels(model, whole=False)
    value, gradients = with_gradients(model, lambda: model(**rows).loss)
    assert value == 0 and not any(one.any() for one in gradients.values())


class Widest(TorchDispatchMode):
    """The number of elements of the largest tensor that is made, but for those of one shape."""

    def __init__(self, beside: torch.Size) -> None:
        super().__init__()
        self.beside = {tuple(beside), tuple(reversed(beside))}
        self.found = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, torch.Tensor) and tuple(one.shape) not in self.beside:
                self.found = max(self.found, one.numel())
        return result


@pytest.mark.parametrize("statistics", [False, True])
def test_what_is_made_does_not_grow_with_the_vocabulary(statistics: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "LOGITS", 20_000)
    rows, found, plain = batch(), [], []
    for vocabulary in (2_000, 4_000):
        model = made("llama", vocabulary)
        with Widest(model.lm_head.weight.shape) as widest:
            model(**rows).loss.backward()
        plain.append(widest.found)
        score_labels(model, whole=False, statistics=statistics)
        with Widest(model.lm_head.weight.shape) as widest:
            model(**rows).loss.backward()
        found.append(widest.found)
    assert plain[1] == 2 * plain[0] and max(found) <= 20_000 < min(plain)


def test_nothing_is_kept_for_backward_below_what_is_trained() -> None:
    model, rows = made("llama"), batch()
    score_labels(model, whole=False)

    def kept(trained: str) -> int:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(trained))
        seen: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda one: (seen.append(one.numel()), one)[1], lambda one: one):
            loss = model(**rows).loss
        loss.backward()
        assert {name.startswith(trained) for name, one in model.named_parameters() if one.grad is not None} == {True}
        model.zero_grad()
        return len(seen)

    numbers = [kept(f"model.layers.{layer}.mlp") for layer in range(LAYERS)]
    assert numbers == sorted(numbers, reverse=True) and numbers[-1] < numbers[0] / 2
    assert len({before - after for before, after in pairwise(numbers)}) == 1, "a layer each"
    assert kept("lm_head") < numbers[-1]


class Attention(TorchDispatchMode):
    """Types that attention is computed in, and other products."""

    def __init__(self) -> None:
        super().__init__()
        self.attention: set[torch.dtype] = set()
        self.products: set[torch.dtype] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if "attention" in name:
            self.attention.add(args[0].dtype)
        elif name in ("mm", "addmm"):
            self.products.add(args[-1].dtype)
        return function(*args, **(kwargs or {}))


def test_autocast_reads_labels_as_it_reads_all_with_attention_in_float32(tiny_tokenizer: Tokenizer) -> None:
    model, rows = made("llama"), batch()
    expected, gradients = with_gradients(model, lambda: model(**rows).loss)
    options = tuning_settings({"objective": "text", "precision": "bf16-mixed"})
    score_labels(model, whole=False)
    with Attention() as seen, computing(Run(model, model, tiny_tokenizer, options, (), ())):
        found, own = with_gradients(model, lambda: model(**rows).loss)
    assert seen.attention == {torch.float32} and seen.products == {torch.bfloat16}
    assert found == pytest.approx(expected, rel=2e-2)
    for one, gradient in gradients.items():
        assert own[one].dtype == torch.float32
        assert float((own[one] - gradient).norm()) <= 0.1 * float(gradient.norm()) + 1e-6


class Stacked(torch.nn.Module):
    """A head that looks at neighbours: what a family does that cannot be run by itself."""

    def __init__(self, head: torch.nn.Linear) -> None:
        super().__init__()
        self.head, self.weight, self.bias = head, head.weight, head.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        before = torch.nn.functional.pad(states, (0, 0, 1, 0))[:, :-1]
        return self.head(states + before)  # type: ignore[no-any-return]


def test_logits_are_taken_whole_where_the_rest_of_a_model_cannot_be_run_by_itself(tiny_tokenizer: Tokenizer) -> None:
    model = made("llama", len(tiny_tokenizer))
    options = tuning_settings({"objective": "text", "precision": "fp32"})
    run = Run(model, model, tiny_tokenizer, options, (), ())
    assert not proved_reading(run).whole
    model.lm_head = Stacked(model.lm_head)
    assert proved_reading(run).whole
