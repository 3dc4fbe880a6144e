"""The page of the calibration: from counts to words, tables and pictures."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jinja2
import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from mnist_ablate import plots

HERE = Path(__file__).parent
NOISES = {
    "gaussian": "Gaussian",
    "t3": "heavy tails (t, 3 df)",
    "contaminated": "3 % outliers",
    "skewed_runs": "skewed runs",
    "skewed_effects": "skewed effects",
}
WORST = "false verdict in the family, each at its worst"
_SURE = 0.05
"""Of all checks of one kind together: the chance to call something a miss that is none."""
_POWER_SLACK = 0.01
"""Power is called missed where it is short by more: a formula for planning needs no more digits than that."""
_MARKERS = ("o", "s", "D")


# ---- What misses ----


def misses(rows: pd.DataFrame, side: Literal["less", "greater"]) -> pd.DataFrame:
    """Pick the rows whose count is not what was promised, by binomial tests shared out over all of `rows`.

    Parameters
    ----------
    rows
        Of one kind, as `calibration.counted` makes them.
    side
        Which way a miss goes: ``"less"`` or ``"greater"``.
    """
    tests = zip(rows["k"], rows["R"], rows["nominal"], strict=True)
    p = [stats.binomtest(int(k), int(n), nominal, side).pvalue for k, n, nominal in tests]
    return rows[pd.Series(p, index=rows.index) < _SURE / max(len(rows), 1)]


def findings(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Say what holds, and what misses its nominal value."""
    holds: list[str] = []
    wrong: list[str] = []
    for noise, name in NOISES.items():
        for say in (_say_coverage, _say_family, _say_power):
            text, missed = say(frame[frame["noise"] == noise])
            if text and (missed or noise == "gaussian"):
                (wrong if missed else holds).append(f"{name}: {text}")
    for text, missed in (_say_two_way(frame), _say_cautious(frame), _say_looking(frame)):
        (wrong if missed else holds).append(text)
    return holds, wrong


def _say_coverage(rows: pd.DataFrame) -> tuple[str, bool]:
    rows = rows[rows["quantity"] == "coverage"]
    short = misses(rows, "less")
    if short.empty:
        return f"95 % intervals hold the true effect in {_range(rows['estimate'])} of the studies.", False
    return (
        f"95 % intervals hold the true effect in as few as {_percent(short['estimate'].min())} of the studies; short "
        f"in {len(short)} of {len(rows)} settings.", True,
    )  # fmt: skip


def _say_family(rows: pd.DataFrame) -> tuple[str, bool]:
    rows = rows[rows["quantity"].str.startswith("false verdict in the family")]
    above = misses(rows, "greater")
    limit = _percent(rows["nominal"].iloc[0])
    if above.empty:
        most = _percent(rows["estimate"].max())
        return (
            f"at most {most} of the studies have a false verdict on any hypothesis ({limit} allowed).",
            False,
        )
    return (
        f"up to {_percent(above['estimate'].max())} of the studies have a false verdict somewhere, where {limit} are "
        f"allowed; too many in {len(above)} of {len(rows)} settings.", True,
    )  # fmt: skip


def _say_power(rows: pd.DataFrame) -> tuple[str, bool]:
    rows = rows[rows["quantity"].str.endswith("with the seeds needed")]
    short = misses(rows.assign(nominal=rows["nominal"] - _POWER_SLACK), "less")
    least = _percent(rows["estimate"].min())
    promise = _percent(rows["nominal"].iloc[0], 0)
    if short.empty:
        return f"the number of seeds that is called enough gives at least {least} power ({promise} promised).", False
    return (
        f"the number of seeds that is called enough gives as little as {least} power, where {promise} are promised; "
        f"short for {short['hypothesis'].nunique()} of {rows['hypothesis'].nunique()} hypotheses.", True,
    )  # fmt: skip


