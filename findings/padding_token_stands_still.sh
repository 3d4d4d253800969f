#!/usr/bin/env bash
# transformers 5.23.0, peft 0.21.2 (torch 2.13.0): the token that pads learns nothing where it is read.
#
# Most families hand config.pad_token_id to nn.Embedding, which drops the gradient of that row wherever the token is
# read, in padding or not. Many tokenizers pad with the token that ends a turn.
# Seen: tiny random models with a head of their own; each row has the end token three times, unpadded, with labels:
#   Llama, Qwen3, Gemma 2, Phi-3, OLMo 2, OPT    its embedding's gradient is 0; without a pad_token_id 3 to 6 times
#                                                that of others
#   GPT-2, GPT-NeoX, Falcon, Mamba               the same with and without
#   peft, trainable_token_indices=[the token]    0, where another that was asked for has 0.38
# Whether it learns changes on the way: Trainer writes its tokenizer's padding token into the model's config (and says
# so), which does nothing to the embedding that is there, but to the one that is made of the saved config:
#   Llama without one, six steps with Trainer    the end token's embedding moves by 0.100, others by 0.077
#   saved, loaded, six steps more                by 0, others by 0.068; with weight decay 0.1 by 0.004, the decay alone
# Guess: padding is a matter of masks and labels, and six steps and six are twelve.
# Hurts: whoever teaches an end of turn, or a token for tools or thought that also pads, in several turns, in stages or
# from a checkpoint: it keeps what it had, or fades. A tied head hides it, for there the row moves as an output.
# Way out: a padding token of its own, or embed_tokens.padding_idx = None after loading.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - > "$folder/said" 2> "$folder/errors" <<'PYTHON' || { cat "$folder/said" "$folder/errors"; exit 1; }
import peft
import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

print("#", "transformers", transformers.__version__, "peft", peft.__version__, "torch", torch.__version__)
torch.set_num_threads(1)
WORDS = [f"w{number}" for number in range(63)] + ["<end>"]
END = 63
ROWS = torch.randint(0, END, (8, 12), generator=torch.Generator().manual_seed(0))
ROWS[:, [3, 7, 10]] = END
SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 0}
SHAPE |= {"eos_token_id": END, "tie_word_embeddings": False, "initializer_range": 0.2}
WIDE = {"intermediate_size": 64, "num_key_value_heads": 2}
FAMILIES = {
    **{"llama": WIDE, "qwen3": WIDE | {"head_dim": 8}, "gemma2": WIDE | {"head_dim": 8}, "phi3": WIDE, "olmo2": WIDE},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2},
    **{"gpt2": {}, "gpt_neox": {"intermediate_size": 64}, "falcon": {}, "mamba": {}},
}


def made(family: str, pad: int | None) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        transformers.CONFIG_MAPPING[family](**SHAPE, **FAMILIES[family], pad_token_id=pad)
    ).eval()


def gradient(family: str, pad: int | None) -> float:
    """The gradient of the end token's embedding, as a part of the mean of others'."""
    model = made(family, pad)
    model(input_ids=ROWS, labels=ROWS).loss.backward()
    sizes = model.get_input_embeddings().weight.grad.norm(dim=1)
    return round(float(sizes[END] / sizes[ROWS[ROWS != END].unique()].mean()), 3)


found = {family: (gradient(family, END), gradient(family, None)) for family in FAMILIES}
print("# gradient when it pads, and when none does:", found)
still = {"llama", "qwen3", "gemma2", "phi3", "olmo2", "opt"}
for family, (pads, none) in found.items():
    assert none > 0.5 and (pads == 0 if family in still else pads == none), "changed"

asked = {"target_modules": ["q_proj"], "trainable_token_indices": [END, int(ROWS[0, 0])]}
model = peft.get_peft_model(made("llama", END), peft.LoraConfig(**asked))
model(input_ids=ROWS, labels=ROWS).loss.backward()
(sizes,) = (weight.grad.norm(dim=1) for name, weight in model.named_parameters() if "trainable_tokens_delta" in name)
print("# trainable_token_indices, the end token and another:", [round(float(size), 3) for size in sizes])
assert sizes[0] == 0 < sizes[1], "changed"

backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="w0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>", unk_token="w0")


def moved(model: torch.nn.Module, decay: float = 0.0) -> tuple[float, float]:
    """How far six steps take the end token's embedding, and others' on average."""
    table = model.get_input_embeddings().weight
    begin = table.detach().clone()
    settings = {"max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "weight_decay": decay}
    settings |= {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "bf16": False}
    rows = [{"input_ids": row, "labels": row} for row in ROWS]
    Trainer(model, TrainingArguments("out", **settings), train_dataset=rows, processing_class=tokenizer).train()
    far = (table.detach() - begin).norm(dim=1)
    return round(float(far[END]), 3), round(float(far[:END].mean()), 3)


model = made("llama", None)
first = moved(model)
model.save_pretrained("stage")
second, decayed = (
    moved(AutoModelForCausalLM.from_pretrained("stage", dtype=torch.float32), decay) for decay in (0.0, 0.1)
)
print("# first stage, end token and others:", *first, "second:", *second, "with weight decay:", *decayed)
assert first[0] > first[1] > 0 and second[0] == 0 < second[1] and 0 < decayed[0] < 0.2 * decayed[1], "changed"
PYTHON
grep '^#' "$folder/said"
