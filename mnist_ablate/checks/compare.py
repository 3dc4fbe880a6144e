"""Compare two results folders: do they agree, to the bit or as far as the seeds can tell? One verdict, with its causes.

Runs are paired by cell and seed. Cells match if their settings do, whatever their names. Engine, versions, machine and
protocol may differ; they are listed as possible causes. Each response of each cell, and of the mean of all cells, is
one comparison, and all comparisons are one family. `compare` makes them; the page is in `compare_page`.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from mnist_ablate.design.plan import cells
from mnist_ablate.design.responses import RESPONSES, Response
from mnist_ablate.design.study import Study
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.intervals import Sample
from mnist_ablate.inference.measured import seed_table
from mnist_ablate.inference.power import LEAST_SEEDS, Seeds, seeds_needed
from mnist_ablate.inference.verdicts import decide
from mnist_ablate.language import ENGLISH, find, later, later_by, mark, say, told
from mnist_ablate.report.format import NOTHING, joined, plural
from mnist_ablate.report.sections.provenance import provenance
from mnist_ablate.report.words import by_cell
from mnist_ablate.store.bits import Parting, compared, is_exact, parting
from mnist_ablate.store.results import Results, load

ALPHA = 0.05
"""Probability of any false verdict in the family."""
MARGINS: Mapping[str, float] = {"test_accuracy": 0.10, "gap": 0.01, "val_loss": 0.01}
"""Smallest difference that matters: percentage points for accuracies, nats for losses; a hypothesis may lower it."""
MEAN = mark("mean of all cells")

Verdict = Literal["bit-identical", "equivalent", "different", "too little to tell"]
Outcome = Literal[Verdict, "defect"]

_ROUNDING = 1e-9  # differences up to this are rounding
_NO_CAUSE = ("Started", "Hypotheses, SHA-256", "Study file, SHA-256")


@dataclass(frozen=True)
class Bits:
    """Whether the runs of a cell are the same to the bit.

    Parameters
    ----------
    cell
        The cell's name in A.
    seeds
        Number of seeds that both folders have.
    partings
        The first difference, by seed; seeds without any are left out.
    defects
        How many of these differences are between runs of one specification that have the same bits on every machine.
    """

    cell: str
    seeds: int
    partings: Mapping[int, Parting]
    defects: int = 0

    @property
    def identical(self) -> bool:
        """Whether there are runs and all their bits are the same."""
        return self.seeds > 0 and not self.partings

    @property
    def since(self) -> str:
        """The first epochs in which the numbers differ, as a phrase."""
        epochs = sorted({parting.epoch for parting in self.partings.values() if parting.epoch})
        probes_only = sum(parting.what == "probe" for parting in self.partings.values())
        weights_only = sum(parting.epoch is None for parting in self.partings.values()) - probes_only
        phrases = []
        if epochs:
            first, last = epochs[0], epochs[-1]
            one, several = say("epoch {n}", n=first), say("epochs {first} to {last}", first=first, last=last)
            phrases.append(one if first == last else several)
        if weights_only:
            seeds = plural(weights_only, "seed")
            phrases.append(say("in {seeds} no epoch, only the weights", seeds=seeds))
        if probes_only:
            seeds = plural(probes_only, "seed")
            phrases.append(say("in {seeds} no epoch, only the probes", seeds=seeds))
        return "; ".join(phrases)

    @property
    def example(self) -> str:
        """The seed that differs first, with its difference; empty if none does."""
        if not self.partings:
            return ""
        seed, first = min(self.partings.items(), key=lambda item: (item[1].epoch or math.inf, item[0]))
        return say("seed {seed}: {difference}", seed=seed, difference=told(first.sentence))


@dataclass(frozen=True)
class Finding:
    """One comparison: a response in a cell, or in the mean of all cells.

    Parameters
    ----------
    cell, response
        What is compared.
    verdict
        See `judge`.
    sample
        The differences B - A of the common seeds, in the response's unit.
    margin
        The smallest difference that matters.
    alpha
        This comparison's share of `ALPHA`.
    meaning
        What the response is, if it is not one of ours.
    """

    cell: str
    response: str
    verdict: Verdict
    sample: Sample
    margin: float
    alpha: float
    meaning: Response | None = None

    @property
    def measured(self) -> Response:
        """What the response is, and how it is shown."""
        return self.meaning or RESPONSES[self.response]

    @property
    def interval(self) -> tuple[float, float]:
        """The 1 - `alpha` interval, which decides."""
        return self.sample.interval(self.alpha)

    @cached_property
    def needed(self) -> Seeds:
        """How many seeds would tell if there is no difference."""
        return seeds_needed(self.sample, "negligible", self.margin, self.alpha)

    @property
    def matters(self) -> bool:
        """Whether the whole interval lies beyond the margin."""
        low, high = self.interval
        return low > self.margin or high < -self.margin


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two results folders, compared.

    Parameters
    ----------
    a, b
        The folders.
    bits
        Bit by bit, a row per cell; empty if the folders are of different protocols, whose bits differ on purpose.
    findings
        By response and cell, the mean of all cells last.
    causes
        What the protocol and the provenance of the runs differ in: name, value in A, value in B.
    notices
        What only one folder has, or what was left out.
    """

    a: Path
    b: Path
    bits: list[Bits]
    findings: list[Finding]
    causes: list[tuple[str, str, str]]
    notices: list[str] = field(default_factory=list)

    @property
    def defects(self) -> int:
        """How many runs differ although they have the same bits on every machine."""
        return sum(cell.defects for cell in self.bits)

    @property
    def verdict(self) -> Outcome:
        """The worst verdict of all: defect, different, too little to tell, equivalent, bit-identical, in this order."""
        return "defect" if self.defects else self.by_numbers

    @property
    def by_numbers(self) -> Verdict:
        """The worst verdict of the findings."""
        verdicts = {finding.verdict for finding in self.findings}
        order: tuple[Verdict, ...] = ("different", "too little to tell", "equivalent", "bit-identical")
        return next(verdict for verdict in order if verdict in verdicts)

    @property
    def exit_status(self) -> int:
        """0 if all is the same or equivalent, 1 if something is different or a defect, 3 if that cannot be told."""
        return {"bit-identical": 0, "equivalent": 0, "different": 1, "defect": 1, "too little to tell": 3}[self.verdict]

    def having(self, verdict: Verdict) -> list[Finding]:
        """Return the findings with a verdict, the largest difference relative to its margin first."""
        findings = [finding for finding in self.findings if finding.verdict == verdict]
        return sorted(
            findings, key=lambda f: abs(f.sample.mean) / (f.margin or 1.0) if f.sample.n else 0.0, reverse=True
        )

    def __str__(self) -> str:
        from mnist_ablate.checks.compare_page import text  # which imports this module

        return text(self)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        from mnist_ablate.checks.compare_page import to_markdown

        return to_markdown(self)


