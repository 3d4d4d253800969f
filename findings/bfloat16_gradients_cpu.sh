#!/usr/bin/env bash
# torch 2.13.0 on CPU (transformers 5.23.0): gradients of LayerNorm and Embedding in bfloat16 stop growing, by thread.
#
# Seen: the gradients of LayerNorm's weight and bias, of nn.Embedding and of indexing (weight[ids]) are summed up in
# the weight's own type. A sum of ones stands still at 256 in bfloat16 (2048 in float16), so for 16,384 tokens:
#   LayerNorm's bias     256 with one thread, 512 with two, 1024 with four: 256 a thread, where 16,384 is right
#   Embedding, indexing  256 with any number of threads
#   GroupNorm, Linear, index_select, scatter_add, expand    16,384
# In a random GPT-2 of two layers and 4,096 tokens, of which a third are one word, with one thread: the gradient of
# the last norm's bias has 0.30 of its length, that of other norms' biases 0.35 to 0.41, and a Llama's embedding of
# the frequent word 0.89, Mixtral's 0.82. Words that occur seldom are right to 1%, so that a check on a short text
# finds nothing.
# Guess: each is right to bfloat16's last digit (0.4%), as Linear is, and no gradient of 0.3 of its size hangs on a
# thread count.
# Hurts: whoever trains or attributes in pure bfloat16 on a CPU, as transformers 5 loads such a folder by default: the
# more tokens in a batch, the less of the gradient is left. Way out: float32 weights under autocast.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import torch
import transformers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

print("torch", torch.__version__, "transformers", transformers.__version__)
COUNT, WIDTH = 16_384, 64
IDS = torch.zeros(COUNT, dtype=torch.long)


def summed(layer: nn.Module, given: torch.Tensor, name: str) -> float:
    """The first gradient of a parameter where each of COUNT rows adds one to it."""
    layer(given).sum().backward()
    return float(layer.get_parameter(name).grad.flatten()[0])


def summed_of(kind: torch.dtype) -> dict[str, float]:
    rows = torch.randn(COUNT, WIDTH, generator=torch.Generator().manual_seed(0)).to(kind)
    weight = torch.ones(1, WIDTH, dtype=kind, requires_grad=True)
    found = {
        "LayerNorm": summed(nn.LayerNorm(WIDTH).to(kind), rows, "bias"),
        "GroupNorm": summed(nn.GroupNorm(4, WIDTH).to(kind), rows, "bias"),
        "Linear": summed(nn.Linear(WIDTH, WIDTH).to(kind), rows, "bias"),
        "Embedding": summed(nn.Embedding(2, WIDTH).to(kind), IDS, "weight"),
    }
    for name, taken in {
        "indexing": lambda: weight[IDS],
        "index_select": lambda: weight.index_select(0, IDS),
        "expand": lambda: weight.expand(COUNT, WIDTH),
    }.items():
        weight.grad = None
        taken().sum().backward()
        found[name] = float(weight.grad[0, 0])
    return found


EXACT = {"GroupNorm", "Linear", "index_select", "expand"}
for kind, most in ((torch.bfloat16, 256), (torch.float16, 2048)):
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found = summed_of(kind)
        print(kind, f"{threads} threads:", found)
        assert all(found[name] == COUNT for name in EXACT), "changed"
        assert found["Embedding"] == found["indexing"] == most, "changed"
        assert found["LayerNorm"] == most * threads, "changed"

torch.set_num_threads(1)
WORD = 7
SHAPE = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0}
GPT2 = {"vocab_size": 100, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "tie_word_embeddings": False}
GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
TEXTS = torch.randint(8, 100, (16, 256), generator=torch.Generator().manual_seed(0))
TEXTS[:, ::3] = WORD


def gradients(model: nn.Module, kind: torch.dtype) -> dict[str, torch.Tensor]:
    model.to(kind).zero_grad()
    model(TEXTS, labels=TEXTS, use_cache=False).loss.backward()
    return {name: weight.grad.float().clone() for name, weight in model.named_parameters()}


def length(one: torch.Tensor, other: torch.Tensor) -> float:
    return round(float(one.norm() / other.norm()), 3)


kept = {}
for kind, config in (
    (GPT2LMHeadModel, GPT2Config(**GPT2)),
    (LlamaForCausalLM, LlamaConfig(**SHAPE)),
    (MixtralForCausalLM, MixtralConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2)),
):
    torch.manual_seed(0)
    model = kind(config).to(torch.bfloat16).train()
    low = gradients(model, torch.bfloat16)
    exact = gradients(model, torch.float32)  # of the same weights, which bfloat16 holds exactly
    name = model.get_input_embeddings().weight
    name = next(key for key, weight in model.named_parameters() if weight is name)
    kept[kind.__name__] = length(low[name][WORD], exact[name][WORD])
    seldom = length(low[name][8:] - exact[name][8:], exact[name][8:])
    norms = {key: length(low[key], exact[key]) for key in exact if "ln_" in key and key.endswith("bias")}
    print(f"{kind.__name__}: embedding of the frequent word {kept[kind.__name__]} of its length, others off by {seldom}", norms)
    assert seldom < 0.02, "changed"
    assert kept[kind.__name__] < 0.99, "changed"
    assert kind is not GPT2LMHeadModel or norms["transformer.ln_f.bias"] < 0.5, "changed"
PYTHON
