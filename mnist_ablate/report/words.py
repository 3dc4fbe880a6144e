"""Numbers, studies and their state in words."""

import math
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

import pandas as pd

from mnist_ablate.design.contrasts import Level, show
from mnist_ablate.design.plan import plan
from mnist_ablate.design.responses import PROBES
from mnist_ablate.design.study import Study
from mnist_ablate.inference.effects import LOSS_CAP, cell_names
from mnist_ablate.inference.verdicts import declarations
from mnist_ablate.store.results import Results

DATASETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
NOTHING = "–"  # noqa: RUF001 # an en dash, what a table of numbers shows where there is no number
MINUS = "−"  # noqa: RUF001 # as wide as the plus


# ---- Numbers and lists ----


def number(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """Write `value` with its minus as wide as a plus, and what is not a number as a dash."""
    if pd.isna(value):
        return NOTHING
    return f"{value:{'+' if sign else ''}z.{digits}f}".replace("-", MINUS)


def span(low: float, high: float, digits: int = 2, *, sign: bool = True) -> str:
    """Write an interval; with up to two digits more, where an end would else read as 0 that is on one side of it."""
    if pd.isna(low):
        return NOTHING
    digits += next((more for more in range(2) if all(round(end, digits + more) for end in (low, high) if end)), 2)
    return f"{number(low, digits, sign=sign)} to {number(high, digits, sign=sign)}"


def p_value(p: float) -> str:
    """Write a p value to three digits, and a small one as a bound."""
    return NOTHING if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(share: float) -> str:
    """Write a share in percent, with as many digits as it needs, to two."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + " %"


def plural(n: int, noun: str) -> str:
    """Write a number of things."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def listed(items: Iterable[object], last: str = "and") -> str:
    """Join items as a sentence does."""
    words = [str(item) for item in items]
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def of(n: int, planned: int) -> str:
    """Write a number of runs, with what was planned where it differs."""
    return str(n) if n == planned else f"{n} of {planned}"


def seeds(numbers: Iterable[int]) -> str:
    """Name seeds in short: 'seed 3', 'seeds 0-4, 7' (with an en dash)."""
    runs: list[list[int]] = []
    for seed in sorted(numbers):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    parts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}{NOTHING}{run[-1]}" for run in runs]
    return f"seed{'s' * (sum(map(len, runs)) > 1)} {', '.join(parts)}"


