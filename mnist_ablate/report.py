"""From a results folder to one self-contained page, and a summary in Markdown.

``python -m mnist_ablate.report [RESULTS] [--out DIR]``. The page needs no network and no script: its style and
its pictures are in it. Every number on it comes from the results. Nothing here needs torch.
"""

import argparse
import base64
import html
import io
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from mnist_ablate import plots
from mnist_ablate.design import Level, Study, plan
from mnist_ablate.effects import LOSS_CAP, cell_names, cell_table, reference_cell
from mnist_ablate.errors import MnistAblateError, ResultsError
from mnist_ablate.store import Results, load, write_atomically

FEW_SEEDS = 6
"""With fewer seeds than this, an interval says little: no verdict rests on it."""
NARROW_WIDTH = 4.1
"""Inches of a figure for a phone."""
DATASETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
NOTHING = "–"  # noqa: RUF001 # an en dash, what a table of numbers shows where there is no number
MINUS = "−"  # noqa: RUF001 # as wide as the plus
# The page's own typeface; matplotlib lays out with the wider one that it carries, so text never overflows.
_FONTS = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Report:
    """Where a report was written. In a notebook it displays itself.

    Parameters
    ----------
    html
        The page.
    summary
        The same in short, in Markdown, for a pull request.
    """

    html: Path
    summary: Path

    def __str__(self) -> str:
        return str(self.html)

    def _repr_html_(self) -> str:
        page = html.escape(self.html.read_text(encoding="utf-8"), quote=True)
        return f'<iframe title="Report" sandbox srcdoc="{page}" style="width:100%;height:45em;border:0"></iframe>'


def write(results: Results | str | Path = "results/factorial", out: str | Path | None = None) -> Report:
    """Write the report of `results`.

    Parameters
    ----------
    results
        A results folder, or what was read from one.
    out
        The folder to write to; by default ``reports/<name of the study>``.

    Returns
    -------
    Report
        Where ``index.html`` and ``summary.md`` are.

    Raises
    ------
    ResultsError
        If there are no results, or `out` cannot be a folder.
    StorageError
        If there is no space or no permission.
    """
    results = results if isinstance(results, Results) else load(results)
    folder = Path(out) if out is not None else Path("reports") / results.study.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(
            f"{folder}: cannot be written ({error.strerror}). Give another folder with --out."
        ) from error
    report = Report(folder / "index.html", folder / "summary.md")
    write_atomically(report.html, _page(results).encode())
    write_atomically(report.summary, _summary(results).encode())
    return report


