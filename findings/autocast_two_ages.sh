#!/usr/bin/env bash
# torch 2.13.0 (transformers 5.23.0, peft 0.21.2): within one autocast region a model is read at two ages at once.
#
# Seen (bfloat16 autocast on CPU): a weight that wants a gradient is cast once, at its first use, and the copy serves
# until the region ends, whatever becomes of the weight; norms, embeddings and frozen weights are read afresh at each
# pass.
#   four steps of SGD in one region            loss 5.03, 4.45, 4.16, 3.95; with a region for each pass 5.03, 3.83, 2.62,
#                                              1.87: it falls, so nobody looks, but linear layers stay at step 0
#   lm_head set to zero in place, or its .data replaced        not one logit moves before the region ends
#   LoRA, another adapter's weights copied in                  not one logit moves; right after the region
#   LoRA, merge_adapter() where the base wants gradients       the adapter is gone: logits of the bare base
#   LoRA, merge_adapter() where the base is frozen             right
# Guess: the cast is a cheap view, or the cache looks at the tensor's version as autograd does.
# Hurts: whoever edits, merges, restores or swaps weights and measures in one `with torch.autocast(...)`, or puts it
# around the whole loop: edits seem to fail, restored weights seem to keep, and training is of no model at all. Way
# out: one region for each forward pass, or cache_enabled=False.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import contextlib

import peft
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

print("torch", torch.__version__, "transformers", transformers.__version__, "peft", peft.__version__)
SHAPE = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = torch.tensor([[5, 6, 7, 8, 9]])


def region(**options):
    return torch.autocast("cpu", torch.bfloat16, **options)


def made() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, initializer_range=0.3)).eval()


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(TOKENS, use_cache=False).logits.float()


def off(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one - two).abs().max())


def losses(*, one_region: bool) -> list[float]:
    """Of four steps of gradient descent."""
    model, seen = made(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with region() if one_region else contextlib.nullcontext():
        for _ in range(4):
            with region():
                loss = model(TOKENS, labels=TOKENS, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(float(loss.detach()))
    return seen


def filled(model: torch.nn.Module, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=draws) * 0.1)


together, apart = losses(one_region=True), losses(one_region=False)
print("one region:", [round(loss, 2) for loss in together], "one a pass:", [round(loss, 2) for loss in apart])
assert together[0] == apart[0] and together[-1] > 1.5 * apart[-1], "changed"

moved = {}
for cached in (True, False):
    for way in ("in place", ".data"):
        model = made()
        with region(cache_enabled=cached):
            before = logits(model)
            if way == "in place":
                model.lm_head.weight.data.zero_()
            else:
                model.lm_head.weight.data = torch.zeros_like(model.lm_head.weight)
            moved[cached, way] = off(before, logits(model))
print("lm_head set to zero, logits moved by:", moved)
assert not moved[True, "in place"] and not moved[True, ".data"], "changed"
assert moved[False, "in place"] > 0.1 and moved[False, ".data"] > 0.1, "changed"

for frozen in (True, False):
    model = peft.get_peft_model(made(), peft.LoraConfig(target_modules=["q_proj", "v_proj"])).eval()
    model.requires_grad_(not frozen)
    for name, weight in model.named_parameters():
        weight.requires_grad_(not frozen or "lora_" in name)
    filled(model, 1)
    with region():
        adapted = logits(model)
    with region(), model.disable_adapter():
        bare = logits(model)
    with region():
        logits(model)
        model.merge_adapter()
        merged = logits(model)
        model.unmerge_adapter()
    print(f"base {'frozen' if frozen else 'wants gradients'}: merged, {off(merged, adapted):.2f} from the adapted model,",
          f"{off(merged, bare):.2f} from the bare one (these two: {off(adapted, bare):.2f})")
    assert (off(merged, bare) == 0) == (not frozen), "changed"
    assert frozen == (off(merged, adapted) < 0.5), "changed"
    with region():
        first = logits(model)
        filled(model, 2)
        inside = off(first, logits(model))
    with region():
        outside = off(first, logits(model))
    print(f"  another adapter copied in: moved by {inside:.2f} within the region, by {outside:.2f} after it")
    assert inside == 0 and outside > 0.5, "changed"
PYTHON
