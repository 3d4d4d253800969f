"""The closed form behind every locate-then-edit editor, as pure tensor functions.

A linear memory W (o x d) maps keys to values. Given new keys K and the change R that their values shall undergo, each
function returns a small change of W, measured by what the memory otherwise serves, as two thin factors. What is served
is the second moment C of other keys: factorised or decomposed once, by ``factorise`` or ``null_space``, however many
changes follow. The functions know nothing of models or facts, and compute in float64.

Shape suffixes: d key width, o value width, n new facts (columns), m directions of a null space, p earlier keys.
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


def equality(keys_dn: Tensor, residual_on: Tensor, factor_dd: Tensor, *, met_dn: Tensor | None = None) -> Factors:
    """Change W so that the values of the new keys change by exactly the residual.

    Minimises tr(D C D^T) subject to D K = R, whose solution is D = R (K^T C^-1 K)^+ K^T C^-1. With one column it is
    ROME's rank-one update (Meng et al. 2022, equation 2) with one key in all terms, as R-ROME has it (Gupta et al.
    2024, arXiv 2403.07175); with several it is EMMET's (Gupta et al. 2024, arXiv 2403.14236, equation 6). Columns that
    say the same twice (two wordings with one key) are met in the least-squares sense.

    Args:
        keys_dn: new keys, one column each.
        residual_on: wanted change of their values.
        factor_dd: of the covariance, from ``factorise``.
        met_dn: keys B at which the residual is to be met instead, D B = R: the change keeps the direction of
            ``keys_dn``, D = R (K^T C^-1 B)^+ K^T C^-1. ROME's code does so with a key averaged over contexts and the
            bare one.
    """
    keys, residual = keys_dn.double(), residual_on.double()
    whitened_dn = torch.cholesky_solve(keys, factor_dd)
    gram_nn = whitened_dn.T @ (keys if met_dn is None else met_dn.double())
    if met_dn is None:
        gram_nn = (gram_nn + gram_nn.T) / 2
    # Keys of equal wordings make the Gram matrix singular; beyond 1e-10 of its scale it holds rounding only.
    inverse_nn = torch.linalg.pinv(gram_nn, hermitian=met_dn is None, rtol=1e-10)
    return Factors(residual @ inverse_nn, whitened_dn.T.contiguous())


def ridge(keys_dn: Tensor, residual_on: Tensor, factor_dd: Tensor, weight: float) -> Factors:
    """Change W so that the values of the new keys change by about the residual, against ``weight`` times C.

    Minimises |D K - R|^2 + weight tr(D C D^T), whose solution is D = R K^T (weight C + K K^T)^-1 (MEMIT, Meng et al.
    2023, equation 14). Computed through the n x n system (Woodbury), since n is far smaller than d.

    Args:
        keys_dn: new keys.
        residual_on: wanted change of their values.
        factor_dd: of the covariance, from ``factorise``.
        weight: of preservation against the new facts, positive.
    """
    keys, residual = keys_dn.double(), residual_on.double()
    whitened_dn = torch.cholesky_solve(keys, factor_dd) / weight
    system_nn = torch.eye(keys.shape[1], dtype=keys.dtype, device=keys.device) + keys.T @ whitened_dn
    return Factors(torch.linalg.solve(system_nn, residual, left=False), whitened_dn.T.contiguous())


def null_space_ridge(
    keys_dn: Tensor, residual_on: Tensor, basis_dm: Tensor, weight: float, *, earlier_dp: Tensor | None = None
) -> Factors:
    """Change W so that the values of the new keys change by about the residual, inside the null space of C alone.

    With P = Q Q^T the projection on the null space, minimises |D P K - R|^2 + |D P K_p|^2 + weight |D P|^2 over D and
    returns D P = R K^T P (K_p K_p^T P + K K^T P + weight I)^-1 (AlphaEdit, Fang et al. 2024, arXiv 2410.02355, equation
    11). With S = Q^T [K, K_p] that is the first n rows of (S^T S + weight I)^-1 S^T Q^T, multiplied by R: a system of
    the size of the keys alone.

    Args:
        keys_dn: new keys, one column each.
        residual_on: wanted change of their values.
        basis_dm: orthonormal directions Q of the null space, from ``null_space``.
        weight: of the change's own size, positive, in units of squared keys.
        earlier_dp: keys of earlier edits, whose values should stay.
    """
    new = keys_dn.shape[1]
    keys = keys_dn.double() if earlier_dp is None else torch.cat([keys_dn.double(), earlier_dp.double()], dim=1)
    inside_mn = basis_dm.T @ keys
    system_nn = inside_mn.T @ inside_mn
    system_nn.diagonal().add_(weight)
    wanted = torch.eye(keys.shape[1], new, dtype=keys.dtype, device=keys.device)
    solved = torch.linalg.solve(system_nn, wanted)  # its transpose holds the first n rows of the inverse
    return Factors(residual_on.double(), (basis_dm @ (inside_mn @ solved)).T.contiguous())


def null_space(covariance_dd: Tensor, threshold: float, *, relative: bool = True) -> Tensor:
    """Directions in which keys hardly vary: eigenvectors of C with eigenvalues below the threshold, ``(d, m)`` float64.

    The threshold is in units of the mean eigenvalue, tr(C) / d, or else (AlphaEdit's own, 0.02) of squared keys.

    Raises:
        EditError: if there are none, or all are.
    """
    values_d, vectors_dd = torch.linalg.eigh(covariance_dd.double())
    small_d = values_d < (threshold * values_d.mean() if relative else threshold)
    if not bool(small_d.any()) or bool(small_d.all()):
        kind = "none" if not bool(small_d.any()) else "all"
        raise EditError(
            f"Of {len(values_d)} key directions {kind} lie in the null space at a threshold of {threshold}.",
            "Raise the threshold." if kind == "none" else "Lower the threshold.",
        )
    basis_dm: Tensor = vectors_dd[:, small_d].contiguous()
    return basis_dm


def factorise(covariance_dd: Tensor) -> Tensor:
    """The Cholesky factor of C, float64.

    Behind a ReLU there are units that no text makes fire. They have no second moment and would make C singular, though
    nothing speaks against changing what they are mapped to: they count as the rarest of the units that do fire.

    Raises:
        EditError: if the covariance is singular.
    """
    covariance_dd = covariance_dd.double().clone()
    moments_d = covariance_dd.diagonal()
    silent_d = moments_d == 0
    if bool(silent_d.any()) and not bool(silent_d.all()):
        moments_d[silent_d] = moments_d[~silent_d].min()
    factor_dd: Tensor
    factor_dd, failed = torch.linalg.cholesky_ex(covariance_dd)
    # The share of each unit's moment that the units before it leave open; below 1e-12 it is rounding.
    if int(failed) != 0 or bool((factor_dd.diagonal() ** 2 < 1e-12 * moments_d).any()):
        raise EditError(
            f"The covariance of {covariance_dd.shape[0]} key dimensions is singular.",
            "Estimate it from more tokens (covariance_tokens, or a larger corpus).",
        )
    return factor_dd
