"""The estimate of the time that work in many pieces still takes."""

from __future__ import annotations

import time

import pytest

from indelible.progress import Clock, Piece

EDIT = Piece("e", "edit", "edit", 10.0)
TUNES = tuple(Piece(f"t{number}", "tune", "tune", 60.0) for number in range(3))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved by hand."""
    moment = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    return moment


def test_before_anything_is_timed_arithmetic_holds() -> None:
    assert Clock([EDIT, *TUNES], {}).left() == pytest.approx(190.0)


def test_what_was_timed_corrects_its_own_kind_and_all_of_it_what_was_never_timed() -> None:
    assert Clock([EDIT, *TUNES], {"t0": 120.0}).left() == pytest.approx(2 * (10 + 60 + 60))
    assert Clock([EDIT, *TUNES], {"e": 40.0, "t0": 60.0}).left() == pytest.approx(60 + 60)


def test_the_running_piece_counts_with_what_is_left_of_it(now: list[float]) -> None:
    clock = Clock(TUNES, {})
    clock.start(TUNES[0])
    now[0] = 20.0
    assert clock.left() == pytest.approx(40 + 60 + 60)
    clock.advance(TUNES[0], 0.25)  # so that the whole takes 80
    assert clock.left() == pytest.approx(60 + 80 + 80)
    now[0] = 90.0
    clock.advance(TUNES[0], 0.0)
    assert clock.left() == pytest.approx(0 + 60 + 60)


def test_pieces_that_are_over_count_no_more_and_failed_ones_time_nothing(now: list[float]) -> None:
    clock = Clock([EDIT, *TUNES], {})
    clock.start(EDIT)
    clock.end(EDIT, None)
    assert clock.left() == pytest.approx(180.0) and clock.over == {"e"}
    clock.start(TUNES[0])
    clock.end(TUNES[0], 30.0)
    assert clock.left() == pytest.approx(2 * 30.0)
    assert clock.place(TUNES[1]) == "3/4"


def test_pieces_of_which_nothing_was_expected_divide_nothing_by_zero() -> None:
    assert Clock([Piece("b", "choose", "choose", 0.0), EDIT], {"b": 0.1}).left() == pytest.approx(10.0)


def test_pieces_done_side_by_side_take_less_but_no_less_than_the_longest(now: list[float]) -> None:
    assert Clock([EDIT, *TUNES], {}, at_once=2).left() == pytest.approx(95.0)
    assert Clock([EDIT, *TUNES], {}, at_once=8).left() == pytest.approx(60.0)
    clock = Clock(TUNES, {}, at_once=2)
    clock.start(TUNES[0])
    clock.start(TUNES[1])
    now[0] = 30.0
    assert clock.left() == pytest.approx(60.0)
    clock.advance(TUNES[0], 0.25)  # 120 s the whole
    clock.advance(TUNES[1], 0.75)  # 40 s the whole: 80 s a piece
    assert clock.left() == pytest.approx((50 + 50 + 80) / 2)
    clock.end(TUNES[1], 40.0)
    assert clock.left() == pytest.approx(120.0)
