"""The norm of an edit is the norm of the change that it makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from indelible.edits.deltas.weights import Dense, LowRank, WeightUpdate
from indelible.study.run.steps.edit import update_norms


def test_thin_and_full_differences_are_measured_and_averaged_over_copies() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator) for shape in ((40, 3), (3, 25)))
    thin, full = LowRank(left, right), Dense(torch.full((2, 2), 2.0))
    size = float(np.linalg.norm(left.double().numpy() @ right.double().numpy()))
    assert update_norms([WeightUpdate({"a": thin, "b": full}, {})]) == {
        "a": pytest.approx(size, rel=1e-12),
        "b": pytest.approx(4.0),
    }
    copies = [WeightUpdate({"a": LowRank(left, right * (1 + 2 * copy))}, {}) for copy in range(2)]
    assert update_norms(copies) == {"a": pytest.approx(2 * size, rel=1e-6)}
    assert update_norms([WeightUpdate({"a": LowRank(left * 0, right)}, {})]) == {"a": 0.0}
