"""Data sets of the hub, in a folder as they lie there; and a hub that does not answer."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from own_data import error_of, examples_of, task_of

from indelible.errors import DataError
from indelible.tuning.own_data.sources import data_version
from indelible.tuning.settings import DataSettings


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert error_of("somebody/something").endswith("pip install 'indelible[trl]'")
    with pytest.raises(DataError, match=r"pip install 'indelible\[trl\]'"):
        data_version(DataSettings(source="something"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as data sets lie on the hub, and a hub that does not answer; nothing is written outside tmp_path."""
    datasets = pytest.importorskip("datasets")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(f'{{"text": "t{n}", "label": {n % 2}}}\n' for n in range(4)))
    (folder / "test.jsonl").write_text('{"text": "held", "label": 1}\n')
    return folder


def test_a_data_set_with_splits_is_read(hub: Path) -> None:
    task = task_of(str(hub), "classify", labels=("no", "yes"))
    assert sorted((example.prompt, example.answer) for example in task(0)) == [
        ("t0", "no"),
        ("t1", "yes"),
        ("t2", "no"),
        ("t3", "yes"),
    ]
    assert [example.text for example in examples_of(str(hub), "text", split="test")] == ["held"]
    versions = [data_version(DataSettings(source=str(hub), split=split)) for split in (None, "train", "test")]
    assert versions[0] == versions[1] != versions[2]
    (hub / "train.jsonl").write_text('{"text": "another", "label": 1}\n')
    assert data_version(DataSettings(source=str(hub))) != versions[0]


def test_classes_that_a_data_set_declares_are_its_labels(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["dull", "bright"])}
    )
    loaded = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=kinds)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
    task = task_of("some/films", "classify")
    assert task.labels == ("dull", "bright")
    assert sorted((example.prompt, example.answer) for example in task(0)) == [("a", "bright"), ("b", "dull")]


def test_what_a_data_set_lacks_is_named(hub: Path, tmp_path: Path) -> None:
    assert re.search("cannot be read: Unknown split .tset.*train.*test", error_of(str(hub), "text", split="tset"))
    assert re.search("cannot be read: .*'big' not found.*default", error_of(str(hub), "text", config="big"))
    assert "train" in error_of(str(hub), "text", split="train[:0]")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "cannot be read: The directory at" in error_of(str(empty), "text")


def test_a_hub_that_does_not_answer_is_one_clear_line(hub: Path) -> None:
    for ask in (lambda: task_of("somebody/something", "text"), lambda: data_version(DataSettings(source="something"))):
        with pytest.raises(DataError, match=r"cannot be read: Couldn't reach .*local file") as caught:
            ask()
        assert "\n" not in str(caught.value)
