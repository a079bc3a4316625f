"""Weighted ridge regression for directions, from sums over blocks of texts, and the variance that it takes away.

Shapes: N texts of a block, S texts of the sample, H hidden dimensions of the encoder, D dimensions of the teachers
together, K directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Only norms are taken from the result, so the rounds need not converge to the last digit.
REWEIGHTED = 4
"""Rounds of reweighting."""
# Keeps the system solvable where the sample has fewer texts than H; the stage's own lambda is searched for later.
SAMPLE_LAMBDA = 1e-3
SMALLEST_NORM = 0.1
"""As a share of the mean norm: shorter vectors would get weights far above all others."""
# A direction that the student cannot predict has next to no variance; a larger factor would only amplify its noise.
LARGEST_RESCALING = 20.0


@dataclass(frozen=True)
class Linear:
    """`y = W x + b`."""

    weight_DH: Tensor
    bias_D: Tensor

    def __call__(self, x_NH: Tensor) -> Tensor:
        """Vectors `[N, D]`, not normalised."""
        return torch.nn.functional.linear(x_NH.to(self.weight_DH), self.weight_DH, self.bias_D)


class NormalEquations:
    """Sums over texts that a weighted ridge regression with an intercept needs, in float64.

    Memory is `H (H + D)` numbers, whatever the number of texts.

    Args:
        hidden: H.
        dim: D.
        device: Where the sums are; it has to know float64.

    References:
        Hoerl and Kennard 1970, Ridge regression: biased estimation for nonorthogonal problems, Technometrics 12(1).
    """

    def __init__(self, hidden: int, dim: int, device: torch.device) -> None:
        self._weight = 0.0
        self._x_H, self._y_D = (torch.zeros(n, dtype=torch.float64, device=device) for n in (hidden, dim))
        self._xx_HH = torch.zeros(hidden, hidden, dtype=torch.float64, device=device)
        self._xy_HD = torch.zeros(hidden, dim, dtype=torch.float64, device=device)

    def add(self, x_NH: Tensor, y_ND: Tensor, weight_N: Tensor | None = None) -> None:
        """Add some texts, each with weight 1 or its own.

        Args:
            x_NH: Pooled states.
            y_ND: Targets.
            weight_N: Weights; all 1 when left out.
        """
        weight_N = torch.ones(len(x_NH), device=x_NH.device) if weight_N is None else weight_N
        weighted_NH = x_NH * weight_N[:, None].to(x_NH)
        # Products of a block are exact enough as they are; sums of millions of texts would not be.
        self._weight += weight_N.double().sum().item()
        self._xx_HH += weighted_NH.T @ x_NH
        self._xy_HD += weighted_NH.T @ y_ND.to(x_NH)
        self._x_H += weighted_NH.sum(dim=0)
        self._y_D += (y_ND * weight_N[:, None].to(y_ND)).sum(dim=0)

    def means(self) -> tuple[Tensor, Tensor]:
        """Means `[H]` and `[D]`."""
        return self._x_H / self._weight, self._y_D / self._weight

    def covariance(self) -> Tensor:
        """Covariance `[H, H]` of x."""
        # E[x x'] - E[x] E[x]' cancels digits where the mean is large; float64 has enough of them.
        mean_H = self._x_H / self._weight
        return self._xx_HH / self._weight - torch.outer(mean_H, mean_H)

    def solve(self, ridge_lambda: float) -> Linear:
        """The map with the least squared error and an L2 penalty on its weights, not on its intercept.

        Args:
            ridge_lambda: The penalty, as a share of the mean variance of a dimension of x.

        Returns:
            The map, in float64.
        """
        # Centred, so the intercept is not penalised and drops out: W (C + ridge I) = cross', b = mean_y - W mean_x.
        mean_H, mean_D = self.means()
        covariance_HH = self.covariance()
        ridge = ridge_lambda * covariance_HH.diagonal().mean()
        system_HH = covariance_HH + ridge * torch.eye(len(mean_H), dtype=torch.float64, device=mean_H.device)
        cross_HD = self._xy_HD / self._weight - torch.outer(mean_H, mean_D)
        # Not Cholesky: rounding can leave the covariance of a nearly constant dimension slightly negative.
        weight_DH = torch.linalg.solve(system_HH, cross_HD).T
        return Linear(weight_DH, mean_D - weight_DH @ mean_H)


class Norms:
    """Norms of the student's vectors before they are normalised: a text's target and weight depend on them."""

    def __init__(self, x_SH: Tensor, t_SD: Tensor) -> None:
        """From a sample of pooled states and teachers' unit vectors.

        Args:
            x_SH: Pooled states.
            t_SD: Unit vectors of the same texts.
        """
        # The first round is plain ridge regression; each later one uses the norms that the one before gave.
        weight_S, target_SD = torch.ones(len(x_SH), device=x_SH.device), t_SD
        for _ in range(REWEIGHTED):
            equations = NormalEquations(x_SH.shape[1], t_SD.shape[1], x_SH.device)
            equations.add(x_SH, target_SD, weight_S)
            self._map = equations.solve(SAMPLE_LAMBDA)
            self._mean = self._map(x_SH).norm(dim=1).mean()
            target_SD, weight_S = self.weigh(x_SH, t_SD)

    def weigh(self, x_NH: Tensor, t_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Targets `r t` and weights `1 / r^2` of some texts.

        Args:
            x_NH: Pooled states.
            t_ND: Unit vectors of the teachers.
        """
        # By the mean norm: only ratios count, and least squares from unit targets shrinks all norms together.
        r_N = (self._map(x_NH).norm(dim=1) / self._mean).clamp(min=SMALLEST_NORM).to(t_ND)
        return t_ND * r_N[:, None], r_N**-2


