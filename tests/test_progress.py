"""The estimate of the time that work in many pieces still takes."""

from __future__ import annotations

import random
import time

import pytest

from indelible.progress import RANGE, SURE, Clock, Piece

EDIT = Piece("e", "edit", "edit", 10.0)
TUNES = tuple(Piece(f"t{number}", "tune", "tune", 60.0) for number in range(3))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved by hand."""
    moment = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    return moment


def test_before_anything_is_timed_it_is_the_range_of_arithmetic() -> None:
    assert Clock([EDIT, *TUNES], {}).left() == pytest.approx((190 * RANGE[0], 190 * RANGE[1]))


def test_what_was_timed_corrects_its_own_kind_most_and_makes_it_surer() -> None:
    low, high = Clock([EDIT, *TUNES], {"t0": 120.0}).left()
    overall = (120 + 19) / (60 + 19)
    tune = (120 + 6 * overall) / (60 + 6)
    assert low == pytest.approx(10 * overall * RANGE[0] + 120 * tune * RANGE[0] ** SURE)
    assert high == pytest.approx(10 * overall * RANGE[1] + 120 * tune * RANGE[1] ** SURE)


def test_the_running_piece_counts_with_what_is_left_of_it(now: list[float]) -> None:
    clock = Clock(TUNES, {})
    clock.start(TUNES[0])
    now[0] = 20.0
    assert clock.left() == pytest.approx((160 * RANGE[0], 160 * RANGE[1]))
    clock.advance(TUNES[0], 1 / 3)  # as was expected
    low, high = clock.left()
    assert low < 160 < high and high - low < 160 * (RANGE[1] - RANGE[0])
    now[0] = 90.0
    clock.advance(TUNES[0], 0.0)
    assert clock.left() == pytest.approx((120 * RANGE[0], 120 * RANGE[1]))


def test_pieces_that_are_over_count_no_more_and_failed_ones_time_nothing(now: list[float]) -> None:
    clock = Clock([EDIT, *TUNES], {})
    clock.start(EDIT)
    clock.end(EDIT, None)
    assert clock.left() == pytest.approx((180 * RANGE[0], 180 * RANGE[1])) and clock.over == {"e"}
    for tune in TUNES:
        clock.start(tune)
        clock.end(tune, 30.0)
    assert clock.left() == (0, 0)
    assert clock.place(TUNES[1]) == "3/4"


def test_pieces_of_which_nothing_was_expected_divide_nothing_by_zero() -> None:
    nothing = Piece("b", "choose", "choose", 0.0)
    assert Clock([nothing], {}).left() == (0, 0)
    assert Clock([nothing, EDIT], {"b": 0.1}).left() == pytest.approx(
        (11 / 10 * 10 * RANGE[0], 11 / 10 * 10 * RANGE[1])
    )


def test_pieces_done_side_by_side_take_less_but_no_less_than_the_longest(now: list[float]) -> None:
    assert Clock([EDIT, *TUNES], {}, at_once=2).left() == pytest.approx((95 * RANGE[0], 95 * RANGE[1]))
    assert Clock([EDIT, *TUNES], {}, at_once=8).left() == pytest.approx((60 * RANGE[0], 60 * RANGE[1]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("wrong", [0.1, 1.0, 10.0])
def test_what_is_said_moves_slowly_however_wrong_arithmetic_is(now: list[float], wrong: float, seed: int) -> None:
    """A study of three seeds, of whose kinds each takes another multiple of what was expected, up to tenfold."""
    draw = random.Random(seed)
    kinds = {"select": 5.0, "probe": 8.0, "edit": 20.0, "tune": 90.0}
    truth = {kind: wrong ** draw.uniform(0, 1) for kind in kinds}
    pieces = [Piece(f"{kind}{n}", kind, kind, expected) for n in range(3) for kind, expected in kinds.items()]
    clock, said, ends = Clock(pieces, {}), [], []
    for piece in pieces:
        clock.start(piece)
        takes = piece.expected * truth[piece.kind] * draw.uniform(0.8, 1.25)
        for part in range(1, 101):
            now[0] += takes / 100
            clock.advance(piece, part / 100)
            said.append(clock.left())
            ends.append(now[0])
        clock.end(piece, takes)
        said.append(clock.left())
        ends.append(now[0])
    left = [ends[-1] - moment for moment in ends]
    large = [place for place, rest in enumerate(left[:-1]) if rest > 0.05 * ends[-1]]
    for place in large:
        for one, other in zip(said[place], said[place + 1], strict=True):
            assert 1 / 2 < one / other < 2, (left[place], said[place], said[place + 1])
    later = [place for place in large if ends[place] > ends[-1] / 2]
    assert all(0.7 * said[place].low < left[place] < said[place].high / 0.7 for place in later)
