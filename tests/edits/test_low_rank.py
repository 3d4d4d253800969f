"""Factored differences of weights: the same bits in whatever order they are summed, and no precision lost in sums."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from indelible.edits.deltas.manifest import Origin, WeightManifest
from indelible.edits.deltas.weights import Dense, LowRank, WeightUpdate, combined


@pytest.mark.parametrize("rank", [1, 5, 24, 100])
def test_a_difference_has_the_same_bits_in_whatever_order_it_is_summed(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    scales = torch.logspace(-6, 3, rank)[torch.randperm(rank, generator=generator)]
    left = torch.randn(40, rank, generator=generator) * scales
    right = torch.randn(rank, 70, generator=generator) / scales[:, None]
    wanted = LowRank(left, right).difference()
    for seed in range(3):
        order = torch.randperm(rank, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(LowRank(left[:, order], right[order]).difference(), wanted)
    rows = torch.cat([LowRank(left[part : part + 1], right).difference() for part in range(40)])
    assert torch.equal(rows, wanted)
    # Nothing is lost by it: the error is that of factors in float32, entry by entry of the largest product.
    exact = left.double() @ right.double()
    largest = left.abs().amax(1).double()[:, None] * right.abs().amax(0).double()
    assert ((wanted - exact).abs() / largest).max() < rank * 2.0**-21
    plain = LowRank(torch.randn(40, rank, generator=generator), torch.randn(rank, 70, generator=generator))
    exact = plain.left.double() @ plain.right.double()
    assert (plain.difference() - exact).abs().max() < 4e-7 * exact.abs().max()


def test_terms_that_cancel_leave_the_same_bits_in_whatever_order_they_are_summed() -> None:
    generator = torch.Generator().manual_seed(0)
    large, small = (torch.randn(40, 3, generator=generator) for _ in range(2))
    left = torch.cat([1e6 * large, 1e-3 * small, -1e6 * large], 1)
    right = torch.randn(6, 70, generator=generator)
    right = torch.cat([right, right[:3]])
    orders = [torch.randperm(9, generator=generator) for _ in range(5)]
    found = [LowRank(left[:, order], right[order]).difference() for order in orders]
    assert all(torch.equal(found[0], one) for one in found[1:])
    plain = [(left.double()[:, order] @ right.double()[order]).float() for order in orders]
    assert any(not torch.equal(plain[0], one) for one in plain[1:]), "then there would be nothing to see to"


def test_sums_of_unlike_scales_keep_their_precision() -> None:
    """One update's pairs have their size on the right, the other's on the left, as EMMET's and LoRA's have."""
    generator = torch.Generator().manual_seed(0)

    def drawn(rows: int, columns: int, size: float) -> Tensor:
        return size * torch.randn(rows, columns, generator=generator)

    first = LowRank(drawn(60, 4, 1e-5), drawn(4, 50, 215.0))
    second = LowRank(drawn(60, 3, 2.0), drawn(3, 50, 1e-3))
    total = combined(first, second)
    assert isinstance(total, LowRank)
    exact = first.left.double() @ first.right.double() + second.left.double() @ second.right.double()
    error = (total.difference().double() - exact).abs().max() / exact.abs().max()
    assert error < 3e-7
    as_they_stand = LowRank(torch.cat([first.left, second.left], dim=1), torch.cat([first.right, second.right]))
    assert (as_they_stand.difference().double() - exact).abs().max() / exact.abs().max() > 10 * error
    # The balancing itself is exact, and balanced pairs stay as they are.
    torch.testing.assert_close(total.left.double() @ total.right.double(), exact, rtol=1e-12, atol=1e-14)
    again = LowRank.balanced(total.left, total.right)
    assert torch.equal(again.left, total.left) and torch.equal(again.right, total.right)
    sizes = total.left.abs().amax(0) / total.right.abs().amax(1)
    assert bool((sizes < 4).all()) and bool((sizes > 1 / 4).all())


def test_saved_factors_are_loaded_as_they_stand() -> None:
    """A seal is of the bits that the saved factors give, which balanced ones would not."""
    generator = torch.Generator().manual_seed(0)
    factors = {
        "w:left": 1e-5 * torch.randn(60, 2, generator=generator),
        "w:right": 200 * torch.randn(2, 50, generator=generator),
    }
    factors["w:left"][:, 0] *= 1e3
    origin = Origin(name="", architecture="")
    manifest = WeightManifest(fingerprint="", model=origin, made=(), parameters=("w",), facts=())
    (delta,) = WeightUpdate.from_saved(manifest, factors).deltas.values()
    assert isinstance(delta, LowRank)
    assert torch.equal(delta.left, factors["w:left"]) and torch.equal(delta.right, factors["w:right"])
    other = LowRank.balanced(delta.left, delta.right)
    assert not torch.equal(other.difference(), delta.difference())


def test_pairs_of_zeros_are_balanced_as_they_are() -> None:
    left, right = torch.zeros(3, 2), torch.full((2, 4), 1e30)
    left[0, 0] = 1e-30
    found = LowRank.balanced(left, right)
    assert torch.equal(found.right[1], right[1]) and not bool(found.left[:, 1].any())
    assert float((found.left @ found.right)[0, 0]) == pytest.approx(1.0, rel=1e-6)


def test_thin_factors_stay_thin_until_the_full_matrix_is_smaller() -> None:
    assert not LowRank(torch.zeros(3, 2), torch.zeros(2, 4)).difference().any()
    thin = LowRank(torch.randn(8, 1), torch.randn(1, 6))
    twice = combined(thin, thin)
    assert isinstance(twice, LowRank)
    more = combined(combined(twice, twice), thin)
    assert isinstance(more, Dense)
    torch.testing.assert_close(more.difference(), 5 * thin.difference())
