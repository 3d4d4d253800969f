"""The norm of an edit, read from its files, is the norm of the change that it makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from indelible.study.run.update_norms import product_norm, update_norms


def write_edit(folder: Path, tensors: dict[str, np.ndarray], parameters: list[str], kind: str = "weights") -> None:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"kind": kind, "parameters": parameters}))
    save_file(tensors, folder / "update.safetensors")


def test_a_product_is_measured_without_forming_it() -> None:
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(40, 3)), generator.normal(size=(3, 25))
    assert product_norm(left, right) == pytest.approx(np.linalg.norm(left @ right), rel=1e-12)
    assert product_norm(left * 0, right) == 0


def test_norms_by_parameter_and_their_mean_over_copies(tmp_path: Path) -> None:
    thin = {"a:left": np.array([[3.0], [4.0]], np.float32), "a:right": np.array([[1.0, 0.0]], np.float32)}
    write_edit(tmp_path / "one" / "edit", {**thin, "b:full": np.full((2, 2), 2.0, np.float32)}, ["a", "b"])
    assert update_norms(tmp_path / "one") == {"a": pytest.approx(5.0), "b": pytest.approx(4.0)}
    for copy in range(2):
        of_copy = {**thin, "a:right": thin["a:right"] * (1 + 2 * copy)}
        write_edit(tmp_path / "each" / "edits" / f"{copy:04d}", of_copy, ["a"])
    assert update_norms(tmp_path / "each") == {"a": pytest.approx((5 + 15) / 2)}
    write_edit(tmp_path / "beside" / "edit", {"keys": np.zeros((1, 1), np.float32)}, ["a"], kind="codebook")
    assert update_norms(tmp_path / "beside") == {}
