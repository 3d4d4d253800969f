"""Whatever fails, wherever in an edit, the model is left as it was: no weight, hook, mode or adapter stays changed."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from tiny_edits import BESIDE, SETTINGS, edit, editor
from worked_facts import CAPITALS, CORPUS

from indelible.edits.deltas import weights
from indelible.errors import LayoutError
from tiny_families import build_odd
from tiny_models import Make, Tokenizer
from untouched import untouched

SHORT = {"steps": 3}


class Planted(BaseException):
    """No Exception, so that nothing takes it for a way in which a family cannot be read: it is Ctrl-C, in effect."""


@pytest.mark.parametrize("name", [*SETTINGS, *BESIDE])
def test_an_edit_that_fails_at_any_pass_leaves_the_model_as_it_was(
    name: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    """Passes are read, optimised, changed on the way and sealed; each of a dozen, early and late, fails once."""
    model, options = tiny_model("llama"), {} if name == "ike" else dict(SHORT)
    calls = count(1)
    last = 0

    def run(fail_at: int) -> None:
        nonlocal calls, last
        calls = count(1)

        def counted(*_: Any) -> None:
            nonlocal last
            last = next(calls)
            if last == fail_at:
                raise Planted

        with model.get_input_embeddings().register_forward_pre_hook(counted):
            edit(name, model, tiny_tokenizer, CAPITALS[:2], identity=None, **options)

    with untouched(model):
        run(0)
    total = last
    for fail_at in sorted({1 + (total - 1) * part // 11 for part in range(12)} if total else ()):
        with untouched(model), pytest.raises(Planted):
            run(fail_at)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_edit_that_fails_at_its_change_leaves_the_model_as_it_was(
    name: str, tiny_model: Make, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    for part in ("fix_for", "product", "tensor_digest"):
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> None:
                raise Planted

            patch.setattr(weights, part, fail)
            with untouched(model), pytest.raises(Planted):
                edit(name, model, tiny_tokenizer, CAPITALS[:2], **SHORT)


@pytest.mark.parametrize("name", [*SETTINGS, "grace"])
def test_layers_without_a_memory_are_refused_before_anything_is_changed(name: str, tiny_tokenizer: Tokenizer) -> None:
    """But facts in the context, and adapters around all linear maps, need none."""
    model = build_odd("mixtral", len(tiny_tokenizer))
    with untouched(model), pytest.raises(LayoutError, match="no one linear map to edit"):
        edit(name, model, tiny_tokenizer)
    with untouched(model):
        edit("ike", model, tiny_tokenizer)


def test_adapters_leave_a_mixture_of_experts_as_it_was(tiny_tokenizer: Tokenizer) -> None:
    model = build_odd("mixtral", len(tiny_tokenizer))
    with untouched(model):
        names = edit("lora", model, tiny_tokenizer, target="all-linear", steps=3).parameters
    assert {name.split(".")[4] for name in names} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_each_layer_has_its_own_key_width(tiny_tokenizer: Tokenizer) -> None:
    """DeepSeek's first layer is dense, the others have narrower shared experts, which have to be named."""
    from indelible.models.layout import find_layout

    model = build_odd("deepseek_v3", len(tiny_tokenizer))
    layout = find_layout(model, mlp_out="mlp.shared_experts.down_proj")
    memit = editor("memit", layers=(0, 1))
    update = memit.edit(model, tiny_tokenizer, CAPITALS, corpus=CORPUS, layout=layout)
    assert [delta.shape[1] for delta in update.deltas.values()] == [64, 16]
