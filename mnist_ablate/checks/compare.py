"""Do two results folders say the same? To the bit; or, where bits differ, as far as the seeds can tell.

Runs are paired by cell and seed. Cells are the same if their settings are, whatever they are called; the engine, the
versions and the machine may differ, and are listed as what may be why. Each response of each cell is one comparison;
all of them, and the means of all cells, are one family. `check` makes the comparison; nothing here writes a file.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from mnist_ablate.design.plan import cells
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.study import Study
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.effects import describe, seed_table
from mnist_ablate.inference.verdicts import LEAST_SEEDS, Sample, Seeds, decide, seeds_needed
from mnist_ablate.report.format import NOTHING, joined, plural
from mnist_ablate.report.sections.provenance import provenance
from mnist_ablate.report.words import by_cell
from mnist_ablate.store.bits import Parting, parting
from mnist_ablate.store.folder import differences
from mnist_ablate.store.results import Results, load

ALPHA = 0.05
"""Probability of any false verdict in the family of all comparisons."""
MARGINS: Mapping[str, float] = {"test_accuracy": 0.10, "gap": 0.01, "val_loss": 0.01}
"""The smallest difference that matters, in points for accuracies and nats for losses, where no hypothesis says less."""
MEAN = "mean of all cells"

Verdict = Literal["bit-identical", "equivalent", "different", "too little to tell"]

_ROUNDING = 1e-9  # what is equal in all seeds but for this is equal
_NO_CAUSE = ("Started", "Hypotheses, SHA-256", "Study file, SHA-256")


@dataclass(frozen=True)
class Bits:
    """How far the runs of a cell are the same to the bit.

    Parameters
    ----------
    cell
        Its name in A.
    seeds
        Seeds that both folders have.
    partings
        What differs first, by seed; seeds whose every bit is the same are not in it.
    """

    cell: str
    seeds: int
    partings: Mapping[int, Parting]

    @property
    def identical(self) -> bool:
        """Whether there are runs, and every bit of theirs is the same."""
        return self.seeds > 0 and not self.partings

    @property
    def since(self) -> str:
        """Say since which epoch the numbers part."""
        epochs = sorted({found.epoch for found in self.partings.values() if found.epoch})
        silent = sum(found.epoch is None for found in self.partings.values())
        parts = [f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"] if epochs else []
        parts += [f"in {plural(silent, 'seed')} no epoch, but the weights"] if silent else []
        return "; ".join(parts)

    @property
    def example(self) -> str:
        """Say of the seed that parts first what differs there."""
        if not self.partings:
            return ""
        seed, found = min(self.partings.items(), key=lambda item: (item[1].epoch or math.inf, item[0]))
        return f"seed {seed}: {found.sentence}"


@dataclass(frozen=True)
class Finding:
    """What is found of a response in a cell, or in the mean of all cells.

    Parameters
    ----------
    cell, response
        Which.
    verdict
        By `judge`.
    sample
        The differences B - A of the common seeds, in the response's unit.
    margin
        The smallest difference that matters.
    alpha
        Share of this comparison in the family's.
    """

    cell: str
    response: str
    verdict: Verdict
    sample: Sample
    margin: float
    alpha: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 1 - `alpha` interval, which decides on 'different'."""
        return self.sample.interval(self.alpha)

    @property
    def inner(self) -> tuple[float, float]:
        """The 1 - 2 `alpha` interval, which decides on 'equivalent' (TOST)."""
        return self.sample.interval(2 * self.alpha)

    @cached_property
    def needed(self) -> Seeds:
        """How many seeds would tell, if there is no difference."""
        return seeds_needed(self.sample, "negligible", self.margin, self.alpha)

    @property
    def matters(self) -> bool:
        """Whether the difference is surely larger than the margin."""
        low, high = self.interval
        return low > self.margin or high < -self.margin