def main(argv: list[str] | None = None) -> int:
    """Run the command ``python -m mnist_ablate.report``; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m mnist_ablate.report", description="Write the report of a study.")
    parser.add_argument(
        "results", nargs="?", default="results/factorial", metavar="RESULTS", help="results folder (%(default)s)"
    )
    parser.add_argument("--out", metavar="DIR", help="where to write (reports/ and the name of the study)")
    arguments = parser.parse_args(argv)
    try:
        report = write(arguments.results, arguments.out)
    except MnistAblateError as error:
        print(error, file=sys.stderr)  # noqa: T201 # what a command is for
        return error.exit_status
    print(f"Report: {report.html}\nSummary: {report.summary}")  # noqa: T201
    return 0


# ---- Tables, for the page, for Markdown and for the terminal ----


def _cell_rows(results: Results) -> list[dict[str, str]]:
    """Put the table of cells into words: accuracies in percent, differences in signed points."""
    return [
        {
            "cell": row["cell"],
            "runs": _of(row["n"], row["n_planned"]),
            "mean": _number(row["mean"]),
            "sd": _number(row["sd"]),
            "difference": "reference" if row["cell"] == row["reference"] else _number(row["difference"], sign=True),
            "interval": _interval(row),
            "diverged": str(row["n_diverged"]),
        }
        for row in cell_table(results).to_dict("records")
    ]


def _headings(results: Results) -> dict[str, str]:
    return {
        "cell": "Cell",
        "runs": "Runs",
        "mean": "Test accuracy, %",
        "sd": "sd",
        "difference": f"Difference to {reference_cell(results.study)}, points",
        "interval": "95 % interval",
        "diverged": "Diverged",
    }


def _of(n: int, planned: int) -> str:
    return str(n) if n == planned else f"{n} of {planned}"


def _number(value: float, *, sign: bool = False, digits: int = 2) -> str:
    """Write `value` with its minus as wide as a plus, and what is not a number as a dash."""
    if pd.isna(value):
        return NOTHING
    return f"{value:{'+' if sign else ''}z.{digits}f}".replace("-", MINUS)


def _interval(row: dict[Any, Any]) -> str:
    if pd.isna(row["low"]):
        return NOTHING
    # Which pairs there are is worth saying only where the numbers of runs do not say it.
    pairs = "" if row["n_pairs"] == row["n_planned"] else f" ({row['n_pairs']} pairs)"
    return f"{_number(row['low'], sign=True)} to {_number(row['high'], sign=True)}{pairs}"


def text_table(results: Results) -> str:
    """Lay out the table of cells for a terminal."""
    lines = [list(_headings(results).values()), *(list(row.values()) for row in _cell_rows(results))]
    # A terminal may know fewer characters than a page.
    lines = [[text.replace(MINUS, "-") for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


def markdown_table(results: Results) -> str:
    """Lay out the table of cells in Markdown."""
    headings = _headings(results)
    rule = [":--" if name == "cell" else "--:" for name in headings]
    lines = [headings.values(), rule, *(row.values() for row in _cell_rows(results))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _loss_rows(results: Results) -> list[dict[str, str]]:
    """Mean losses after the last epoch."""
    tables = {name: cell_table(results, name) for name in ("train_loss", "train_loss_eval", "val_loss", "test_loss")}
    return [
        {"cell": cell} | {name: _number(table["mean"][i], digits=4) for name, table in tables.items()}
        for i, cell in enumerate(cell_names(results.study))
    ]


# ---- Words ----


def _plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _listed(items: Iterable[object], last: str = "and") -> str:
    words = [str(item) for item in items]
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _level(level: Level) -> str:
    return ("off", "on")[level] if isinstance(level, bool) else f"{level:g}" if isinstance(level, float) else str(level)


def _levels(study: Study, setting: str) -> str:
    """Name the level of a setting, or all of them where it is a factor."""
    shared = {name: (level,) for name, level in study.protocol.model_dump().items()}
    levels = (shared | {factor.name: factor.levels for factor in study.design})[setting]
    return _listed((DATASETS.get(str(level), _level(level)) for level in levels), "or")


def _seeds(seeds: Iterable[int]) -> str:
    """Name seeds in short: 'seed 3', 'seeds 0-4, 7' (with an en dash)."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    parts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}{NOTHING}{run[-1]}" for run in runs]
    return f"seed{'s' * (sum(map(len, runs)) > 1)} {', '.join(parts)}"


def _lead(results: Results) -> str:
    """Say in plain words what was run."""
    study = results.study
    n_cells, epochs = len(cell_names(study)), _levels(study, "epochs")
    what = "one neural network" if n_cells == 1 else f"{n_cells} variants of a neural network"
    times = "once" if study.seeds == 1 else f"{study.seeds:,} times{' each' * (n_cells > 1)}, from as many random seeds"
    factors = _listed(factor.name for factor in study.design)
    differ = "" if n_cells == 1 else f" The variants (cells) differ in nothing but {factors}."
    return (
        f"This study trains {what} {times}, for {epochs} epoch{'s' * (epochs != '1')} on {_levels(study, 'dataset')}, "
        f"and tests {'it' if n_cells == 1 else 'them'} on images kept apart.{differ}"
    )