def duration(seconds: float) -> str:
    """Write a time."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def time_span(times: Iterable[str]) -> str:
    """Name the first and the last of some times, to the minute."""
    try:
        moments = sorted(datetime.fromisoformat(time).astimezone(UTC) for time in times)
        first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (moments[0], moments[-1]))
    except ValueError:
        first, last = min(times), max(times)
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"


# ---- The study ----


def level(value: Level) -> str:
    """Write a level of a setting."""
    return ("off", "on")[value] if isinstance(value, bool) else show(value)


def levels(study: Study, setting: str) -> str:
    """Name the level of a setting, or all of them where it is a factor."""
    shared = {name: (value,) for name, value in study.protocol.model_dump().items()}
    known = (shared | {factor.name: factor.levels for factor in study.design})[setting]
    return listed((DATASETS.get(str(value), level(value)) for value in known), "or")


def lead(results: Results) -> str:
    """Say in plain words what was run."""
    study = results.study
    n_cells, epochs = len(cell_names(study)), levels(study, "epochs")
    what = "one neural network" if n_cells == 1 else f"{n_cells} variants of a neural network"
    times = "once" if study.seeds == 1 else f"{study.seeds:,} times{' each' * (n_cells > 1)}, from as many random seeds"
    differ = (
        "" if n_cells == 1 else f" The variants (cells) differ in nothing but {listed(f.name for f in study.design)}."
    )
    return (
        f"This study trains {what} {times}, for {epochs} epoch{'s' * (epochs != '1')} on {levels(study, 'dataset')}, "
        f"and tests {'it' if n_cells == 1 else 'them'} on images kept apart.{differ}"
    )


def facts(results: Results) -> dict[str, str]:
    """Name the settings: what varies, then what all runs share."""
    study = results.study
    varied = {factor.name: f"{levels(study, factor.name)} (varied)" for factor in study.design}
    fixed = {name: levels(study, name) for name in ("l2", "dropout", "batch_norm") if name not in varied}
    batches = f"batches of {levels(study, 'batch_size')}"
    return varied | fixed | {
        "Network": f"hidden layers: {levels(study, 'depth')}, units in each: {levels(study, 'width')}",
        "Training": f"Adam, learning rate {levels(study, 'learning_rate')}, {batches}",
        "Held out": f"{levels(study, 'validation_fraction')} of the training images, for validation",
        "Engine": study.chosen_engine,
        "Time": _time(results),
    }  # fmt: skip


def _time(results: Results) -> str:
    training, evaluation = (duration(results.epochs[name].sum()) for name in ("train_seconds", "eval_seconds"))
    return f"{training} of training and {evaluation} of evaluation, summed over {plural(len(results.documents), 'run')}"


def state(results: Results) -> str:
    """Say in one line whether the study is whole."""
    planned, diverged = len(plan(results.study)), int((results.final["status"] == "diverged").sum())
    stored = max(planned - len(_missing(results)), 0)
    return f"{stored:,} of {plural(planned, 'planned run')} stored, {diverged or 'none'} diverged"


def _missing(results: Results) -> list[tuple[str, int]]:
    return [(run.cell, run.seed) for run in plan(results.study) if run.run_id not in results.documents]


def notices(results: Results) -> list[str]:
    """Say what a reader must know before the numbers: what is missing, damaged, diverged or changed afterwards."""
    final = results.final
    diverged = final[final["status"] == "diverged"]
    gone, failed = _missing(results), list(zip(diverged["cell"], diverged["seed"], strict=True))
    found = [
        f"{plural(len(gone), 'planned run')} not stored (not run yet, failed or damaged): {by_cell(gone)}. "
        "Comparisons use the seeds that all their cells have."
    ] * bool(gone)
    found += [
        f"{plural(len(failed), 'run')} diverged, the loss was no longer finite: {by_cell(failed)}. They stay in "
        f"every mean, with their last finite evaluation; a loss above {LOSS_CAP:.2f}, that of guessing, counts as that."
    ] * bool(failed)
    return [*found, *_unprobed(results), *_mixed(results), *_changed(results), *results.problems]


def _unprobed(results: Results) -> list[str]:
    """Say it when runs lack numbers that the study's probes should have given."""
    final = results.final
    responses = [name for probe in results.study.probes for name in PROBES[probe]]
    table = results.probes.reindex(index=final["run_id"], columns=responses)
    lacking = final[table.isna().any(axis=1).to_numpy()]
    if not responses or lacking.empty:
        return []
    runs = zip(lacking["cell"], lacking["seed"], strict=True)
    return [
        f"{plural(len(lacking), 'run')} without some or all numbers of the probes (diverged, not finite, or made "
        f"without them): {by_cell(runs)}. What rests on those numbers leaves them out, and says how many seeds it has."
    ]


def by_cell(runs: Iterable[tuple[str, int]]) -> str:
    """Name runs, each a cell and a seed, cell by cell."""
    found = defaultdict(list)
    for cell, seed in runs:
        found[cell].append(seed)
    return "; ".join(f"{cell} ({seeds(numbers)})" for cell, numbers in found.items())


def _changed(results: Results) -> list[str]:
    """Say it when the hypotheses are not those that the runs were made under."""
    rules = declarations(results).rules
    others = sum(n for sha, n in rules.items() if sha not in ("", results.study.hypotheses_sha256))
    if not results.study.hypotheses or not others:
        return []
    return [
        f"The hypotheses were changed after the first run: {others:,} of {plural(len(results.documents), 'run')} were "
        "made under others. A rule written with the data at hand can be made to fit them: the verdicts are provisional."
    ]


def _mixed(results: Results) -> list[str]:
    """Say it when the runs come from more than one kind of processor, and which come from which."""
    made_on = defaultdict(list)
    for run_id, cell, seed in zip(*(results.final[name] for name in ("run_id", "cell", "seed")), strict=True):
        made_on[str(results.documents[run_id].get("provenance", {}).get("processor", ""))].append((cell, seed))
    if len(made_on) < 2:
        return []
    kinds = ". ".join(
        f"{name or 'Not recorded'}, {plural(len(runs), 'run')}: {by_cell(runs)}"
        for name, runs in sorted(made_on.items(), key=lambda item: -len(item[1]))
    )
    return [f"The runs come from more than one kind of processor, on which the bits of results may differ. {kinds}."]
