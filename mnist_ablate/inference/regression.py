"""Least squares on the settings of a search, with standard errors that let runs spread unequally (HC3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import linalg, stats

from mnist_ablate.design.design import Design
from mnist_ablate.design.responses import Response, shown
from mnist_ablate.design.search import Coefficient, coefficients, combinations_of_others, model_matrix, setting_column
from mnist_ablate.inference.intervals import ALPHA, FloatArray, Sample, Unit
from mnist_ablate.inference.samples import ALIKE, MOST_FAILURES
from mnist_ablate.language import later
from mnist_ablate.store.results import Runs


@dataclass(frozen=True, eq=False)
class Fit:
    """Least squares, with standard errors of kind HC3.

    Parameters
    ----------
    estimates, ses
        Of the coefficients, shape (k,).
    weights
        What makes the coefficients of the responses, shape (k, n).
    residuals
        Shape (n,).
    explained
        The share of the variance of the responses that the model accounts for, R².
    """

    estimates: FloatArray
    ses: FloatArray
    weights: FloatArray
    residuals: FloatArray
    explained: float

    @property
    def df(self) -> int:
        """Degrees of freedom of the t intervals."""
        k, n = self.weights.shape
        return int(n - k)

    @property
    def sd(self) -> float:
        """Standard deviation of what the model leaves unexplained."""
        return math.sqrt(float(self.residuals @ self.residuals) / self.df) if self.df > 0 else math.nan


def least_squares(x: FloatArray, y: FloatArray) -> Fit:
    """Fit `y`, shape (n,), by the columns of `x`, shape (n, k), which are not combinations of each other.

    The variance of each residual is estimated by its square over (1 - h)², with h its leverage: HC3 of MacKinnon and
    White (1985), "Some heteroskedasticity-consistent covariance matrix estimators with improved finite sample
    properties", Journal of Econometrics 29.
    """
    q, r = np.linalg.qr(x)
    weights: FloatArray = np.asarray(linalg.solve_triangular(r, q.T), dtype=np.float64)
    estimates: FloatArray = weights @ y
    residuals: FloatArray = y - x @ estimates
    left = residuals / np.maximum(1 - (q**2).sum(axis=1), 1e-12)  # a run that alone decides on a coefficient
    total = float(((y - y.mean()) ** 2).sum())
    explained = 1 - float(residuals @ residuals) / total if total else math.nan
    return Fit(estimates, np.sqrt(((weights * left) ** 2).sum(axis=1)), weights, residuals, explained)


@dataclass(frozen=True)
class CoefficientSample(Sample):
    """A coefficient of a search: `sd` is its standard error times √n.

    Parameters
    ----------
    k
        Coefficients that were fitted, that of the intercept included.
    """

    k: int = 1

    @property
    def unit(self) -> Unit:
        """There are no cells."""
        return "run"

    @property
    def flips(self) -> bool:
        """There is no effect of a single run."""
        return False

    @property
    def df(self) -> float:
        """Degrees of freedom of `se`."""
        return self.n - self.k

    def with_seeds(self, n: int) -> tuple[float, float]:
        """Return the standard error that `n` runs with such settings have, and its degrees of freedom."""
        return self.sd / math.sqrt(n), n - self.k

    @property
    def note(self) -> str:
        """Say what is fitted."""
        return later(
            "A coefficient of least squares on all settings, from {n} runs, without interactions (HC3 standard error).",
            n=f"{self.n:,}",
        )


@dataclass(frozen=True, eq=False)
class Searched:
    """A response of the runs of a search.

    Parameters
    ----------
    terms
        The coefficients, without that of the intercept.
    x
        The model matrix, shape (runs, 1 + terms).
    y
        The response, NaN for runs that have none, shape (runs,).
    """

    terms: Sequence[Coefficient]
    x: FloatArray
    y: FloatArray

    @classmethod
    def of(cls, runs: Runs, response: str) -> "Searched":
        """Take a response of `runs`, which are a search."""
        study, rows = runs.study, runs.final
        settings = {factor.name: rows[setting_column(factor.name)] for factor in study.searched}
        values = np.asarray(shown(rows, response, study.responses), dtype=np.float64)
        return cls(coefficients(study.searched), model_matrix(study.searched, settings), values)

    @cached_property
    def fit(self) -> Fit | None:
        """The fit to the runs that have a value; None where they are too few, or do not tell the settings apart."""
        there = np.isfinite(self.y)
        x = self.x[there]
        if len(x) <= x.shape[1] or combinations_of_others(x):
            return None
        return least_squares(x, self.y[there])

    def place(self, effect: str) -> int:
        """Return the place of the coefficient that a hypothesis names."""
        return [term.effect for term in self.terms].index(effect)

    def sample(self, place: int) -> CoefficientSample:
        """Summarise the coefficient of a term."""
        return _sample(self.fit, place, int(np.isfinite(self.y).sum()))

    def lacking(self, label: str) -> str:
        """Return why there can be no verdict: runs without the response are failures, and not runs less."""
        lost = ~np.isfinite(self.y)
        if lost.all():
            return later("These results have no {label}.", label=label)
        if self.fit is None:
            return later("The runs that have {label} do not tell the settings apart.", label=label)
        if not lost.any():
            return ""
        unlike = [term.label for term, column in zip(self.terms, self.x[:, 1:].T, strict=True)
                  if stats.mannwhitneyu(column[lost], column[~lost]).pvalue < ALIKE]  # fmt: skip
        words = {"failed": int(lost.sum()), "total": len(lost), "label": label}
        if unlike:
            return later(
                "{failed} of {total} runs that it needs have no {label}, more at one end of {setting} than at the "
                "other.",
                setting=unlike[0], **words,
            )  # fmt: skip
        if lost.mean() > MOST_FAILURES:
            return later("{failed} of {total} runs that it needs have no {label}, too many to leave out.", **words)
        return ""

    def at_worst(self, place: int, response: Response, alpha: float) -> tuple[float, float] | None:
        """Return the interval of a coefficient where each run without the response makes it least, or largest."""
        lost = ~np.isfinite(self.y)
        if response.range is None or not lost.any():
            return None
        rises = least_squares(self.x, np.zeros(len(self.y))).weights[1 + place] > 0
        ends = []
        for side in (0, 1):
            worst = np.where(rises, response.range[side], response.range[1 - side])
            fit = least_squares(self.x, np.where(lost, worst, self.y))
            ends.append(_sample(fit, place, len(self.y)).interval(alpha)[side])
        return ends[0], ends[1]


def _sample(fit: Fit | None, place: int, n: int) -> CoefficientSample:
    if fit is None:
        return CoefficientSample(n, math.nan, math.nan)
    return CoefficientSample(n, float(fit.estimates[1 + place]), float(fit.ses[1 + place]) * math.sqrt(n),
                             k=len(fit.estimates))  # fmt: skip


def coefficient_table(study: Design, response: str, found: Searched) -> pd.DataFrame:
    """Estimate all coefficients of a search.

    Returns
    -------
    pandas.DataFrame
        One row per coefficient, in the columns of `mnist_ablate.inference.effects.effect_table`; ``in_spreads`` is the
        coefficient over the standard deviation of what the model leaves unexplained.
    """
    fit, rows, lost = found.fit, [], int((~np.isfinite(found.y)).sum())
    for place, term in enumerate(found.terms):
        sample = found.sample(place)
        low, high = sample.interval(ALPHA)
        rows.append({
            "kind": "coefficient", "label": term.label, "response": response, "n": sample.n,
            "n_planned": max(study.n_seeds, sample.n), "n_diverged": lost, "estimate": sample.mean, "sd": sample.sd,
            "se": sample.se, "low": low, "high": high,
            "p": sample.p_sign() if sample.spreads else math.nan, "p_sign_flip": math.nan,
            "in_spreads": sample.mean / fit.sd if fit and fit.sd else math.nan,
        })  # fmt: skip
    return pd.DataFrame(rows)