@dataclass(frozen=True)
class Comparison:
    """Two results folders against each other.

    Parameters
    ----------
    a, b
        The folders.
    bits
        Cell by cell.
    findings
        Response by response and cell by cell, the mean of all cells last.
    causes
        What the runs' provenance differs in: what, in A, in B.
    notices
        What is in one folder only, or was left out.
    """

    a: Path
    b: Path
    bits: list[Bits]
    findings: list[Finding]
    causes: list[tuple[str, str, str]]
    notices: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of all verdicts: one that differs, one that cannot tell, one that is only equivalent."""
        found = {finding.verdict for finding in self.findings}
        order: tuple[Verdict, ...] = ("different", "too little to tell", "equivalent", "bit-identical")
        return next(verdict for verdict in order if verdict in found)

    @property
    def exit_status(self) -> int:
        """0 if all is the same or equivalent, 1 if something is different, 3 if that cannot be told."""
        return {"bit-identical": 0, "equivalent": 0, "different": 1, "too little to tell": 3}[self.verdict]

    def of(self, verdict: Verdict) -> list[Finding]:
        """List the findings that have a verdict, the largest difference for its margin first."""
        found = [finding for finding in self.findings if finding.verdict == verdict]
        return sorted(found, key=lambda one: -abs(one.sample.mean) / one.margin if one.sample.n else 0.0)


def check(a: Results | str | Path, b: Results | str | Path, margins: Mapping[str, float] | None = None) -> Comparison:
    """Compare two results folders.

    Parameters
    ----------
    a, b
        Results folders, compact ones as well, or what was read from them.
    margins
        By response, in points for accuracies and nats for losses: in place of those of `margins_of`, or beside them.

    Raises
    ------
    ResultsError
        If a folder has no results, the two have no cell with the same settings, or were trained on other images or by
        another version of the protocol; or if a margin is not a positive number of a known response.
    DamagedFileError
        If a folder cannot be read.
    """
    a, b = (one if isinstance(one, Results) else load(one) for one in (a, b))
    wanted = {**margins_of(a.study, b.study), **_checked(margins or {})}
    cell_pairs = _cells_of_both(a, b)
    pairs = _runs_of_both(a, b, cell_pairs)
    _refuse_other_runs(a, b, pairs.values())
    bits = _bits(a, b, list(cell_pairs), pairs)
    values, absent = _differences_by_response(a, b, cell_pairs, wanted)
    findings = list(_findings(values, wanted, {one.cell: one.identical for one in bits}))
    notices = [*_only_in_one(a, b, cell_pairs, pairs), *_diverged_in_one(a, b, pairs), *absent]
    notices += [f"{results.folder}: {problem}" for results in (a, b) for problem in results.problems]
    return Comparison(a.folder, b.folder, bits, findings, _causes(a, b), notices)


# ---- Margins ----


def margins_of(*studies: Study) -> dict[str, float]:
    """Give the smallest difference that matters, by response: `MARGINS`, or less where a hypothesis says so.

    Responses that only hypotheses name are added. What is written in a study was written before its runs.
    """
    found = dict(MARGINS)
    for hypothesis in (one for study in studies for one in study.hypotheses if not one.over):
        name = str(hypothesis.response)
        found[name] = min(hypothesis.smallest, found.get(name, math.inf))
    return found


def _checked(margins: Mapping[str, float]) -> Mapping[str, float]:
    for response, margin in margins.items():
        try:
            describe(response)
        except KeyError:
            raise ResultsError(
                f"margin of {response}: no such response. There are test_accuracy, val_loss, gap, test_loss and more: "
                "see docs/reproducibility.md."
            ) from None
        if not 0 < margin < math.inf:
            raise ResultsError(f"margin {response} = {margin:g}: allowed: a number > 0, in points or nats.")
    return margins


# ---- Which runs belong together ----

CellPairs = dict[str, str]
"""Names of the cells in A, each with its name in B."""
RunPairs = dict[tuple[str, int], tuple[str, str]]
"""Cell (its name in A) and seed, with the run's id in A and in B."""