class VarianceRescaling:
    """Restores part of the variance that least squares takes from what it cannot predict."""

    def __init__(self, solution: Linear, equations: NormalEquations, t_SD: Tensor) -> None:
        """Compare the variance of a solution along its principal directions with that of the teachers' vectors.

        Args:
            solution: Of the ridge regression.
            equations: What it is the solution of.
            t_SD: Unit vectors of the teachers, of a sample of texts.
        """
        self._solution = solution
        self._centre_D = solution(equations.means()[0][None])[0]
        # With C = R R', the covariance of y = W x + b is (W R)(W R)': the singular vectors of W R are its principal
        # directions, and the singular values the standard deviations, without a D x D matrix.
        values_H, vectors_HH = torch.linalg.eigh(equations.covariance())
        root_HH = vectors_HH * values_H.clamp(min=0).sqrt()
        self._directions_DK, deviation_K, _ = torch.linalg.svd(solution.weight_DH @ root_HH, full_matrices=False)
        centred_SD = t_SD.double() - t_SD.double().mean(dim=0)
        teachers_K = (centred_SD @ self._directions_DK).std(dim=0, correction=0)
        self._ratio_K = (teachers_K / deviation_K.clamp(min=1e-9)).clamp(max=LARGEST_RESCALING)

    def __call__(self, exponent: float) -> Linear:
        """The solution with each direction k rescaled by `ratio_k ** exponent` about the centre.

        Args:
            exponent: In [0, 1]; 0 gives the solution as it is.

        Returns:
            A linear map again, so nothing is added to the student.
        """
        factor_K = self._ratio_K**exponent
        # I + U (F - I) U' changes the K directions and leaves all others, without a D x D matrix.
        along_DK = self._directions_DK * (factor_K - 1)

        def rescaled(vectors_D: Tensor) -> Tensor:
            return vectors_D + along_DK @ (self._directions_DK.T @ vectors_D)

        weight_DH, bias_D = self._solution.weight_DH, self._solution.bias_D
        return Linear(rescaled(weight_DH), self._centre_D + rescaled(bias_D - self._centre_D))