def _say_two_way(frame: pd.DataFrame) -> tuple[str, bool]:
    rows = frame[frame["quantity"] == "two-way coverage of new seeds and images"]
    if rows.empty:
        return "New images: not tried, the reference has no stored predictions.", True
    short, seen = misses(rows, "less"), _range(rows["estimate"])
    one_way = frame[frame["quantity"] == "coverage of new seeds and images by the interval over seeds"]
    text = f"New seeds and new images: two-way 95 % intervals hold the true effect in {seen} of the studies"
    where = f", short in {len(short)} of {len(rows)} settings" if len(short) else ""
    least = _percent(one_way["estimate"].min())
    return f"{text}{where}; intervals over seeds alone, which do not claim to, in as few as {least}.", bool(len(short))


def _say_cautious(frame: pd.DataFrame) -> tuple[str, bool]:
    rows = frame[frame["quantity"] == "cautious number of seeds is enough"]
    least = rows.groupby("noise")["estimate"].min()
    short = misses(rows, "less")["noise"].unique()
    parts = ", ".join(f"{NOISES[noise]} {_percent(least[noise], 0)}" for noise in NOISES if noise in least)
    text = "Seeds needed, from a pilot of 10: the cautious number is to be enough after 80 % of all pilots; it is after"
    return f"{text} (the least of the hypotheses): {parts}.", len(short) > 0


def _say_looking(frame: pd.DataFrame) -> tuple[str, bool]:
    rows = frame[frame["noise"] == "gaussian"].groupby(["quantity", "n"])["estimate"].mean()
    last = rows.index.get_level_values("n").max()
    words = ("a look after every seed", "three looks, a third of alpha each")
    often, thrice = (rows[f"false effect, {name}", last] for name in words)
    text = (
        f"Looking at the verdict after every seed up to {last} finds an effect that is not there in "
        f"{_percent(often, 0)} of the studies, in the place of 5 %; three declared looks do in {_percent(thrice)}. "
        "So the number of seeds, or of looks, is fixed before the run."
    )
    return text, False


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}\u00a0%"


def _range(values: "pd.Series[float]") -> str:
    return f"{_percent(values.min())} to {_percent(values.max())}"


# ---- Tables: headings, and rows of cells ----

Table = dict[str, Any]


def _table(caption: str, headings: list[str], rows: list[list[str]]) -> Table:
    return {"caption": caption, "headings": headings, "rows": rows}


def _coverage_table(frame: pd.DataFrame) -> Table:
    rows = frame[frame["quantity"] == "coverage"]
    sizes = sorted(rows["n"].unique())
    grouped = {key: of["estimate"] for key, of in rows.groupby(["noise", "n"])}
    body = [[name, *(_range(grouped[noise, n]) for n in sizes)] for noise, name in NOISES.items()]
    caption = "Studies whose 95 % interval holds the true effect: from the least to the most among the hypotheses."
    return _table(caption, ["Noise", *(f"{n} seeds" for n in sizes)], body)


def _family_table(frame: pd.DataFrame, n: int) -> Table:
    rows = frame[(frame["n"] == n) & frame["quantity"].str.startswith("false verdict in the family")]
    truths = sorted(rows["truth"].dropna().unique())
    body = []
    for noise, name in NOISES.items():
        of = rows[rows["noise"] == noise].set_index("truth")["estimate"]
        worst = rows[(rows["noise"] == noise) & (rows["quantity"] == WORST)]["estimate"].iloc[0]
        body.append([name, *(_percent(of[truth]) for truth in truths), _percent(worst)])
    limit = _percent(rows["nominal"].iloc[0])
    caption = (
        f"Studies of {n} seeds with a false verdict on any of their hypotheses, by the true effect, which is given in "
        f"units of \u0394, the smallest that matters, in the direction of the claim. Allowed: {limit}."
    )
    return _table(caption, ["Noise", *map(_delta, truths), "each at its worst"], body)