def _cells_of_both(a: Results, b: Results) -> CellPairs:
    """Pair the cells that have the same settings."""
    in_a, in_b = _by_settings(a.study), _by_settings(b.study)
    found = {name: in_b[key] for key, name in in_a.items() if key in in_b}
    if not found:
        raise ResultsError(
            f"{a.folder} and {b.folder} cannot be compared, no cell has the same settings in both: "
            f"{'; '.join(_settings_that_differ(a.study, b.study))}. Give two folders of one study."
        )
    return found


def _by_settings(study: Study) -> dict[str, str]:
    """Name the cells by their settings; of cells that come to the same, the first, which is the one that is run."""
    found: dict[str, str] = {}
    for cell in cells(study):
        found.setdefault(_key(cell.settings), cell.name)
    return found


def _key(settings: Settings) -> str:
    return json.dumps(settings.model_dump(), sort_keys=True)


def _settings_that_differ(a: Study, b: Study) -> list[str]:
    in_a, in_b = (study.model_dump(exclude={"name", "engine"}) for study in (a, b))
    return differences(in_a, in_b, ("in A", "in B"))


def _runs_of_both(a: Results, b: Results, cell_pairs: CellPairs) -> RunPairs:
    in_a, in_b = _runs(a), _runs(b)
    keys = [(cell, seed) for cell, seed in in_a if (cell_pairs.get(cell), seed) in in_b]
    return {(cell, seed): (in_a[cell, seed], in_b[cell_pairs[cell], seed]) for cell, seed in keys}


def _runs(results: Results) -> dict[tuple[str, int], str]:
    final = results.final
    return {(str(cell), int(seed)): str(run_id) for cell, seed, run_id in zip(
        final["cell"], final["seed"], final["run_id"], strict=True
    )}  # fmt: skip