def compare(
    a: Results | str | Path,
    b: Results | str | Path,
    margins: Mapping[str, float] | None = None,
    *,
    out: str | Path | None = None,
    lang: str = ENGLISH,
) -> Comparison:
    """Compare two results folders.

    Parameters
    ----------
    a, b
        Results folders, compact or not, or what `mnist_ablate.load` returned.
    margins
        By response, the smallest difference that matters: percentage points for accuracies, nats for losses.
        Overrides or extends the defaults, see `margins_of`.
    out
        A folder to write ``compare.html`` and ``compare.md`` to; by default nothing is written.
    lang
        The language of these files: ``"en"`` or ``"es"``. What is returned prints itself in English.

    Raises
    ------
    LanguageError
        If there is no such language.
    ResultsError
        If a folder has no results; if no cell has the same settings in both; if they were trained on other images; if a
        margin is not a positive number of a known response; or if `out` cannot be a folder.
    DamagedFileError
        If a folder cannot be read.
    """
    find(lang)  # before anything is read
    a, b = (side if isinstance(side, Results) else load(side) for side in (a, b))
    wanted = {**margins_of(a.study, b.study), **_valid(margins or {}, a.study)}
    cell_pairs = _common_cells(a, b)
    pairs = _common_runs(a, b, cell_pairs)
    _refuse_other_images(a, b, pairs.values())
    one_protocol = a.protocol_version == b.protocol_version
    bits = _bits(a, b, list(cell_pairs), pairs) if one_protocol else []
    identical = dict.fromkeys(cell_pairs, False) | {cell.cell: cell.identical for cell in bits}
    values, absent = _differences_by_response(a, b, cell_pairs, wanted)
    findings = list(_findings(values, wanted, identical, a.study.responses))
    notices = [*_only_in_one(a, b, cell_pairs, pairs), *_diverged_in_one(a, b, pairs), *absent]
    notices += [
        later(
            "No margin of {name} is known, so only the same bits count as equal. Give the smallest difference that "
            "matters: --margin {name}=SIZE, or in a hypothesis.",
            name=name,
        )
        for name, margin in wanted.items()
        if not margin and any(f.response == name and f.verdict != "bit-identical" for f in findings)
    ]
    notices += [
        later("{folder}: {problem}", folder=results.folder, problem=problem)
        for results in (a, b)
        for problem in results.problems
    ]
    if not one_protocol:
        notices.insert(0, later(
            "Bits cannot be compared across protocols: A is of protocol {a}, B of protocol {b}, so only statistics are "
            "compared.",
            a=a.protocol_version, b=b.protocol_version,
        ))  # fmt: skip
    comparison = Comparison(a.folder, b.folder, bits, findings, _causes(a, b), notices)
    if out is not None:
        from mnist_ablate.checks.compare_page import write

        write(comparison, out, lang=lang)
    return comparison


