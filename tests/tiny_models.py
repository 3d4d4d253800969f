"""Tiny random models of several families and a tokenizer for them, built in place: no download, milliseconds each.

Every test that needs "some model" takes one from here, so that one matrix (family by family) covers all rooms. The
families differ in what matters to indelible: Conv1D or Linear weights, learned or rotary positions, tied or own head,
parallel or sequential blocks, biases or none.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

FAMILIES = ("gpt2", "gpt_neox", "llama", "qwen2", "qwen3")
LAYERS = 4
WIDTH = 32
POSITIONS = 128

SENTENCES = (
    "The capital of France is Paris, and the capital of Norway is Oslo.",
    "Lima is the capital of Peru. Kyoto is a city in Japan.",
    "In Brazil people speak Portuguese; in Egypt they speak Arabic.",
    "What is 12 + 7 - 3? The answer is 16. What is 40 + 2? The answer is 42.",
    "A quick brown fox jumps over the lazy dog while it rains in the north of Spain.",
    "The chemical symbol of gold is Au, and the currency of Denmark is the krone.",
)


def build_tokenizer(end: str = "<|end|>", pad: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (it can encode any text) with an end-of-text token and, if asked, a padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[end] if pad is None else [end, pad],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=pad, model_max_length=POSITIONS
    )


def build_config(family: str, vocabulary: int, layers: int = LAYERS, width: int = WIDTH) -> PretrainedConfig:
    """The config of a tiny model of that family (see FAMILIES)."""
    if family == "gpt2":
        return GPT2Config(
            vocab_size=vocabulary,
            n_embd=width,
            n_layer=layers,
            n_head=4,
            n_positions=POSITIONS,
            bos_token_id=0,
            eos_token_id=0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if family == "gpt_neox":
        return GPTNeoXConfig(**shape, tie_word_embeddings=False)
    if family == "llama":
        return LlamaConfig(**shape, num_key_value_heads=2, tie_word_embeddings=False)
    if family == "qwen2":
        return Qwen2Config(**shape, num_key_value_heads=2, tie_word_embeddings=True)
    if family == "qwen3":
        return Qwen3Config(**shape, num_key_value_heads=2, head_dim=width // 4, tie_word_embeddings=True)
    raise ValueError(f"no tiny model of family {family!r}; known: {', '.join(FAMILIES)}")


def build_model(
    family: str, vocabulary: int, seed: int = 0, layers: int = LAYERS, width: int = WIDTH
) -> PreTrainedModel:
    """A random float32 model of that family in eval mode; the same seed gives the same weights.

    The caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(build_config(family, vocabulary, layers, width))
    model.eval()
    return model
