"""The estimate of the time that a study still takes."""

from __future__ import annotations

import pytest

from indelible.study.run.progress import seconds_left


def test_nothing_is_claimed_before_anything_is_timed() -> None:
    assert seconds_left(["edit", "tune"], {}, "select", 3.0, 0.0) is None


def test_timed_kinds_count_as_they_were_timed() -> None:
    timed = {"edit": 10.0, "tune": 60.0}
    assert seconds_left(["edit", "tune", "tune"], timed, None, 0.0, 0.0) == pytest.approx(130.0)


def test_the_running_step_counts_with_what_is_left_of_it() -> None:
    assert seconds_left([], {}, "tune", 30.0, 0.25) == pytest.approx(90.0)
    assert seconds_left(["tune"], {"tune": 60.0}, "tune", 20.0, 0.0) == pytest.approx(100.0)
    assert seconds_left([], {"tune": 60.0}, "tune", 80.0, 0.0) == 0.0


def test_kinds_that_were_not_timed_are_guessed_from_those_that_were() -> None:
    left = seconds_left(["edit"], {"base-probe": 5.0}, None, 0.0, 0.0)
    assert left is not None
    assert left > 5.0
