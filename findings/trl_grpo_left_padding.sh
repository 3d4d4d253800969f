#!/usr/bin/env bash
# trl 1.16.0 (transformers 5.23.0, torch 2.13.0): GRPO scores left-padded rows of GPT-2 at wrong positions.
#
# Seen: GRPOTrainer pads prompts on the left and passes an attention mask, but no position_ids. GPT-2 counts positions from
# the first column, padding included, so that the log-probabilities that the loss is taken on are nats away from those of
# the same row without padding (the tiny random model below: 3.1 at worst), for all prompts but the longest.
# Answers are generated at right positions, for generate() makes position_ids of the mask: old and new policy differ, and
# with them what is learned. GPT-Neo, GPT-BigCode, XGLM and BioGPT do as GPT-2 does. Llama, whose positions are relative,
# and OPT, which counts the mask, are right to 1e-5. RecurrentGemma and RWKV run padding through their state.
# Guess: what is scored is what was sampled, in every model that the trainer takes.
# Hurts: GRPO on models of GPT-2's kind with prompts of unequal length. Way out: turn rows until their prompt begins them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 trl==1.16.0 accelerate==1.15.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - <<'PYTHON'
import logging

import tokenizers
import torch
import transformers
import trl
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

logging.disable(logging.WARNING)
print("trl", trl.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
words = {f"w{number}": number for number in range(40)}
plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w2"))
plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
TOKENIZER = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="w0", pad_token="w1", unk_token="w2")
PROMPTS, ANSWER = ([5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15]), [20, 21, 22, 23]


def worst(model: torch.nn.Module) -> float:
    """Nats between what the trainer scores in a batch and the same rows alone."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3) if parameter.dim() > 1 else None
    rows = Dataset.from_list([{"prompt": "w5 w6 w7"}, {"prompt": "w8 w9"}])
    arguments = trl.GRPOConfig("out", use_cpu=True, report_to="none", bf16=False, per_device_train_batch_size=2,
                               num_generations=2, max_completion_length=4, beta=0.0)
    trainer = trl.GRPOTrainer(model, lambda completions, **_: [0.0] * len(completions), args=arguments,
                              train_dataset=rows, processing_class=TOKENIZER)
    model.eval()
    width = max(map(len, PROMPTS))
    ids = torch.tensor([[1] * (width - len(prompt)) + prompt + ANSWER for prompt in PROMPTS])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * (len(prompt) + 4) for prompt in PROMPTS])
    off = []
    with torch.no_grad():
        scored = trainer._get_per_token_logps_and_entropies(model, ids, mask, 4)[0]
        for one, prompt in zip(scored, PROMPTS):
            logits = model(torch.tensor([prompt + ANSWER])).logits[0, len(prompt) - 1 : -1]
            alone = logits.log_softmax(-1).gather(1, torch.tensor(ANSWER)[:, None])[:, 0]
            off.append(float((one - alone).abs().max()))
    return max(off)


torch.manual_seed(0)
shape = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
drop = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
gpt2 = worst(GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=32, n_embd=32, n_layer=2, n_head=4, **drop)))
llama = worst(LlamaForCausalLM(LlamaConfig(**shape)))
print(f"GPT-2: {gpt2:.3f} nats off, Llama: {llama:.1e}")
assert llama < 1e-4, "changed"
assert gpt2 > 0.5, "changed"
PYTHON
