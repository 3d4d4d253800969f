"""The closed forms against their defining equations, in float64 numpy and with full d x d matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from indelible.edits.solving.solve import Factors, equality, factorise, null_space, null_space_ridge, ridge
from indelible.errors import EditError


def problem(seed: int, keys: int, width: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys, residuals and an ill-scaled positive definite second moment."""
    random = np.random.default_rng(seed)
    seen = random.normal(size=(4 * keys, keys)) * np.logspace(-2, 1, keys)
    return random.normal(size=(keys, new)), random.normal(size=(width, new)), seen.T @ seen / len(seen)


def change(factors: Factors) -> np.ndarray:
    return (factors.left_on @ factors.right_nd).numpy()


def met(keys: torch.Tensor, residual: torch.Tensor, moment: torch.Tensor) -> Factors:
    return equality(keys, residual, factorise(moment))


def weighed(keys: torch.Tensor, residual: torch.Tensor, moment: torch.Tensor, weight: float = 1.0) -> Factors:
    return ridge(keys, residual, factorise(moment), weight)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("new", [1, 2, 9])
@pytest.mark.parametrize("seed", [0, 1])
def test_ridge_is_the_minimiser_by_full_inverse(seed: int, new: int) -> None:
    """Also where two keys are equal, and of float32 input, which is solved in float64."""
    keys, residual, moment = problem(seed, 24, 7, new)
    keys[:, -1] = keys[:, 0]
    single = [array.astype(np.float32) for array in (keys, residual, moment)]
    for given in ([keys, residual, moment], single):
        wide_keys, wide_residual, wide_moment = (array.astype(np.float64) for array in given)
        expected = wide_residual @ wide_keys.T @ np.linalg.inv(3.5 * wide_moment + wide_keys @ wide_keys.T)
        assert_near(change(weighed(*tensors(*given), 3.5)), expected)


def test_ridge_by_hand() -> None:
    # d = 2, C = diag(1, 4), k = (1, 2), r = 3, weight 1: D = 3 k^T (C + k k^T)^-1 = 3 (1, 2) [[8, -2], [-2, 2]] / 12
    found = change(weighed(*tensors(np.array([[1.0], [2.0]]), np.array([[3.0]]), np.diag([1.0, 4.0])), 1.0))
    assert_near(found, np.array([[1.0, 0.5]]))


@pytest.mark.parametrize("new", [1, 2, 9])
@pytest.mark.parametrize("seed", [0, 1])
def test_equality_is_the_constrained_minimiser(seed: int, new: int) -> None:
    keys, residual, moment = problem(seed, 24, 7, new)
    found = change(met(*tensors(keys, residual, moment)))
    assert_near(found @ keys, residual)
    # Stationarity and constraint together, as one linear system: D C = M K^T, D K = R.
    zeros = np.zeros((new, new))
    system = np.block([[moment, -keys], [keys.T, zeros]])
    solution = np.linalg.solve(system, np.concatenate([np.zeros((24, 7)), residual.T]))
    assert_near(found, solution[:24].T)


def test_equality_with_one_key_is_romes_update_by_hand() -> None:
    # C = diag(1, 4), k = (1, 2): C^-1 k = (1, 1/2), k^T C^-1 k = 2, so D = r (1, 1/2) / 2 with r = (6, -2)
    found = change(met(*tensors(np.array([[1.0], [2.0]]), np.array([[6.0], [-2.0]]), np.diag([1.0, 4.0]))))
    assert_near(found, np.array([[3.0, 1.5], [-1.0, -0.5]]))


def test_equality_meets_equal_keys_in_their_mean() -> None:
    keys, residual, moment = problem(3, 12, 5, 3)
    twice = np.concatenate([keys, keys[:, :1]], axis=1)
    other = np.concatenate([residual, residual[:, :1] + 1.0], axis=1)
    mean = residual.copy()
    mean[:, 0] += 0.5
    assert_near(change(met(*tensors(twice, other, moment))), change(met(*tensors(keys, mean, moment))))


