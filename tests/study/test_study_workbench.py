"""The model of a study is the base model again after every step, whatever the step did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from indelible.models.fingerprint import fingerprint
from indelible.study.workbench import Workbench


@pytest.fixture
def bench(taught: Path) -> Workbench:
    return Workbench(str(taught / "model"), lambda note: None)


def test_weights_and_flags_are_put_back(bench: Workbench) -> None:
    with bench.base_model() as model:
        model.train()
        for weight in model.parameters():
            weight.requires_grad_(False)
        with torch.no_grad():
            next(iter(model.parameters())).fill_(float("nan"))
            model.lm_head.weight.add_(1.0)
        model.forward = lambda **inputs: None  # as mixed precision does
    with bench.base_model() as model:
        assert fingerprint(model) == bench.fingerprint
        assert not model.training
        assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
        assert "forward" not in vars(model)


def test_also_after_an_error(bench: Workbench) -> None:
    with pytest.raises(RuntimeError, match="broke"), bench.base_model() as model:
        with torch.no_grad():
            model.lm_head.weight.zero_()
        raise RuntimeError("broke")
    with bench.base_model() as model:
        assert fingerprint(model) == bench.fingerprint