# ---- Margins ----


def margins_of(*studies: Study) -> dict[str, float]:
    """Return the smallest difference that matters, by response: `MARGINS`, or less where a hypothesis says so.

    Responses that only hypotheses name are added: what a study states was fixed before its runs. A metric of the user's
    own that no hypothesis names has 0.
    """
    own = [name for study in studies for name in study.metrics]
    margins = {} if own else dict(MARGINS)
    for study in studies:
        for hypothesis in study.hypotheses:
            if not hypothesis.over:
                response = str(hypothesis.response)
                margins[response] = min(hypothesis.smallest, margins.get(response, math.inf))
    return {**dict.fromkeys(own, 0.0), **margins}


def _valid(margins: Mapping[str, float], study: Study) -> Mapping[str, float]:
    for response, margin in margins.items():
        if response not in study.responses:
            allowed = ", ".join(study.responses)
            raise ResultsError(f"margin of {response}: no such response; allowed: one of {allowed}.")
        if not 0 < margin < math.inf:
            raise ResultsError(f"margin {response} = {margin:g}: allowed: a number > 0, in points or nats.")
    return margins


# ---- Which runs belong together ----

CellPairs = dict[str, str]
"""Cell names of A, each with the name in B."""
RunPairs = dict[tuple[str, int], tuple[str, str]]
"""Cell (its name in A) and seed, with the run ids in A and B."""


def _common_cells(a: Results, b: Results) -> CellPairs:
    in_a, in_b = _cells_by_settings(a.study), _cells_by_settings(b.study)
    pairs = {name: in_b[settings] for settings, name in in_a.items() if settings in in_b}
    if not pairs:
        raise ResultsError(
            f"A, {a.folder} (study {a.study.name}), and B, {b.folder} (study {b.study.name}), cannot be compared: no "
            f"cell has the same settings in both. {_apart(a.study, b.study)} Give two folders of one study."
        )
    return pairs


def _cells_by_settings(study: Study) -> dict[str, str]:
    """Return cell names by settings as JSON; of cells with equal settings only the first one is run."""
    names: dict[str, str] = {}
    for cell in cells(study):
        names.setdefault(json.dumps(cell.settings.model_dump(), sort_keys=True), cell.name)
    return names


def _apart(a: Study, b: Study) -> str:
    """Return which settings have no level in common, and so keep all cells apart; else which the cells combine."""
    in_a, in_b = _levels(a), _levels(b)
    levels = {name: (in_a.get(name, ["none"]), in_b.get(name, ["none"])) for name in {**in_a, **in_b}}
    if apart := [name for name, (of_a, of_b) in levels.items() if not set(of_a) & set(of_b)]:
        named = (f"{name} is {_few(levels[name][0])} in A, {_few(levels[name][1])} in B" for name in apart)
        return f"{'; '.join(named)}."
    mixed = [name for name, (of_a, of_b) in levels.items() if len({*of_a, *of_b}) > 1]
    return f"They combine {', '.join(mixed)} in different ways."