@pytest.mark.parametrize("solver", [met, weighed])
def test_a_singular_covariance_is_refused(solver: object) -> None:
    keys, residual, moment = problem(6, 6, 3, 2)
    moment[2, :] = moment[1, :]
    moment[:, 2] = moment[:, 1]
    with pytest.raises(EditError, match=r"covariance of 6 key dimensions is singular.*more tokens"):
        solver(*tensors(keys, residual, moment))  # type: ignore[operator]


@pytest.mark.parametrize("solver", [met, weighed])
def test_units_that_never_fire_count_as_the_rarest(solver: object) -> None:
    keys, residual, moment = problem(7, 6, 3, 2)
    moment[2, :] = moment[:, 2] = 0.0
    filled = moment.copy()
    filled[2, 2] = min(moment[unit, unit] for unit in range(6) if unit != 2)
    given = tensors(keys, residual, moment)
    assert_near(change(solver(*given)), change(solver(*tensors(keys, residual, filled))))  # type: ignore[operator]
    assert np.array_equal(given[2].numpy(), moment)
    keys[2] = 0.0  # nor for the new keys: their weights stay as they are
    assert np.all(change(solver(*tensors(keys, residual, moment)))[:, 2] == 0)  # type: ignore[operator]


@pytest.mark.parametrize("new", [1, 3])
def test_a_direction_and_the_keys_where_it_is_met_may_differ(new: int) -> None:
    """ROME's published update: u = C^-1 k, D = r u^T / (u^T b); for several columns the same with matrices."""
    keys, residual, moment = problem(8, 24, 7, new)
    bare = keys + 0.1 * np.random.default_rng(9).normal(size=keys.shape)
    given = tensors(keys, residual, moment, bare)
    found = change(equality(given[0], given[1], factorise(given[2]), met_dn=given[3]))
    directions = np.linalg.inv(moment) @ keys
    assert_near(found, residual @ np.linalg.inv(directions.T @ bare) @ directions.T)
    assert_near(found @ bare, residual)
    if new == 1:
        assert_near(found, residual @ directions.T / (directions.T @ bare))


def projection(moment: np.ndarray, threshold: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(moment)
    kept = vectors[:, values < threshold * values.mean()]
    assert 0 < kept.shape[1] < len(values)
    return kept @ kept.T


@pytest.mark.parametrize("earlier", [0, 5])
@pytest.mark.parametrize("new", [1, 4])
def test_null_space_ridge_is_the_published_formula(new: int, earlier: int) -> None:
    keys, residual, moment = problem(10, 24, 7, new)
    before = np.random.default_rng(11).normal(size=(24, earlier))
    project = projection(moment, 0.1)
    system = before @ before.T @ project + keys @ keys.T @ project + 0.7 * np.eye(24)
    expected = residual @ keys.T @ project @ np.linalg.inv(system)
    given = tensors(keys, residual, moment, before)
    basis = null_space(given[2], 0.1)
    found = change(null_space_ridge(given[0], given[1], basis, 0.7, earlier_dp=given[3] if earlier else None))
    assert_near(found, expected)
    # Nothing that lies outside the null space is mapped elsewhere.
    outside = (np.eye(24) - project) @ np.random.default_rng(12).normal(size=(24, 9))
    assert np.abs(found @ outside).max() < 1e-12 * np.abs(outside).max() * np.abs(found).max() * 1e3


def test_earlier_keys_keep_their_values_in_the_null_space() -> None:
    keys, residual, moment = problem(13, 24, 7, 2)
    given = tensors(keys, residual, moment)
    before = torch.from_numpy(np.random.default_rng(14).normal(size=(24, 3)))
    basis = null_space(given[2], 0.5)
    free = change(null_space_ridge(given[0], given[1], basis, 1e-6))
    held = change(null_space_ridge(given[0], given[1], basis, 1e-6, earlier_dp=before))
    assert np.abs(held @ before.numpy()).max() < 1e-4 < np.abs(free @ before.numpy()).max()
    assert np.abs(held @ keys - residual).max() < 1e-3


@pytest.mark.parametrize(("threshold", "words"), [(1e-9, "none lie.*Raise"), (1e9, "all lie.*Lower")])
def test_a_threshold_that_leaves_no_null_space_or_nothing_else_is_refused(threshold: float, words: str) -> None:
    with pytest.raises(EditError, match=words):
        null_space(torch.from_numpy(problem(15, 12, 3, 1)[2]), threshold)
