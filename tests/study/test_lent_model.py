"""The model of a study is the base model again after every step, whatever the step did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from indelible.models.fingerprint import fingerprint
from indelible.study.run.base_model import LentModel


@pytest.fixture
def lent(taught: Path) -> LentModel:
    return LentModel(str(taught / "model"), lambda note: None)


def test_weights_and_flags_are_put_back_also_after_an_error(lent: LentModel) -> None:
    with pytest.raises(RuntimeError, match="broke"), lent.base_model() as model:
        model.train()
        for weight in model.parameters():
            weight.requires_grad_(False)
        with torch.no_grad():
            next(iter(model.parameters())).fill_(float("nan"))
            model.lm_head.weight.add_(1.0)
        model.forward = lambda **inputs: None  # as mixed precision does
        raise RuntimeError("broke")
    with lent.base_model() as model:
        assert fingerprint(model) == lent.fingerprint
        assert not model.training
        assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
        assert "forward" not in vars(model)
