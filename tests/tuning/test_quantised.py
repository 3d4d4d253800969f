"""QLoRA: the base in NF4 by bitsandbytes itself, the edit and what is learned beside it in float32, nothing left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import bitsandbytes.functional
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from indelible.edits.beside.hook import adapters_in
from indelible.edits.beside.side_term import quantised_with
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import LowRank, WeightUpdate
from indelible.edits.editor import EDITORS
from indelible.errors import ConfigError
from indelible.facts.fact import Fact
from indelible.models.layout import find_layout
from indelible.models.modules.quantised import Factors, quantised
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.tuners.adapting import adapted
from indelible.tuning.tuners.tuner import TunerSettings, check_tuner
from tiny_models import Make, Tokenizer
from untouched import bits, changed

TOKENS = torch.arange(5, 45).view(4, 10)
FACTS = (Fact("a", "France", "capital", "The capital of {} is", "Paris", "Oslo"),)


@torch.no_grad()
def said(model: PreTrainedModel) -> Tensor:
    logits: Tensor = model(TOKENS).logits
    return logits


@contextmanager
def rounded(model: PreTrainedModel, names: frozenset[str], beside: dict[str, Factors]) -> Iterator[None]:
    """The same model by other means: plain weights, each the value that NF4 has for it, and the difference added."""
    before = {name: model.get_parameter(name).data for name in names}
    for name, weight in before.items():
        turned = isinstance(model.get_submodule(name.removesuffix(".weight")), Conv1D)
        packed, state = bitsandbytes.functional.quantize_4bit(
            weight.T.contiguous() if turned else weight, quant_type="nf4"
        )
        value = bitsandbytes.functional.dequantize_4bit(packed, state)
        value = value.T if turned else value
        model.get_parameter(name).data = value + beside[name][0] @ beside[name][1] if name in beside else value
    yield
    for name, weight in before.items():
        model.get_parameter(name).data = weight


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    """What the embeddings and the norms get, which all lies below quantised layers."""
    model.train()
    model(TOKENS, labels=TOKENS).loss.backward()
    model.eval()
    found = {name: one.grad for name, one in model.named_parameters() if one.grad is not None and "lora_" not in name}
    for one in model.parameters():
        one.grad = None
    return {name: grad for name, grad in found.items() if "norm" in name or "ln_" in name or "embed" in name}


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_a_quantised_model_is_the_rounded_one_with_its_difference_and_passes_all_gradients_on(
    family: str, tiny_model: Make
) -> None:
    model = tiny_model(family)
    before, modules, plain = bits(model), dict(model.named_modules()), said(model)
    edited = find_layout(model).mlp_out_weight[1]
    rows, columns = model.get_parameter(edited).shape
    generator = torch.Generator().manual_seed(0)
    beside = {edited: (torch.randn(rows, 2, generator=generator), torch.randn(2, columns, generator=generator) / 9)}
    with quantised(model, beside) as names:
        assert edited in names and len(names) >= 16
        found = said(model)  # in evaluation mode first: bitsandbytes' own layer would pass no gradient on after it
        grads = gradients(model)
    assert dict(model.named_modules()) == modules and not changed(before, model)  # the very same ones
    with rounded(model, names, beside):
        torch.testing.assert_close(found, said(model), rtol=1e-4, atol=1e-5)
        wanted = gradients(model)
    assert grads.keys() == wanted.keys() and len(grads) > 4
    for name, grad in grads.items():
        torch.testing.assert_close(grad, wanted[name], rtol=1e-3, atol=1e-6)
    assert float((found - plain).abs().max()) > 0.01


@pytest.mark.parametrize(
    ("family", "mask"), [("gpt2", "up-to-edited"), ("llama", "up-to-edited"), ("llama", "only-edited-weights")]
)
def test_what_qlora_learns_joins_the_side_terms_and_masks_hold(family: str, mask: str, tiny_model: Make) -> None:
    model = tiny_model(family)
    layout = find_layout(model)
    frozen = frozen_parameters(mask, model, layout, [layout.mlp_out_weight[1]])
    with quantised(model) as names:
        before, losses = bits(model), []
        with adapted(model, TunerSettings(tuner="qlora", rank=2, alpha=3), frozen) as tuned:
            trained = {name for name, one in model.named_parameters() if one.requires_grad}
            assert trained and all(".lora_" in name for name in trained)
            optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
            for _ in range(4):
                loss = model(TOKENS, labels=TOKENS).loss
                loss.backward()
                optimiser.step()
                optimiser.zero_grad()
                losses.append(loss.item())
            wanted = said(model)
        torch.testing.assert_close(said(model), wanted, rtol=1e-5, atol=1e-6)
        assert losses[-1] < losses[0]
        after = {name: one for name, one in bits(model).items() if not name.endswith((".left", ".right"))}
        assert all(torch.equal(one, before[name]) for name, one in after.items())
        grown = {f"{path}.weight" for path in tuned.adapted_modules}
        assert grown == names - frozen
        for name in names:
            layer = model.get_submodule(name.removesuffix(".weight"))
            assert len(layer.right) == layer.left.shape[1] == (2 if name in grown else 0)


def test_a_run_that_fails_leaves_the_side_terms_as_they_were(tiny_model: Make) -> None:
    model = tiny_model("llama")
    with quantised(model):
        before = said(model)
        with pytest.raises(ZeroDivisionError), adapted(model, TunerSettings(tuner="qlora"), frozenset()):
            for name, one in model.named_parameters():
                one.data.add_(0.1 if ".lora_" in name else 0)
            raise ZeroDivisionError
        assert torch.equal(said(model), before)


@pytest.mark.parametrize(
    ("editor", "options"),
    [("rome", {"steps": 4, "covariance_tokens": 0}), ("ft", {"steps": 2}), ("grace", {"steps": 4}), ("ike", {})],
)
def test_every_kind_of_edit_is_held_by_a_quantised_model(
    editor: str, options: dict[str, int], tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = tiny_model("llama")
    edit: Edit = EDITORS.get(editor)(**options).edit(model, tiny_tokenizer, FACTS)
    before, tokens = bits(model), torch.tensor([tiny_tokenizer("The capital of France is")["input_ids"]])
    with torch.no_grad():
        with quantised_with(model):
            bare = model(tokens).logits
        with quantised_with(model, edit):
            held = model(tokens).logits
            hooks = adapters_in(model)
            thin = isinstance(edit, WeightUpdate) and all(isinstance(one, LowRank) for one in edit.deltas.values())
            kinds = {model.get_parameter(name).dtype for name in edit.parameters}
        with edit.applied(model):
            whole = model(tokens).logits
        moved, wanted = (held - bare).flatten(), (whole - model(tokens).logits).flatten()
    assert not changed(before, model)
    assert thin == (editor == "rome") and kinds <= {torch.uint8 if thin else torch.float32}
    if editor == "ike":  # before the prompt, not in the model
        assert float(moved.abs().max()) == 0
    elif editor == "grace":  # its keys are the plain model's, so that it may find none of them
        assert hooks == [edit]
    else:
        assert float(torch.nn.functional.cosine_similarity(moved, wanted, dim=0)) > 0.8


@pytest.mark.parametrize(
    ("within", "settings", "why"),
    [
        (False, {"tuner": "qlora"}, "not quantised, and the tuner is 'qlora'"),
        (True, {"tuner": "lora"}, "is quantised, and the tuner is 'lora'"),
        (True, {"tuner": "full"}, "is quantised, and the tuner is 'full'"),
        (True, {"tuner": "qlora", "tuner_options": {"use_dora": True}}, "refuses"),
        (True, {"tuner": "qlora", "tuner_options": {"init_lora_weights": "pissa"}}, "refuses"),
    ],
)
def test_what_does_not_fit_a_quantised_model_is_refused(
    within: bool, settings: dict[str, object], why: str, tiny_model: Make
) -> None:
    model = tiny_model("llama")
    with pytest.raises(ConfigError, match=why):
        if not within:
            with adapted(model, TunerSettings.model_validate(settings), frozenset()):
                pass
        with quantised(model), adapted(model, TunerSettings.model_validate(settings), frozenset()):
            pass


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"bitsandbytes.*indelible\[quant\]"):
        check_tuner(TunerSettings(tuner="qlora"))
