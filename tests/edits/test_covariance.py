"""Second moments against numpy on captured keys; one pass for all layers; the cache and what it is keyed by."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tiny_edits import bench_of
from transformers import PreTrainedModel
from worked_facts import CORPUS

from indelible.edits.solving import covariance
from indelible.edits.solving.covariance import second_moments
from indelible.errors import EditError, IndelibleWarning
from indelible.models.fingerprint import Identity
from small_disks import small_disk
from tiny_families import TABLE, build_family, enliven
from tiny_models import Make, Tokenizer

TOKENS = 128 * 11  # more than one pass, and not a whole number of them


def moments(
    model: PreTrainedModel, tokenizer: Tokenizer, layers: tuple[int, ...], *, tokens: int = TOKENS, **more: Any
) -> dict[int, torch.Tensor]:
    asked = {key: more.pop(key) for key in {"texts", "first_tokens"} & more.keys()}
    given = {"corpus": CORPUS, "identity": Identity.of(model), **more}
    return dict(second_moments(bench_of(model, tokenizer, **given), layers, tokens, **asked))


@pytest.mark.parametrize("family", ["gpt2", "opt", "bloom", "llama", "gemma2"])
def test_moments_are_those_of_the_keys(family: str, tiny_tokenizer: Tokenizer) -> None:
    """Over all tokens but the first of each row and the special ones."""
    model = enliven(build_family(family, len(tiny_tokenizer)))
    corpus = [f"{text}{tiny_tokenizer.eos_token}" for text in CORPUS]
    found = moments(model, tiny_tokenizer, (0, 2), corpus=corpus)
    stream = [token for text in corpus for token in tiny_tokenizer(text)["input_ids"]][:TOKENS]
    for layer in (0, 2):
        keys: list[np.ndarray] = []
        memory = model.get_submodule(f"{TABLE[family].blocks}.{layer}.{TABLE[family].mlp_out}")
        handle = memory.register_forward_pre_hook(
            lambda _module, args, keys=keys: keys.append(args[0].reshape(-1, args[0].shape[-1]).double().numpy())
        )
        with torch.no_grad():
            for start in range(0, TOKENS, 128):
                model(torch.tensor([stream[start : start + 128]]))
        handle.remove()
        all_keys = np.concatenate(keys)
        assert all_keys.shape == (TOKENS, TABLE[family].key_width)
        ordinary = [place for place, token in enumerate(stream) if place % 128 and token != tiny_tokenizer.eos_token_id]
        expected = all_keys[ordinary].T @ all_keys[ordinary] / len(ordinary)
        assert np.abs(found[layer].numpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_cache_answers_the_second_time_and_for_nothing_else(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    passes: list[str] = []

    def ask(model: PreTrainedModel, *layers: int, **more: Any) -> tuple[int, dict[int, torch.Tensor]]:
        passes.clear()
        found = moments(
            model, tiny_tokenizer, layers, cache=tmp_path / "new", progress=lambda *seen: passes.append("pass"), **more
        )
        return len(passes), found

    model = tiny_model("llama")
    first, fresh = ask(model, 0, 1)
    assert first == 2
    again, kept = ask(model, 0, 1)
    assert again == 0
    assert all(torch.equal(fresh[layer], kept[layer]) for layer in (0, 1))
    assert len(list((tmp_path / "new").iterdir())) == 2
    assert ask(model, 0, 2)[0] == 2  # one layer is new
    assert ask(model, 0, tokens=TOKENS - 128)[0] == 2
    assert ask(model, 0, corpus=CORPUS[1:])[0] == 2
    other, of_other = ask(tiny_model("llama", seed=1), 0)
    assert other == 2
    assert not torch.equal(of_other[0], fresh[0])


def test_a_damaged_cache_file_is_made_again(tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model("llama")
    fresh = moments(model, tiny_tokenizer, (1,), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    bits = [*range(0, 64 + 8 * size, 37), *range(64 + 8 * size, 8 * len(whole), 8 * len(whole) // 60 + 1)]
    for bit in bits:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        kept = covariance._kept(file)
        assert kept is None or torch.equal(kept, fresh[1]), bit
    assert len(bits) > 90
    older = {"moment": fresh[1] + 1}  # without a hash
    for content in (whole[:100], b"", bytes(flipped), save(older)):
        file.write_bytes(content)
        assert torch.equal(moments(model, tiny_tokenizer, (1,), cache=tmp_path)[1], fresh[1])
        assert file.read_bytes() == whole


def test_without_a_cache_that_can_be_written_the_work_goes_on_and_says_so_once(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model, cache = tiny_model("llama"), tmp_path / "file" / "cache"
    fresh = moments(model, tiny_tokenizer, (1,), cache=tmp_path / "good")
    (tmp_path / "file").touch()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(2):
            assert torch.equal(moments(model, tiny_tokenizer, (1,), cache=cache)[1], fresh[1])
        with small_disk(1000):
            assert torch.equal(moments(model, tiny_tokenizer, (1,), cache=tmp_path / "full")[1], fresh[1])
    said = [str(one.message) for one in told if one.category is IndelibleWarning]
    assert len(said) == 2 and "file/cache cannot be written: Not a directory. Set INDELIBLE_CACHE" in said[0]
    assert f"not kept for the next time: The disk that holds {tmp_path / 'full'}" in said[1] and "full. Set" in said[1]
    assert not list((tmp_path / "full").iterdir())


def test_too_few_tokens_and_too_short_a_corpus_are_refused(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    with pytest.raises(EditError, match=r"covariance_tokens is 127, too few for 64 key dimensions. Use at least 128"):
        moments(model, tiny_tokenizer, (0,), tokens=127)
    with pytest.raises(EditError, match=r"corpus has \d+ tokens, and the covariance wants 5000"):
        moments(model, tiny_tokenizer, (0,), tokens=5000, corpus=CORPUS[:3])
    with pytest.raises(EditError, match=r"corpus has 0 tokens"):
        moments(model, tiny_tokenizer, (0,), corpus=())


def test_matrices_too_large_to_be_worth_a_file_are_not_kept(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    width = model.config.intermediate_size
    monkeypatch.setattr(covariance, "_MOST_KEPT", 4 * width * width - 1)
    moments(model, tiny_tokenizer, (1,), cache=tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(covariance, "_MOST_KEPT", 4 * width * width)
    moments(model, tiny_tokenizer, (1,), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_so_many_texts_are_drawn_from_all_and_kept_apart_from_rows(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """What is read of each, and that every token counts, is held in test_published.py."""
    model = tiny_model("llama")
    given = {"cache": tmp_path, "tokens": 0}
    drawn = moments(model, tiny_tokenizer, (1,), texts=20, **given)[1]
    assert torch.equal(moments(model, tiny_tokenizer, (1,), texts=20, **given)[1], drawn)
    others = [
        moments(model, tiny_tokenizer, (1,), texts=20, first_tokens=True, **given)[1],
        moments(model, tiny_tokenizer, (1,), texts=len(CORPUS), **given)[1],
        moments(model, tiny_tokenizer, (1,), texts=20, corpus=CORPUS[:20], **given)[1],  # drawn, not the first ones
    ]
    assert not any(torch.allclose(drawn, other, rtol=1e-4) for other in others)
    assert len(list(tmp_path.iterdir())) == 4
    everything = moments(model, tiny_tokenizer, (1,), texts=100_000, **given)[1]
    assert torch.equal(everything, others[1])
    with pytest.raises(EditError, match=r"texts read \(1\) have \d+ tokens, and a covariance wants 128"):
        moments(model, tiny_tokenizer, (1,), texts=1, **given)
