#!/usr/bin/env bash
# peft 0.21.2 (transformers 5.23.0, torch 2.13.0): what target_modules="all-linear" adapts in mixtures of experts.
#
# Seen, on untrained tiny models of each family, no warning in any case that says so:
#   mixtral, qwen3_moe, olmoe, deepseek_v3   attention, all experts and the router, which is no nn.Linear here; r=4
#                                            became rank 32 and 16 for four experts (8 and 4 each)
#   gpt_oss, granitemoe                      attention alone: 74% of the weights, the experts, are not adapted
#   llama4_text, phimoe                      the router too, and then the model cannot be called: AttributeError,
#                                            for the adapted router returns a tuple
# Guess: all-linear is every nn.Linear but the head, the same set in each family; or, since experts are one parameter
# of three axes now, attention alone everywhere. A router that must stay as it is would have to be asked for.
# Hurts: whoever compares fine-tuning, or forgetting, of different mixtures by "LoRA on all linear layers" (the sets
# differ by three quarters of the model), and whoever counts on routing to stay as the base model had it. Way out:
# name target_modules and target_parameters, and print what carries an adapter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip "$@" --quiet; }
pip install torch==2.13.0
pip install transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

print("peft", peft.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "vocab_size": 100}
DEEPSEEK = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
DEEPSEEK |= {"first_k_dense_replace": 0, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4}
DEEPSEEK |= {"qk_nope_head_dim": 4, "v_head_dim": 8, "num_key_value_heads": 4}
FAMILIES = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": DEEPSEEK,
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {"num_local_experts": 4, "head_dim": 8, "intermediate_size_mlp": 48, "interleave_moe_layer_step": 1},
    "phimoe": {"num_local_experts": 4},
}
WITH = {"attention", "experts", "router"}
EXPECTED = dict.fromkeys(("mixtral", "qwen3_moe", "olmoe", "deepseek_v3"), (WITH, "runs"))
EXPECTED |= dict.fromkeys(("gpt_oss", "granitemoe"), ({"attention"}, "runs"))
EXPECTED |= {"llama4_text": (WITH, "AttributeError"), "phimoe": ({"attention", "router"}, "AttributeError")}


def part(name: str) -> str:
    if "expert" in name:
        return "experts"
    return "router" if "router" in name or ".gate." in name else "attention" if "attn" in name else "other"


for family, more in FAMILIES.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE | more)).eval()
    everything = sum(weight.numel() for weight in model.parameters())
    in_experts = sum(weight.numel() for name, weight in model.named_parameters() if "expert" in name)
    ids = torch.arange(3, 15)[None]
    model(ids)  # as it is, it can be called
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    lora = {name: weight for name, weight in adapted.named_parameters() if ".lora_A." in name}
    parts = {part(name) for name in lora}
    ranks = sorted({weight.shape[0] for name, weight in lora.items() if part(name) == "experts"})
    try:
        adapted(ids)
        ran = "runs"
    except AttributeError as error:
        ran = type(error).__name__
    print(f"{family:<12} {in_experts / everything:.0%} of weights in experts; adapted: {sorted(parts)}, {ranks}; {ran}")
    assert (parts, ran) == EXPECTED[family], family
PYTHON
echo "as described"
