"""Least squares with errors: what a line through measurements says of a point, and how far off it may be."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

SURE = 0.95
"""All intervals are of this probability, if the model is right and the residuals are normal."""


@dataclass(frozen=True)
class Estimate:
    """A value, and half of its interval: it is ``value ± error``."""

    value: float
    error: float = 0.0

    def __add__(self, other: "Estimate") -> "Estimate":
        """The sum of two that do not depend on each other."""
        return Estimate(self.value + other.value, hypot(self.error, other.error))

    def __mul__(self, factor: float) -> "Estimate":
        """So many times as much."""
        return Estimate(self.value * factor, abs(self.error * factor))

    def over(self, value: float) -> "Estimate":
        """What ``value`` divided by this is; its error to the first order."""
        return Estimate(value / self.value, abs(value / self.value) * self.error / self.value)

    def holds(self, value: float) -> bool:
        """Whether ``value`` is within the interval."""
        return abs(value - self.value) <= self.error


@dataclass(frozen=True)
class Fit:
    """Coefficients of a linear model, one for each column of the rows it was made from."""

    coefficients: NDArray[np.float64]
    covariance: NDArray[np.float64]
    scatter: float
    """Standard deviation of the residuals; where they are relative, a share of the value."""
    freedom: int
    relative: bool

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]], values: Sequence[float], *, relative: bool = False) -> Self:
        """The fit of ``values`` to ``rows``, of which there are more than columns.

        ``relative``: a residual counts as a share of the value, for values that differ by powers of ten.
        """
        x, y = np.array(rows, float), np.array(values, float)
        weights = 1 / y if relative else np.ones_like(y)
        weighted = x * weights[:, None]
        coefficients, _, rank, _ = np.linalg.lstsq(weighted, y * weights, rcond=None)
        freedom = len(y) - len(coefficients)
        if rank < len(coefficients) or freedom < 1:
            raise ValueError(f"{len(y)} measurements of rank {rank} do not determine {len(coefficients)} coefficients")
        residuals = (y - x @ coefficients) * weights
        scatter = float(np.sqrt(residuals @ residuals / freedom))
        return cls(coefficients, scatter**2 * np.linalg.inv(weighted.T @ weighted), scatter, freedom, relative)

    def coefficient(self, column: int) -> Estimate:
        """One of the coefficients."""
        return self.mean([float(number == column) for number in range(len(self.coefficients))])

    def mean(self, row: Sequence[float]) -> Estimate:
        """What is to be expected on the average of many measurements."""
        at = np.array(row, float)
        return Estimate(float(at @ self.coefficients), self._reach() * float(np.sqrt(at @ self.covariance @ at)))

    def next(self, row: Sequence[float]) -> Estimate:
        """What one more measurement is expected to say."""
        mean = self.mean(row)
        one = self.scatter * (mean.value if self.relative else 1)
        return Estimate(mean.value, hypot(mean.error, self._reach() * one))

    def _reach(self) -> float:
        return float(student.ppf((1 + SURE) / 2, self.freedom))