def _facts(results: Results) -> dict[str, str]:
    """Name the settings: what varies, then what all runs share."""
    study = results.study
    factors = {factor.name for factor in study.design}
    shared = {
        "Network": f"hidden layers: {_levels(study, 'depth')}, units in each: {_levels(study, 'width')}",
        "Training": f"Adam, learning rate {_levels(study, 'learning_rate')}, batches of {_levels(study, 'batch_size')}",
        "Held out": f"{_levels(study, 'validation_fraction')} of the training images, for validation",
        "Engine": study.chosen_engine,
    }
    techniques = ("l2", "dropout", "batch_norm")
    fixed = {name: _levels(study, name) for name in techniques if name not in factors}
    varied = {factor.name: f"{_levels(study, factor.name)} (varied)" for factor in study.design}
    return varied | fixed | shared | {"Time": _time(results)}


def _time(results: Results) -> str:
    training, evaluation = (_duration(results.epochs[name].sum()) for name in ("train_seconds", "eval_seconds"))
    runs = _plural(len(results.documents), "run")
    return f"{training} of training and {evaluation} of evaluation, summed over {runs}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _state(results: Results) -> str:
    """Say in one line whether the study is whole."""
    planned, diverged = len(plan(results.study)), int((results.final["status"] == "diverged").sum())
    stored = max(planned - len(_missing(results)), 0)
    return f"{stored:,} of {_plural(planned, 'planned run')} stored, {diverged or 'none'} diverged"


def _missing(results: Results) -> list[tuple[str, int]]:
    return [(run.cell, run.seed) for run in plan(results.study) if run.run_id not in results.documents]


def notices(results: Results) -> list[str]:
    """Say what a reader must know before the numbers: what is missing, damaged or diverged. Empty if nothing is."""
    final = results.final
    diverged = final[final["status"] == "diverged"]
    gone, failed = _missing(results), list(zip(diverged["cell"], diverged["seed"], strict=True))
    found = [
        f"{_plural(len(gone), 'planned run')} not stored (not run yet, failed or damaged): {_by_cell(gone)}. "
        "Comparisons use the seeds that both cells have."
    ] * bool(gone)
    found += [
        f"{_plural(len(failed), 'run')} diverged, the loss was no longer finite: {_by_cell(failed)}. They stay in "
        f"every mean, with their last finite evaluation; a loss above {LOSS_CAP:.2f}, that of guessing, counts as that."
    ] * bool(failed)
    return [*found, *results.problems]


def _by_cell(runs: Iterable[tuple[str, int]]) -> str:
    seeds = defaultdict(list)
    for cell, seed in runs:
        seeds[cell].append(seed)
    return "; ".join(f"{cell} ({_seeds(of)})" for cell, of in seeds.items())


def _accuracy_alt(results: Results) -> str:
    """Say what the picture of accuracies shows."""
    frame = cell_table(results).dropna(subset="mean").sort_values("mean")
    means = "; ".join(f"{row.cell} {row.mean:.2f}" for row in frame[::-1].itertuples())
    low, high = frame["min"].min(), frame["max"].max()
    return (
        f"Dot plot of test accuracy, a row for each of {_plural(len(frame), 'cell')} and a dot for each seed. Single "
        f"runs lie between {low:.2f} and {high:.2f} percent. Means from highest to lowest, in percent: {means}."
    )


def _loss_alt(results: Results) -> str:
    """Say what the picture of losses shows."""
    rows = [row for row in _loss_rows(results) if row["val_loss"] != NOTHING]
    ends = "; ".join(f"{row['cell']} {row['train_loss_eval']} and {row['val_loss']}" for row in rows)
    return (
        f"Line plots of loss against epoch, a panel for each of {_plural(len(rows), 'cell')}. Mean loss after the last "
        f"epoch, on training images and on validation images: {ends}."
    )


# ---- Where the results come from ----


