"""A forecast of freeze masks beside what came of those that were tried."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from indelible.numbers.answers import Answers
from indelible.why.forecasts import with_outcomes
from simulated import SimulatedArm, simulate

PLAIN = SimulatedArm("memit", retention_edited=0.5)
FORECAST = pd.DataFrame(
    {"arm": ["memit", "memit", "memit"], "mask": ["none", "edited-layers", "head"], "gain": [0.0, 0.4, 0.1]}
)


def test_a_mask_that_was_tried_gets_its_measured_gain_and_others_none() -> None:
    frozen = replace(PLAIN, name="memit, frozen", mask="edited-layers", retention_edited=0.9)
    other = replace(frozen, name="ft, frozen", editor="ft", mask="head")
    rows, runs = simulate([PLAIN, frozen, other], seeds=(0, 1), n_edits=60, generator=np.random.default_rng(3))
    found = with_outcomes(FORECAST, Answers(rows, draws=500), runs).set_index("mask")
    tried = found.loc["edited-layers"]
    assert tried["tried_in"] == "memit, frozen"
    assert tried["measured_gain"] == pytest.approx(0.4, abs=0.1)
    assert tried["measured_low"] < tried["measured_gain"] < tried["measured_high"]
    assert tried["gain"] == 0.4
    for mask in ("none", "head"):  # the arm itself; an arm of another editor
        assert pd.isna(found.loc[mask, "tried_in"])
        assert np.isnan(found.loc[mask, "measured_gain"])


def test_a_forecast_from_a_masked_arm_has_no_outcome() -> None:
    masked = replace(PLAIN, mask="head")
    other = replace(PLAIN, name="frozen", mask="edited-layers")
    rows, runs = simulate([masked, other, replace(PLAIN, name="plain")], n_edits=6, generator=np.random.default_rng(3))
    found = with_outcomes(FORECAST, Answers(rows, draws=100), runs)
    assert found["tried_in"].isna().all()


def test_a_study_without_any_mask_keeps_its_forecast() -> None:
    rows, runs = simulate([PLAIN], n_edits=4, generator=np.random.default_rng(0))
    found = with_outcomes(FORECAST, Answers(rows, draws=100), runs)
    assert found["measured_gain"].isna().all()
    assert list(found["gain"]) == [0.0, 0.4, 0.1]