def _refuse_other_runs(a: Results, b: Results, pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse runs of another protocol or of other images: a difference between them would say nothing."""
    for old, new in ((a.documents[i], b.documents[j]) for i, j in pairs):
        versions = [one.get("specification", {}).get("protocol_version") for one in (old, new)]
        images = [str(one.get("data_sha256"))[:12] for one in (old, new)]
        what = "other versions of the protocol: {} in A, {} in B" if versions[0] != versions[1] else ""
        found = versions if what else images
        if old.get("data_sha256") != new.get("data_sha256"):
            what = what or "other images: their SHA-256 begins with {} in A, {} in B"
        if what:
            raise ResultsError(f"{a.folder} and {b.folder} cannot be compared, the runs are of {what.format(*found)}.")


def _only_in_one(a: Results, b: Results, cell_pairs: CellPairs, pairs: RunPairs) -> Iterator[str]:
    """Name the cells, and of the others the seeds, that only one folder has."""
    for results, matched, compared in (
        (a, set(cell_pairs), set(pairs)),
        (b, set(cell_pairs.values()), {(cell_pairs[cell], seed) for cell, seed in pairs}),
    ):
        strangers = [name for name in _by_settings(results.study).values() if name not in matched]
        if strangers:
            yield f"Only {results.folder} has, with these settings, the cells {joined(strangers)}: not compared."
        alone = [run for run in _runs(results) if run[0] in matched and run not in compared]
        if alone:
            yield f"Only {results.folder} has the runs {by_cell(alone)}: not compared."


def _diverged_in_one(a: Results, b: Results, pairs: RunPairs) -> Iterator[str]:
    in_a, in_b = (set(of.final["run_id"][of.final["status"] == "diverged"]) for of in (a, b))
    for results, runs in (
        (a, [run for run, (i, j) in pairs.items() if i in in_a and j not in in_b]),
        (b, [run for run, (i, j) in pairs.items() if i not in in_a and j in in_b]),
    ):
        if runs:
            yield f"Diverged in {results.folder} only: {by_cell(runs)}."


# ---- Bits ----


def _bits(a: Results, b: Results, cell_names: list[str], pairs: RunPairs) -> list[Bits]:
    rows = [_rows(results) for results in (a, b)]
    found: dict[str, dict[int, Parting]] = {cell: {} for cell in cell_names}
    for (cell, seed), (i, j) in pairs.items():
        differs = parting(a.documents[i], rows[0][i], b.documents[j], rows[1][j])
        if differs:
            found[cell][seed] = differs
    return [Bits(cell, sum(one == cell for one, _ in pairs), found[cell]) for cell in cell_names]


def _rows(results: Results) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for row in results.epochs.sort_values("epoch").to_dict("records"):
        found.setdefault(row["run_id"], []).append({str(name): value for name, value in row.items()})
    return found


# ---- Numbers ----


def _differences_by_response(
    a: Results, b: Results, cell_pairs: CellPairs, responses: Iterable[str]
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Take B - A by seed (rows) and cell (columns), for each response that both folders have; name the others."""
    found, absent = {}, []
    names = {in_b: in_a for in_a, in_b in cell_pairs.items()}
    for response in responses:
        one, other = seed_table(a, response), seed_table(b, response).rename(columns=names)
        lacking = [str(of.folder) for of, table in ((a, one), (b, other)) if not table.notna().to_numpy().any()]
        if lacking:
            absent.append(f"{describe(response).label} is not compared: {joined(lacking)} has no values of it.")
        else:
            found[response] = (other[list(cell_pairs)] - one[list(cell_pairs)]).dropna(how="all")
    return found, absent


def _findings(
    values: Mapping[str, pd.DataFrame], margins: Mapping[str, float], identical: Mapping[str, bool]
) -> Iterator[Finding]:
    """Judge every response of every cell, and of the mean over cells where there are several."""
    several = len(identical) > 1
    alpha = ALPHA / max(1, len(values) * (len(identical) + several))
    for response, table in values.items():
        samples = {cell: table[cell].dropna() for cell in identical}
        same = dict(identical)
        if several:
            samples[MEAN], same[MEAN] = table.dropna().mean(axis=1), all(identical.values())
        for cell, z in samples.items():
            sample = Sample.of(np.asarray(z, dtype=np.float64))
            verdict = "bit-identical" if same[cell] else judge(sample, margins[response], alpha)
            yield Finding(cell, response, verdict, sample, margins[response], alpha)


def judge(sample: Sample, margin: float, alpha: float) -> Verdict:
    """Decide on the differences of one response between runs that are not the same to the bit.

    *equivalent* if the 1 - 2 `alpha` t interval lies inside ± `margin` (two one-sided tests, Schuirmann 1987); else
    *different* if 0 is outside the 1 - `alpha` interval; else *too little to tell*, as with fewer than `LEAST_SEEDS`
    seeds. At a true difference of `margin` or more only 'equivalent' is false, at 0 only 'different', and in between
    only a 'different' of the wrong sign: so at any one a false verdict has a probability of at most `alpha`, if the
    differences are Gaussian. Differences that are the same in all seeds say something only if they are 0.

    Parameters
    ----------
    sample
        The differences of the seeds.
    margin
        The smallest difference that matters, in the same unit.
    alpha
        Probability of a false verdict.
    """
    if sample.n >= LEAST_SEEDS and sample.sd == 0 and abs(sample.mean) <= _ROUNDING:
        return "equivalent"
    known: dict[str, Verdict] = {
        "negligible": "equivalent",
        "supported": "different",
        "supported, size open": "different",
    }
    decided = decide(sample, "increase" if sample.mean >= 0 else "decrease", margin, alpha)
    return known.get(decided, "too little to tell")


# ---- Why ----


def _causes(a: Results, b: Results) -> list[tuple[str, str, str]]:
    """List what the provenance of the runs differs in."""
    in_a, in_b = ({what: [value for value, _ in of] for what, of in provenance(analyse(one))} for one in (a, b))
    return [
        (what, joined(in_a.get(what, [NOTHING])), joined(in_b.get(what, [NOTHING])))
        for what in {**in_a, **in_b}
        if what not in _NO_CAUSE and set(in_a.get(what, ())) != set(in_b.get(what, ()))
    ]