def _provenance(results: Results) -> list[tuple[str, list[tuple[str, str]]]]:
    """List each key of the runs' provenance with its distinct values and the number of runs of each."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for document in results.documents.values():
        known = {"data_sha256": document.get("data_sha256"), **document.get("provenance", {})}
        for key, value in known.items():
            counts[key][_recorded(value)] += 1
    started = counts.pop("started", Counter())
    table = [
        (_LABELS.get(key, key), [(value, _of(n, len(results.documents))) for value, n in of.most_common()])
        for key, of in counts.items()
    ]
    return [*table, ("Started", [(_span(started), str(started.total()))])] if started else table


def _recorded(value: object) -> str:
    """Name a value of the provenance; one that says nothing is a dash."""
    if isinstance(value, bool):
        return ("no", "yes")[value]
    return (value if isinstance(value, str) else json.dumps(value)) if value not in ("", None) else NOTHING


_LABELS = {
    "data_sha256": "Data, SHA-256",
    "mnist_ablate": "mnist_ablate",
    "git_commit": "Git commit",
    "git_dirty": "Uncommitted changes",
    "environment": "Environment variables",
    "cpu_capability": "Vector instructions",
    "processor": "Processor",
    "platform": "Platform",
    "threads": "Threads in a run",
    "engine": "Engine",
    "python": "Python",
}


def _span(times: Iterable[str]) -> str:
    """Name the first and the last of some times, to the minute."""
    try:
        moments = sorted(datetime.fromisoformat(time).astimezone(UTC) for time in times)
        first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (moments[0], moments[-1]))
    except ValueError:
        first, last = min(times), max(times)
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"


# ---- Pages ----


def _svg(figure: Figure) -> str:
    """Write a figure as a data URI: the same bytes for the same results, and text as text."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mnist_ablate"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")), dpi=200)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace("'DejaVu Sans'", _FONTS)
    return "data:image/svg+xml;base64," + base64.b64encode(drawing.encode()).decode()


def _picture(draw: Callable[..., Figure], results: Results, alt: str) -> dict[str, str]:
    """Draw a figure for wide and narrow screens, light and dark."""
    sizes = {"wide": plots.WIDTH, "narrow": NARROW_WIDTH}
    figures = {
        f"{size}_{theme}": _svg(draw(results, theme=theme, width=width))
        for size, width in sizes.items()
        for theme in plots.THEMES
    }
    return figures | {"alt": alt}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mnist_ablate"),
        autoescape=jinja2.select_autoescape(("html",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = _markdown
    return environment


def _markdown(text: str) -> str:
    """Make `text` safe inside a line of Markdown: one line, and no character that means something there."""
    return re.sub(r"([\\`*_\[\]<>#|&])", r"\\\1", " ".join(text.split()))


def _content(results: Results) -> dict[str, Any]:
    """Gather what both the page and the summary say."""
    return {
        "title": results.study.title or results.study.name,
        "lead": _lead(results),
        "state": _state(results),
        "notices": notices(results),
        "few_seeds": results.study.seeds if results.study.seeds < FEW_SEEDS else None,
        "reference": reference_cell(results.study),
        "folder": results.folder.as_posix(),
    }


def _page(results: Results) -> str:
    return (
        _environment()
        .get_template("page.html")
        .render(
            **_content(results),
            facts=_facts(results),
            headings=_headings(results),
            rows=_cell_rows(results),
            losses=_loss_rows(results),
            accuracy=_picture(plots.accuracy, results, _accuracy_alt(results)),
            loss=_picture(plots.loss_curves, results, _loss_alt(results)),
            provenance=_provenance(results),
            least_seeds=FEW_SEEDS,
        )
    )


def _summary(results: Results) -> str:
    return _environment().get_template("summary.md").render(**_content(results), table=markdown_table(results))


class _CallableModule(ModuleType):
    """A module that is called as its function `write`.

    ``mnist_ablate.report(...)`` is the documented name of the function, and importing this module makes
    ``mnist_ablate.report`` the module, whichever comes first. Python lets a module's class be replaced for
    such cases ("Customizing module attribute access" in its reference).
    """

    def __call__(self, results: Results | str | Path = "results/factorial", out: str | Path | None = None) -> Report:
        """Write the report of `results`; see `write`."""
        return write(results, out)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    sys.exit(main())
