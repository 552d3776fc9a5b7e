"""Muon for the matrices inside the blocks: momentum, orthogonalised, then normalised per row or column.

Each part is one function on a stack (K, m, n) of equal shapes, in the order in which a step applies them:

    nesterov_momentum      direction of descent, smoothed
    equilibrate_rows       MuonEq: rows of equal norm, so that no row is lost in the orthogonalisation
    (ops.orthogonalize)    nearest semi-orthogonal matrix (Muon; Polar Express, arXiv 2505.16932)
    restore_norm           Muon+: the exact Frobenius norm that a semi-orthogonal matrix has
    reduce_variance        NorMuon: per-row or per-column second moment, arXiv 2510.05491
    decayed_update         weight decay, cautious or plain, and the step itself

`direction` and `apply_direction` compose what comes before and after the orthogonalisation. Scalars are 0-D CPU tensors: a
compiled step then serves every step of the schedule.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NORM_FLOOR = 1e-6
"""Smallest norm to divide by; a zero gradient stays a zero update."""
VARIANCE_FLOOR = 1e-10


def shape_scale(rows: int, columns: int) -> float:
    """Factor on the learning rate: √max(1, m/n). A tall matrix's update has unit singular values, hence small entries."""
    return math.sqrt(max(1.0, rows / columns))


def variance_shape(rows: int, columns: int) -> tuple[int, int]:
    """Shape of NorMuon's second moment for one (m, n) matrix: one number per row if m ≥ n, else one per column."""
    return (rows, 1) if rows >= columns else (1, columns)


# ---------------------------------------------------------------------- before the orthogonalisation


def direction(gradient: Tensor, momentum_buffer: Tensor, momentum: Tensor, equilibrate: bool, dtype: torch.dtype) -> Tensor:
    """What to orthogonalise, (K, m, n) in `dtype`. Updates the momentum buffer (K, m, n) in place."""
    update = nesterov_momentum(gradient.float(), momentum_buffer, momentum)
    if equilibrate:
        update = equilibrate_rows(update)
    return update.to(dtype)


def nesterov_momentum(gradient: Tensor, momentum_buffer: Tensor, momentum: Tensor) -> Tensor:
    """b ← μ b + (1−μ) g in place; returns μ b + (1−μ) g with the new b."""
    momentum_buffer.lerp_(gradient, 1 - momentum)
    return gradient.lerp(momentum_buffer, momentum)


def equilibrate_rows(update: Tensor) -> Tensor:
    """Scale every row to the matrix's root-mean-square row norm, ‖U‖_F / √m."""
    row_norms = torch.linalg.vector_norm(update, dim=-1, keepdim=True)
    root_mean_square = row_norms.square().mean(dim=-2, keepdim=True).sqrt()
    factor: Tensor = root_mean_square / row_norms.clamp_min(NORM_FLOOR)
    return update * factor


# ---------------------------------------------------------------------- after the orthogonalisation


def apply_direction(
    parameter: Tensor,
    orthogonal: Tensor,
    second_moment: Tensor | None,
    learning_rate: Tensor,
    weight_decay: Tensor,
    variance_beta: Tensor,
    restore: bool,
    cautious: bool,
) -> None:
    """Update the parameters (K, m, n) and the second moment (K, m, 1) or (K, 1, n) in place; no second moment, no variance reduction."""
    update = orthogonal.float()
    if restore:
        update = restore_norm(update)
    if second_moment is not None:
        update = reduce_variance(update, second_moment, variance_beta)
    parameter.copy_(decayed_update(parameter.float(), update, learning_rate, weight_decay, cautious))


def restore_norm(update: Tensor) -> Tensor:
    """Rescale each matrix to Frobenius norm √min(m, n), that of a semi-orthogonal matrix; the iteration only comes near."""
    norm = torch.linalg.vector_norm(update, dim=(-2, -1), keepdim=True)
    factor: Tensor = math.sqrt(min(update.shape[-2:])) / norm.clamp_min(NORM_FLOOR)
    return update * factor


def reduce_variance(update: Tensor, second_moment: Tensor, beta: Tensor) -> Tensor:
    """Divide rows (or columns) by the root of their smoothed mean square, keeping each matrix's Frobenius norm.

    The second moment starts at zero and is not bias-corrected: keeping the norm cancels any common factor.
    """
    over = -1 if second_moment.shape[-1] == 1 else -2
    mean_square = update.square().mean(dim=over, keepdim=True)
    second_moment.lerp_(mean_square, 1 - beta)
    scale = second_moment.clamp_min(VARIANCE_FLOOR).rsqrt()
    before = mean_square.sum(dim=(-2, -1), keepdim=True).sqrt()
    after = (mean_square * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    factor: Tensor = scale * (before / after.clamp_min(VARIANCE_FLOOR))
    return update * factor


def decayed_update(parameter: Tensor, update: Tensor, learning_rate: Tensor, weight_decay: Tensor, cautious: bool) -> Tensor:
    """p − lr·u − lr·wd·p. Cautious decay (arXiv 2510.12402) spares entries whose update already moves them away from zero."""
    decay = parameter * (learning_rate * weight_decay)
    if cautious:
        decay.mul_(update * parameter >= 0)
    return (parameter - decay).sub_(update * learning_rate)