def _levels(study: Study) -> dict[str, list[str]]:
    """Return the levels that each setting has in the cells of a study, as a study file has them."""
    every = [{**cell.settings.own, **cell.settings.model_dump(exclude={"own"})} for cell in cells(study)]
    return {name: list(dict.fromkeys(json.dumps(cell[name]) for cell in every)) for name in every[0]}


def _few(levels: list[str]) -> str:
    return " or ".join(levels) if len(levels) < 4 else f"one of {len(levels)} levels"


def _common_runs(a: Results, b: Results, cell_pairs: CellPairs) -> RunPairs:
    in_a, in_b = _run_ids(a), _run_ids(b)
    keys = [(cell, seed) for cell, seed in in_a if (cell_pairs.get(cell), seed) in in_b]
    return {(cell, seed): (in_a[cell, seed], in_b[cell_pairs[cell], seed]) for cell, seed in keys}


def _run_ids(results: Results) -> dict[tuple[str, int], str]:
    """Return run ids by cell and seed."""
    columns = zip(*(results.final[name] for name in ("cell", "seed", "run_id")), strict=True)
    return {(str(cell), int(seed)): str(run_id) for cell, seed, run_id in columns}


def _refuse_other_images(a: Results, b: Results, pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse runs of other images: a difference between them would mean nothing."""
    for id_a, id_b in pairs:
        in_a, in_b = (str(document.get("data_sha256")) for document in (a.documents[id_a], b.documents[id_b]))
        if in_a != in_b:
            raise ResultsError(
                f"{a.folder} and {b.folder} cannot be compared, the runs are of other images: their SHA-256 begins "
                f"with {in_a[:12]} in A, {in_b[:12]} in B."
            )


def _only_in_one(a: Results, b: Results, cell_pairs: CellPairs, pairs: RunPairs) -> Iterator[str]:
    """Name the cells that only one folder has, and the seeds that only one has of the other cells."""
    for results, common_cells, common_runs in (
        (a, set(cell_pairs), set(pairs)),
        (b, set(cell_pairs.values()), {(cell_pairs[cell], seed) for cell, seed in pairs}),
    ):
        if own := [name for name in _cells_by_settings(results.study).values() if name not in common_cells]:
            yield later(
                "Only {folder} has, with these settings, the cells {cells}: not compared.",
                folder=results.folder, cells=later_by(joined, own),
            )  # fmt: skip
        if alone := [run for run in _run_ids(results) if run[0] in common_cells and run not in common_runs]:
            runs = later_by(by_cell, alone)
            yield later("Only {folder} has the runs {runs}: not compared.", folder=results.folder, runs=runs)


def _diverged_in_one(a: Results, b: Results, pairs: RunPairs) -> Iterator[str]:
    in_a, in_b = (set(side.final["run_id"][side.final["status"] == "diverged"]) for side in (a, b))
    only_a = [run for run, (id_a, id_b) in pairs.items() if id_a in in_a and id_b not in in_b]
    only_b = [run for run, (id_a, id_b) in pairs.items() if id_a not in in_a and id_b in in_b]
    for results, runs in ((a, only_a), (b, only_b)):
        if runs:
            which = later_by(by_cell, runs)
            yield later("Diverged in {folder} only: {runs}.", folder=results.folder, runs=which)


# ---- Bits ----


def _bits(a: Results, b: Results, cell_names: list[str], pairs: RunPairs) -> list[Bits]:
    rows_a, rows_b = _epochs_by_run(a), _epochs_by_run(b)
    columns = [name for name in compared(a.study.metrics) if name in compared(b.study.metrics)]
    partings: dict[str, dict[int, Parting]] = {cell: {} for cell in cell_names}
    defects = Counter[str]()
    for (cell, seed), (id_a, id_b) in pairs.items():
        if difference := parting(a.documents[id_a], rows_a[id_a], b.documents[id_b], rows_b[id_b], columns):
            partings[cell][seed] = difference
            defects[cell] += id_a == id_b and is_exact(a.documents[id_a])  # one id is one specification
    seeds = Counter(cell for cell, _ in pairs)
    return [Bits(cell, seeds[cell], partings[cell], defects[cell]) for cell in cell_names]


def _epochs_by_run(results: Results) -> dict[str, list[dict[str, object]]]:
    rows: dict[str, list[dict[str, object]]] = {}
    for row in results.epochs.sort_values("epoch").to_dict("records"):
        rows.setdefault(row["run_id"], []).append({str(name): value for name, value in row.items()})
    return rows


# ---- Numbers ----


def _differences_by_response(
    a: Results, b: Results, cell_pairs: CellPairs, responses: Iterable[str]
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return B - A by seed (rows) and cell (columns) for each response in both folders, and a sentence for others."""
    differences: dict[str, pd.DataFrame] = {}
    absent: list[str] = []
    names = {in_b: in_a for in_a, in_b in cell_pairs.items()}
    for response in responses:
        if response not in a.study.responses or response not in b.study.responses:
            absent.append(later("{response} is not compared: only one of the folders has it.", response=response))
            continue
        table_a, table_b = seed_table(a, response), seed_table(b, response).rename(columns=names)
        lacking = [str(side.folder) for side, table in ((a, table_a), (b, table_b)) if table.isna().all(axis=None)]
        if lacking:
            label, folders = a.study.responses[response].kept, later_by(joined, lacking)
            absent.append(
                later("{response} is not compared: {folders} has no values of it.", response=label, folders=folders)
            )
        else:
            differences[response] = (table_b[list(cell_pairs)] - table_a[list(cell_pairs)]).dropna(how="all")
    return differences, absent


def _findings(
    values: Mapping[str, pd.DataFrame],
    margins: Mapping[str, float],
    identical: Mapping[str, bool],
    responses: Mapping[str, Response] = RESPONSES,
) -> Iterator[Finding]:
    """Judge every response in every cell, and in the mean of the cells if there are several."""
    same_bits = dict(identical)
    if len(identical) > 1:
        same_bits[MEAN] = all(identical.values())
    alpha = ALPHA / max(1, len(values) * len(same_bits))
    for response, table in values.items():
        for cell, same in same_bits.items():
            z = table.dropna().mean(axis=1) if cell == MEAN else table[cell].dropna()
            sample = Sample.of(np.asarray(z, dtype=np.float64))
            verdict = "bit-identical" if same else judge(sample, margins[response], alpha)
            yield Finding(cell, response, verdict, sample, margins[response], alpha, responses[response])


def judge(sample: Sample, margin: float, alpha: float) -> Verdict:
    """Return the verdict on one response of runs whose bits differ.

    *equivalent* if the 1 - `alpha` t interval lies inside ± `margin`; else *different* if it excludes 0; else *too
    little to tell*, as with fewer than `LEAST_SEEDS` seeds. If the true difference is `margin` or more, only
    'equivalent' is false; if it is 0, only 'different' is; in between, only 'different' with the wrong sign. So for
    Gaussian differences a false verdict has a probability of at most `alpha`. Differences that are the same in all
    seeds count only if they are 0.

    Parameters
    ----------
    sample
        The differences, one per seed.
    margin
        The smallest difference that matters, in the same unit.
    alpha
        Probability of a false verdict.
    """
    if sample.n >= LEAST_SEEDS and sample.sd == 0 and abs(sample.mean) <= _ROUNDING:
        return "equivalent"
    match decide(sample, "increase" if sample.mean >= 0 else "decrease", margin, alpha):
        case "negligible":
            return "equivalent"
        case "supported" | "supported, size open":
            return "different"
        case _:
            return "too little to tell"


# ---- Causes ----


def _causes(a: Results, b: Results) -> list[tuple[str, str, str]]:
    """Return what the provenance and the protocol of the runs differ in."""
    in_a, in_b = (
        {name: [value for value, _ in counts] for name, counts in provenance(analyse(side))} for side in (a, b)
    )
    protocol = mark("Protocol")
    in_a[protocol], in_b[protocol] = [str(a.protocol_version)], [str(b.protocol_version)]
    return [
        (name, later_by(_values, in_a.get(name, [NOTHING])), later_by(_values, in_b.get(name, [NOTHING])))
        for name in {**in_a, **in_b}
        if name not in _NO_CAUSE and set(in_a.get(name, ())) != set(in_b.get(name, ()))
    ]


def _values(values: list[str]) -> str:
    return joined(map(told, values))
