"""The closed form behind every locate-then-edit editor, as pure tensor functions.

A linear memory W (o x d) maps keys to values. Given new keys K and the change R that their values shall undergo, each
function returns the smallest change of W, measured by the second moment C of the keys that the memory otherwise serves,
as two thin factors. They know nothing of models or facts, and compute in float64.

Shape suffixes: d key width, o value width, n new facts (columns).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from indelible.errors import EditError


@dataclass(frozen=True)
class Factors:
    """A low-rank change of a memory: ``change_od = left_on @ right_nd``."""

    left_on: Tensor
    right_nd: Tensor


def equality(keys_dn: Tensor, residual_on: Tensor, covariance_dd: Tensor) -> Factors:
    """Change W so that the values of the new keys change by exactly the residual.

    Minimises tr(D C D^T) subject to D K = R, whose solution is D = R (K^T C^-1 K)^+ K^T C^-1. With one column it is
    ROME's rank-one update (Meng et al. 2022, equation 2); with several it is EMMET's (Gupta et al. 2024, equation 6).
    Columns that say the same twice (two wordings with one key) are met in the least-squares sense.

    Args:
        keys_dn: new keys, one column each.
        residual_on: wanted change of their values.
        covariance_dd: second moment of the keys, positive definite.

    Raises:
        EditError: if the covariance is singular.
    """
    keys, residual = keys_dn.double(), residual_on.double()
    whitened_dn = _solve_covariance(covariance_dd, keys)
    gram_nn = keys.T @ whitened_dn
    # Keys of equal wordings make the Gram matrix singular; beyond 1e-10 of its scale it holds rounding only.
    inverse_nn = torch.linalg.pinv((gram_nn + gram_nn.T) / 2, hermitian=True, rtol=1e-10)
    return Factors(residual @ inverse_nn, whitened_dn.T.contiguous())


def ridge(keys_dn: Tensor, residual_on: Tensor, covariance_dd: Tensor, weight: float) -> Factors:
    """Change W so that the values of the new keys change by about the residual, against ``weight`` times C.

    Minimises |D K - R|^2 + weight tr(D C D^T), whose solution is D = R K^T (weight C + K K^T)^-1 (MEMIT, Meng et al.
    2023, equation 14). Computed through the n x n system (Woodbury), since n is far smaller than d.

    Args:
        keys_dn: new keys, one column each.
        residual_on: wanted change of their values.
        covariance_dd: second moment of the keys, positive definite.
        weight: of preservation against the new facts, positive.

    Raises:
        EditError: if the covariance is singular.
    """
    keys, residual = keys_dn.double(), residual_on.double()
    whitened_dn = _solve_covariance(covariance_dd, keys) / weight
    system_nn = torch.eye(keys.shape[1], dtype=keys.dtype, device=keys.device) + keys.T @ whitened_dn
    return Factors(torch.linalg.solve(system_nn, residual, left=False), whitened_dn.T.contiguous())


def _solve_covariance(covariance_dd: Tensor, keys_dn: Tensor) -> Tensor:
    """C^-1 K through a Cholesky factor.

    Behind a ReLU there are units that no text makes fire. They have no second moment and would make C singular, though
    nothing speaks against changing what they are mapped to: they count as the rarest of the units that do fire.
    """
    covariance_dd = covariance_dd.double().clone()
    moments_d = covariance_dd.diagonal()
    silent_d = moments_d == 0
    if bool(silent_d.any()) and not bool(silent_d.all()):
        moments_d[silent_d] = moments_d[~silent_d].min()
    factor_dd, failed = torch.linalg.cholesky_ex(covariance_dd)
    # The share of each unit's moment that the units before it leave open; below 1e-12 it is rounding.
    if int(failed) != 0 or bool((factor_dd.diagonal() ** 2 < 1e-12 * moments_d).any()):
        raise EditError(
            f"The covariance of {covariance_dd.shape[0]} key dimensions is singular.",
            "Estimate it from more tokens (covariance_tokens, or a larger corpus).",
        )
    return torch.cholesky_solve(keys_dn, factor_dd)