def _delta(truth: float) -> str:
    number = {0.5: "½", 1.0: "", 2.0: "2"}.get(abs(truth), f"{abs(truth):g}")
    sign = "\u2212" if truth < 0 else ""
    return "0" if truth == 0 else f"{sign}{number}\u0394"


def _needed_table(frame: pd.DataFrame, facts: dict[str, Any]) -> Table:
    rows = frame[frame["quantity"].str.endswith("with the seeds needed")]
    body = []
    for name, of in rows.groupby("hypothesis", sort=False):
        least = of.groupby("noise")["estimate"].min()
        known = facts["hypotheses"][name]
        seeds = f"{of['n'].iloc[0]:,}"
        numbers = [f"{known['sd']:.4f}", f"{known['smallest']:g}", seeds]
        body.append([str(name), *numbers, *(_percent(least[noise]) for noise in NOISES)])
    caption = (
        "Power with the number of seeds that is called enough, told the true spread: the share of studies with the "
        "true verdict, where the true effect is \u0394 or 0, whichever is seen less often. Promised: 90 %."
    )
    return _table(caption, ["Hypothesis", "sd", "\u0394", "Seeds", *NOISES.values()], body)


def _looking_table(frame: pd.DataFrame) -> Table:
    rows = frame[frame["quantity"].str.startswith("false effect, ")]
    means = rows.groupby(["noise", "n", "quantity"])["estimate"].mean()
    columns = [(quantity, n) for n in sorted(rows["n"].unique()) for quantity in rows["quantity"].unique()]
    body = [[name, *(_percent(means[noise, n, q]) for q, n in columns)] for noise, name in NOISES.items()]
    headings = [f"{quantity.removeprefix('false effect, ')}, to seed {n}" for quantity, n in columns]
    caption = "Studies that find an effect where there is none, by the t test at 5 %: means over the hypotheses."
    return _table(caption, ["Noise", *headings], body)


def _images_table(frame: pd.DataFrame) -> Table | None:
    rows = frame[frame["quantity"].str.contains("new seeds and images")]
    kinds = {"two-way coverage of new seeds and images": "two-way",
             "coverage of new seeds and images by the interval over seeds": "seeds only"}  # fmt: skip
    models = {"crossed": "crossed Gaussian model", "resampled": "resampled reference"}
    sizes = sorted(rows["n"].unique())
    found = rows.set_index(["noise", "hypothesis", "quantity", "n"])["estimate"]
    body = [
        [f"{name}, {words}", *(_percent(found[noise, name, kind, n]) for kind in kinds for n in sizes)]
        for noise, words in models.items()
        for name in rows["hypothesis"].unique()
    ]
    headings = [f"{words}, {n} seeds" for words in kinds.values() for n in sizes]
    caption = "Studies whose 95 % interval holds the effect on new seeds and new test images."
    return _table(caption, ["Effect, and what is drawn from", *headings], body) if body else None


# ---- Pictures ----


def draw_coverage(frame: pd.DataFrame, theme: plots.ThemeName, width: float) -> Figure:
    """Draw the coverage of every hypothesis: a row per noise, a marker per number of seeds."""
    colours, rows = plots.THEMES[theme], frame[frame["quantity"] == "coverage"]
    figure, axes = _canvas(colours, width, 3.7)
    sizes = sorted(rows["n"].unique())
    for place, (n, colour) in enumerate(zip(sizes, (colours.orange, colours.blue, colours.ink), strict=False)):
        of = rows[rows["n"] == n]
        heights = of["noise"].map(list(NOISES).index) + 0.24 * (place - 1)
        axes.plot(100 * of["estimate"], heights, _MARKERS[place], color=colour, markersize=4.5, label=f"{n} seeds")
    axes.axvline(95, color=colours.muted, linewidth=1.2, label="95 %")
    axes.set_yticks(range(len(NOISES)), list(NOISES.values()))
    axes.set(xlabel="intervals that hold the true effect, %", ylim=(len(NOISES) - 0.5, -0.5))
    axes.grid(axis="x", color=colours.grid, linewidth=0.8)
    _key(figure, colours, 4 if width > plots.NARROW else 2)
    return figure


