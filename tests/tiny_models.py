"""Tiny random models of several families and a tokenizer for them, built in place: no download, milliseconds each.

Every test that needs "some model" takes one from here, so that one matrix (family by family) covers all rooms. The
families differ in what matters to indelible: Conv1D or Linear weights, learned or rotary positions, tied or own head,
parallel or sequential blocks, biases or none.
"""

from __future__ import annotations

from collections.abc import Callable

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

Tokenizer = PreTrainedTokenizerFast
Make = Callable[..., PreTrainedModel]
"""``make(family, seed=0, layers=4, width=32)``: a fresh model, as the fixture tiny_model makes it."""

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
    tokenizer = tokenizers.Tokenizer(models.BPE())
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
    shape = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
    }
    settings = {
        "gpt2": {
            **{"n_embd": width, "n_layer": layers, "n_head": 4, "n_positions": POSITIONS},
            **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        },
        "gpt_neox": {**shape, "tie_word_embeddings": False},
        "llama": {**shape, "num_key_value_heads": 2, "tie_word_embeddings": False},
        "qwen2": {**shape, "num_key_value_heads": 2, "tie_word_embeddings": True},
        "qwen3": {**shape, "num_key_value_heads": 2, "head_dim": width // 4, "tie_word_embeddings": True},
    }
    return CONFIG_MAPPING[family](vocab_size=vocabulary, bos_token_id=0, eos_token_id=0, **settings[family])


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


def with_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """The model with a tenth dropped in training, so that what it learns hangs on random draws."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    return model


def moved(model: PreTrainedModel, *begins: str, by: float = 0.1) -> dict[str, torch.Tensor]:
    """Weights as after tuning: those whose names begin so, or all, a good way from where they were."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: weight.detach() + by * torch.randn(weight.shape, generator=generator)
        for name, weight in model.named_parameters()
        if name.startswith(begins or ("",))
    }