def draw_power(frame: pd.DataFrame, theme: plots.ThemeName, width: float) -> Figure:
    """Draw simulated against promised power, Gaussian noise, and the line on which they are equal."""
    colours = plots.THEMES[theme]
    rows = frame[(frame["noise"] == "gaussian") & frame["quantity"].isin(_POWERS)]
    figure, axes = _canvas(colours, width, 4.2)
    axes.plot([0, 100], [0, 100], color=colours.muted, linewidth=1.2, label="as promised")
    for (quantity, of), colour, marker in zip(
        rows.groupby("quantity"), (colours.blue, colours.orange), "os", strict=False
    ):
        promise, seen = 100 * of["nominal"], 100 * of["estimate"]
        axes.plot(promise, seen, marker, color=colour, markersize=5, label=_POWERS[str(quantity)])
    axes.set(xlabel="power promised by the formula, %", ylabel="true verdicts in the simulation, %")
    axes.grid(color=colours.grid, linewidth=0.8)
    _key(figure, colours, 3 if width > plots.NARROW else 1)
    return figure


_POWERS = {
    "power to see an effect": "an effect of \u0394 is seen",
    "power to see that nothing is there": "an effect of 0 is seen to be negligible",
}


def _canvas(colours: plots.Theme, width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=colours.paper)
    axes = figure.add_subplot()
    axes.set_facecolor(colours.paper)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(colours.muted)
    axes.tick_params(colors=colours.muted, labelcolor=colours.ink, labelsize=9, length=3)
    axes.xaxis.label.set(color=colours.ink, fontsize=10)
    axes.yaxis.label.set(color=colours.ink, fontsize=10)
    return figure, axes


def _key(figure: Figure, colours: plots.Theme, columns: int) -> None:
    figure.legend(loc="outside upper left", ncols=columns, frameon=False, labelcolor=colours.ink, fontsize=9.5)


def _picture(draw: Callable[..., Figure], frame: pd.DataFrame, alt: str) -> dict[str, str]:
    """Draw a figure for wide and narrow screens, light and dark."""
    sizes = {"wide": plots.WIDTH, "narrow": 4.1}
    drawn = {
        f"{size}_{theme}": _svg(draw(frame, theme, width)) for size, width in sizes.items() for theme in plots.THEMES
    }
    return drawn | {"alt": alt}


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mnist_ablate"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace("'DejaVu Sans'", "'Helvetica Neue', Arial, sans-serif")
    return "data:image/svg+xml;base64," + base64.b64encode(drawing.encode()).decode()


# ---- The page ----


def page(frame: pd.DataFrame, document: dict[str, Any]) -> str:
    """Make the page of counts and of what they were made from."""
    loader = jinja2.ChoiceLoader([jinja2.FileSystemLoader(HERE), jinja2.PackageLoader("mnist_ablate.report")])
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    holds, wrong = findings(frame)
    coverage = frame[frame["quantity"] == "coverage"]
    covered = "; ".join(f"{name} {_range(coverage[coverage['noise'] == n]['estimate'])}" for n, name in NOISES.items())
    power_alt = (
        "Scatter plot of simulated against promised power with Gaussian noise; the table of seeds has the numbers."
    )
    return environment.get_template("calibration.html").render(
        about=document,
        holds=holds,
        wrong=wrong,
        sizes=sorted(int(n) for n in coverage["n"].unique()),
        coverage=_picture(draw_coverage, frame, f"Dot plot of coverage, a row per kind of noise: {covered}."),
        power=_picture(draw_power, frame, power_alt),
        coverage_table=_coverage_table(frame),
        family_tables=[_family_table(frame, int(n)) for n in sorted(coverage["n"].unique())],
        needed_table=_needed_table(frame, document),
        looking_table=_looking_table(frame),
        images_table=_images_table(frame),
    )
