"""docs/calibration.md: its sentences, tables and picture, from the counts."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from marks import between, table
from matplotlib.figure import Figure
from scipy import stats

from mnist_ablate import plots
from mnist_ablate.plots import style

PAGE = Path(__file__).with_name("calibration.md")
NOISES = {
    "gaussian": "Gaussian",
    "t3": "heavy tails (t, 3 df)",
    "contaminated": "3 % outliers",
    "skewed_runs": "skewed runs",
    "skewed_effects": "skewed effects",
}
FAMILY = "false verdict in the family"
WORST = "false verdict in the family, each at its worst"
NEEDED = "with the seeds needed"
IMAGE_INTERVALS = {
    "two-way coverage of new seeds and images": "two-way",
    "coverage of new seeds and images by the interval over seeds": "seeds only",
}
_DRAWN = {"crossed": "crossed Gaussian model", "resampled": "resampled reference"}
_SURE = 0.05
"""The probability of any false alarm among all checks of one kind."""
_POWER_SLACK = 0.01
"""Power counts as short where it misses its promise by more: a formula for planning needs no more digits."""


# ---- What misses its nominal value ----


def misses(rows: pd.DataFrame, side: Literal["less", "greater"]) -> pd.DataFrame:
    """Return the rows whose count misses its promise on one side, by binomial tests with Bonferroni's correction."""
    tests = zip(rows["k"], rows["R"], rows["nominal"], strict=True)
    p = [stats.binomtest(int(k), int(n), nominal, side).pvalue for k, n, nominal in tests]
    return rows[pd.Series(p, index=rows.index) < _SURE / max(len(rows), 1)]


def findings(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return sentences on what holds, and on what misses its nominal value."""
    sentences: dict[bool, list[str]] = {False: [], True: []}
    for noise, name in NOISES.items():
        for say in (say_coverage, say_family, say_power):
            text, missed = say(frame[frame["noise"] == noise])
            if missed or noise == "gaussian":
                sentences[missed].append(f"{name}: {text}")
    for text, missed in (_say_two_way(frame), _say_cautious(frame), _say_looking(frame)):
        sentences[missed].append(text)
    return sentences[False], sentences[True]


def say_coverage(rows: pd.DataFrame) -> tuple[str, bool]:
    """Return a sentence on the intervals' coverage, and whether it is short."""
    rows = rows[rows["quantity"] == "coverage"]
    short = misses(rows, "less")
    if short.empty:
        return f"95 % intervals hold the true effect in {_range(rows['estimate'])} of the studies.", False
    least, settings = _percent(short["estimate"].min()), f"{len(short)} of {len(rows)} settings"
    return f"95 % intervals hold the true effect in as few as {least} of the studies; short in {settings}.", True


def say_family(rows: pd.DataFrame) -> tuple[str, bool]:
    """Return a sentence on false verdicts, and whether there are too many."""
    rows = rows[rows["quantity"].str.startswith(FAMILY)]
    above, limit = misses(rows, "greater"), _percent(rows["nominal"].iloc[0])
    most = _percent((rows if above.empty else above)["estimate"].max())
    if above.empty:
        return f"at most {most} of the studies have a false verdict on any hypothesis ({limit} allowed).", False
    settings = f"too many in {len(above)} of {len(rows)} settings"
    return f"up to {most} of the studies have a false verdict ({limit} allowed); {settings}.", True


def say_power(rows: pd.DataFrame) -> tuple[str, bool]:
    """Return a sentence on the power with the seeds needed, and whether it is short."""
    rows = rows[rows["quantity"].str.endswith(NEEDED)]
    short = misses(rows.assign(nominal=rows["nominal"] - _POWER_SLACK), "less")
    least, promise = _percent(rows["estimate"].min()), _percent(rows["nominal"].iloc[0], 0)
    text = f"the number of seeds called enough gives at least {least} power ({promise} promised)"
    of = f"{short['hypothesis'].nunique()} of {rows['hypothesis'].nunique()} hypotheses"
    return (f"{text}.", False) if short.empty else (f"{text}; short for {of}.", True)


def _say_two_way(frame: pd.DataFrame) -> tuple[str, bool]:
    two_way, one_way = (frame[frame["quantity"] == quantity] for quantity in IMAGE_INTERVALS)
    if two_way.empty:
        return "New images: not tried, the reference has no stored predictions.", True
    short = misses(two_way, "less")
    text = (
        f"New seeds and new images: two-way 95 % intervals hold the effect in {_range(two_way['estimate'])} of studies"
    )
    text += f", short in {len(short)} of {len(two_way)} settings" if len(short) else ""
    least = _percent(one_way["estimate"].min())
    return f"{text}; intervals over seeds alone, which do not claim to, in as few as {least}.", not short.empty


def _say_cautious(frame: pd.DataFrame) -> tuple[str, bool]:
    rows = frame[frame["quantity"] == "cautious number of seeds is enough"]
    least = rows.groupby("noise")["estimate"].min()
    parts = ", ".join(f"{NOISES[noise]} {_percent(least[noise], 0)}" for noise in NOISES if noise in least)
    text = "The cautious number of seeds from a pilot of 10 should be enough after 80 % of pilots; it is after"
    return f"{text} (least of the hypotheses): {parts}.", not misses(rows, "less").empty


def _say_looking(frame: pd.DataFrame) -> tuple[str, bool]:
    looked = frame["quantity"].str.startswith("false effect, ") & (frame["noise"] == "gaussian")
    rows = frame[looked].groupby(["quantity", "n"])["estimate"].mean()
    last = rows.index.get_level_values("n").max()
    often = _percent(rows["false effect, a look after every seed", last], 0)
    spent = _percent(rows["false effect, a look every 10 seeds, alpha spent", last])
    return (
        f"Looking at the verdict after every seed up to {last} finds an effect that does not exist in {often} of the "
        f"studies instead of 5 %; looks every 10 seeds that share these 5 % do in {spent}. So fix the number of seeds, "
        "or declare the looks, before the run."
    ), False


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}\u00a0%"


def _range(shares: "pd.Series[float]") -> str:
    return f"{_percent(shares.min())} to {_percent(shares.max())}"


# ---- Tables ----


def _table(caption: str, frame: pd.DataFrame, corner: str = "Noise") -> str:
    """Return a Markdown table of shares or texts, with a caption; the index names the rows."""
    rows = [
        [name, *(cell if isinstance(cell, str) else _percent(cell) for cell in row)]
        for name, *row in frame.itertuples()
    ]
    return f"{caption}\n\n{table([corner, *frame.columns], rows)}"


def _by_noise(rows: pd.DataFrame, columns: str | list[str]) -> pd.DataFrame:
    """Return mean shares, a row per noise."""
    wide = rows.pivot_table("estimate", "noise", columns, sort=False)
    return wide.reindex(list(NOISES)).rename(index=NOISES)


def _pairs(index: "pd.Index[Any]") -> list[tuple[Any, Any]]:
    return list(index.to_flat_index())


def _coverage_table(frame: pd.DataFrame) -> str:
    rows = frame[frame["quantity"] == "coverage"]
    ranges = rows.groupby(["noise", "n"])["estimate"].agg(_range).unstack().reindex(list(NOISES))
    caption = "Studies whose 95 % interval holds the true effect, from the least to the most among the hypotheses:"
    return _table(caption, ranges.rename(index=NOISES, columns="{} seeds".format))


def _family_table(frame: pd.DataFrame, n: int) -> str:
    rows = frame[(frame["n"] == n) & (frame["quantity"] == FAMILY)]
    worst = frame[(frame["n"] == n) & (frame["quantity"] == WORST)].set_index("noise")["estimate"]
    wide = _by_noise(rows, "truth").rename(columns=_delta)
    wide["each at its worst"] = worst.rename(index=NOISES)
    return _table(f"Studies of {n} seeds ({_percent(rows['nominal'].iloc[0])} allowed):", wide)


def _delta(truth: float) -> str:
    number = {0.0: "0", 0.5: "½\u0394", 1.0: "\u0394", 2.0: "2\u0394"}[abs(truth)]
    return f"\u2212{number}" if truth < 0 else number


def _needed_table(frame: pd.DataFrame, hypotheses: dict[str, dict[str, float]]) -> str:
    rows = frame[frame["quantity"].str.endswith(NEEDED)]
    least = rows.pivot_table("estimate", "hypothesis", "noise", aggfunc="min", sort=False)[list(NOISES)]
    known = pd.DataFrame.from_dict(hypotheses, orient="index").loc[least.index]
    seeds = rows.groupby("hypothesis", sort=False)["n"].first()
    start = {"sd": known["sd"].map("{:.4f}".format), "\u0394": known["smallest"].map("{:g}".format),
             "Seeds": seeds.map("{:,}".format)}  # fmt: skip
    caption = (
        "The share of studies with the true verdict at a true effect of \u0394 or of 0, whichever is seen less often, "
        "with the number of seeds called enough when the true spread is known (90 % promised):"
    )
    return _table(caption, pd.DataFrame(start).join(least.rename(columns=NOISES)), "Hypothesis")


def _looking_table(frame: pd.DataFrame) -> str:
    wide = _by_noise(frame[frame["quantity"].str.startswith("false effect, ")], ["n", "quantity"])
    wide.columns = pd.Index([f"{q.removeprefix('false effect, ')}, to seed {n}" for n, q in _pairs(wide.columns)])
    return _table("Studies that find an effect where there is none (t test at 5 %), means over the hypotheses:", wide)


def _images_table(frame: pd.DataFrame) -> str:
    rows = frame[frame["quantity"].isin(list(IMAGE_INTERVALS))]
    if rows.empty:
        return "Not tried: the reference has no stored predictions."
    wide = rows.pivot_table("estimate", ["noise", "hypothesis"], ["quantity", "n"], sort=False)
    wide.index = pd.Index([f"{hypothesis}, {_DRAWN[noise]}" for noise, hypothesis in _pairs(wide.index)])
    wide.columns = pd.Index([f"{IMAGE_INTERVALS[quantity]}, {n} seeds" for quantity, n in _pairs(wide.columns)])
    caption = "Studies whose 95 % interval holds the effect on new seeds and new test images:"
    return _table(caption, wide, "Effect, and what is drawn from")


# ---- The picture ----

_POWERS = {
    "power to see an effect": "an effect of \u0394 is seen",
    "power to see that nothing is there": "an effect of 0 is seen to be negligible",
}


def draw_power(frame: pd.DataFrame, theme: plots.ThemeName) -> Figure:
    """Draw simulated against promised power with Gaussian noise, and the line where they are equal."""
    colours = plots.THEMES[theme]
    figure, axes = style.canvas(colours, plots.WIDTH, 4.2)
    axes.plot([0, 100], [0, 100], color=colours.muted, linewidth=1.2, label="as promised")
    for (quantity, label), colour, marker in zip(_POWERS.items(), (colours.blue, colours.orange), "os", strict=True):
        of = frame[(frame["noise"] == "gaussian") & (frame["quantity"] == quantity)]
        axes.plot(100 * of["nominal"], 100 * of["estimate"], marker, color=colour, markersize=5, label=label)
    axes.set(xlabel="power promised by the formula, %", ylabel="true verdicts in the simulation, %")
    axes.yaxis.label.set(color=colours.ink, fontsize=10)
    axes.grid(color=colours.grid, linewidth=0.8)
    style.key(figure, axes.get_legend_handles_labels()[0], colours, columns=3)
    return figure


# ---- The page ----


def page(text: str, frame: pd.DataFrame, document: dict[str, Any], others: Sequence[str] = ()) -> str:
    """Return docs/calibration.md with what was counted in its places; `others` say what misses in other files."""
    holds, wrong = findings(frame)
    wrong += others
    sizes = sorted(frame[frame["quantity"] == "coverage"]["n"].unique())
    made = {name: document[name] for name in ("study", "draws", "image_draws", "reference_seeds", "compared", "seed")}
    versions = ", ".join(f"{name} {document[name]}" for name in ("mnist-ablate", "python", "numpy", "scipy"))
    facts = (
        "{draws:,} studies for each kind of noise and number of seeds ({image_draws:,} for new images), with the "
        "hypotheses of `{study}` and the covariance of {reference_seeds} real seeds. Before anything was counted, "
        "{compared:,} verdicts were compared one by one with those of the package: all were equal. Random seed {seed}"
    ).format(**made)
    places = {
        "holds": "\n".join(f"- {line}" for line in holds),
        "coverage": _coverage_table(frame),
        "false verdicts": "\n\n".join(_family_table(frame, int(n)) for n in sizes),
        "seeds needed": _needed_table(frame, document["hypotheses"]),
        "looking": _looking_table(frame),
        "new images": _images_table(frame),
        "made": f"{facts}; {versions}.",
    }
    for place, content in places.items():
        text = between(f"calibration.parquet, {place}", content, text)
    missed = "\n".join(f"- {line}" for line in wrong)
    return between("all counts, misses", missed or "Nothing that was tried here.", text)


def _truth(name: str) -> str:
    """Name the true effects of simulated studies that grow."""
    return {"mixed": "mixed", "measured": "as measured"}.get(name) or _delta(float(name))


def sequential_table(frame: pd.DataFrame) -> str:
    """Return the table of studies that go on until they are settled, after a sentence on what misses its promise."""
    fixed = int(frame["fixed"].iloc[0])
    gaussian = frame[frame["noise"] == "gaussian"].set_index("truth")["mean_seeds"] / fixed
    rows = [
        [
            f"{NOISES[str(row['noise'])]}, {_truth(row['truth'])}",
            *(_percent(float(row[name])) for name in ("error_estimate", "coverage_estimate", "settled", "futile")),
            f"{row['mean_seeds']:.0f} ({row['mean_seeds'] / fixed:.2f})",
            str(row["max_seeds"]),
            f"{row['bias']:+z.2f}".replace("-", "\u2212"),
        ]
        for row in frame.to_dict(orient="records")
    ]
    head = ["Noise, true effect", "False verdict in the family", "All intervals of all looks hold", "All settled",
            "Given up", f"Mean seeds (of {fixed})", "Most", "Bias"]  # fmt: skip
    allowed, promised = (_percent(frame[f"{name}_nominal"].iloc[0]) for name in ("error", "coverage"))
    return (
        f"{int(frame['studies'].iloc[0]):,} studies each; at most {allowed} may have a false verdict, and all "
        f"intervals of all looks should hold in {promised}, also of looks after the stop. A fixed design would need "
        f"{fixed} seeds; the rule takes {frame['max_seeds'].max()} at most, and with Gaussian noise "
        f"{gaussian.min():.2f} to {gaussian.max():.2f} of {fixed} on average, {gaussian['measured']:.2f} if the true "
        f"effects are those that the reference measured. *Bias* is that of the mean at the stop, "
        f"the largest among the hypotheses, in \u0394.\n\n{table(head, rows)}"
    )


def right_table(frame: pd.DataFrame) -> str:
    """Return how often each hypothesis has a true verdict where such studies stop, with Gaussian noise."""
    rows = frame[(frame["noise"] == "gaussian") & (frame["truth"] != "mixed")].set_index("truth")
    heads = [_truth(truth) for truth in rows.index]
    ids = next(iter(rows["right"]))
    body = [[name, *(_percent(row["right"][name]) for row in rows.to_dict("records"))] for name in ids]
    return table(["Hypothesis", *heads], body)


def say_sequential(frame: pd.DataFrame) -> list[str]:
    """Say of each noise what studies that go on until they are settled miss, if anything."""
    error, coverage = misses(_of(frame, "error"), "greater"), misses(_of(frame, "coverage"), "less")
    said = []
    for noise, name in NOISES.items():
        false, held = (rows[rows["noise"] == noise] for rows in (error, coverage))
        parts = []
        if len(false):
            most, allowed = _percent(false["error_estimate"].max()), _percent(false["error_nominal"].iloc[0])
            parts.append(f"up to {most} have a false verdict ({allowed} allowed)")
        if len(held):
            least, promised = _percent(held["coverage_estimate"].min()), _percent(held["coverage_nominal"].iloc[0])
            parts.append(f"all intervals of all looks hold in {least} ({promised} promised)")
        if parts:
            said.append(f"{name}, studies that go on until they are settled: {'; '.join(parts)}.")
    return said


def _of(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame.assign(k=frame[f"{name}_k"], R=frame["studies"], nominal=frame[f"{name}_nominal"])


_RULES = {
    "Satterthwaite": "Cells without common seeds",
    "averaged first": "Evaluations nested in seeds, averaged first",
    "Nadeau and Bengio": "Folds of one data set, with Nadeau and Bengio's variance",
    "HC3": "Coefficients of searches (HC3)",
}
_INSTEAD = {
    "averaged first": "evaluations as seeds",
    "Nadeau and Bengio": "folds as seeds",
    "HC3": "equal spreads assumed",
}


def elsewhere_table(frame: pd.DataFrame) -> str:
    """Return what holds and what misses of the rules for runs that were made elsewhere, and a table of each."""
    parts = [f"{int(frame['R'].iloc[0]):,} studies each. 95 % intervals hold the truth in:"]
    parts.append("\n".join(map(partial(_say_rule, frame), _RULES)))
    for rule, name in _RULES.items():
        rows = frame[(frame["rule"] == rule) & (frame["nominal"] == _USUAL)]
        wide = _ranges(rows).rename(columns=NOISES)
        if rule in _INSTEAD:
            instead = frame[(frame["rule"] == _INSTEAD[rule]) & (frame["nominal"] == _USUAL)]
            wide[f"{_INSTEAD[rule]}, Gaussian"] = _ranges(instead[instead["noise"] == "gaussian"])["gaussian"]
        parts.append(_table(f"{name}: studies whose 95 % interval holds the truth.", wide, "Studies of"))
    return "\n\n".join(parts)


_USUAL = 0.95


def _ranges(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the least and the largest coverage over sizes, a row per setting and a column per noise."""
    wide = rows.groupby(["setting", "noise"])["estimate"].agg(_span).unstack().loc[rows["setting"].unique()]
    return wide[[noise for noise in NOISES if noise in wide]].rename_axis(columns=None)


def _span(shares: "pd.Series[float]") -> str:
    return _range(shares) if len(shares) > 1 else _percent(shares.iloc[0])


def _say_rule(frame: pd.DataFrame, rule: str) -> str:
    """Say how often the intervals of a rule hold, and where they are short of what they promise."""
    rows = frame[frame["rule"] == rule]
    short, usual = misses(rows, "less"), rows[rows["nominal"] == _USUAL]
    gaussian = usual["noise"] == "gaussian"
    text = f"- {_RULES[rule]}: {_range(usual[gaussian]['estimate'])} with Gaussian noise, "
    text += f"{_range(usual[~gaussian]['estimate'])} with other noise; "
    if short.empty:
        return f"{text}nothing is short, nor at the level that decides on one of nine hypotheses."
    return f"{text}short in {len(short)} of {len(rows)} counts at both levels ({_noises(short)})."


def _noises(rows: pd.DataFrame) -> str:
    return ", ".join(NOISES[noise] for noise in NOISES if noise in set(rows["noise"]))


def say_elsewhere(frame: pd.DataFrame) -> list[str]:
    """Say of each rule for runs that were made elsewhere where its intervals are short, if anywhere."""
    said = []
    for rule, name in _RULES.items():
        rows = frame[frame["rule"] == rule]
        short = misses(rows, "less")
        if len(short):
            worst = short.iloc[(short["estimate"] - short["nominal"]).to_numpy().argmin()]
            least = f"{_percent(worst['nominal'], 0 if worst['nominal'] == _USUAL else 1)} intervals hold in as few as "
            said.append(
                f"{name}: {least}{_percent(worst['estimate'])} of the studies; short in {len(short)} of {len(rows)} "
                f"counts ({_noises(short)})."
            )
    return said


def images_table(frame: pd.DataFrame) -> str:
    """Return how often intervals over seeds and images miss at any look, after a sentence on what misses too often."""
    often = " ".join(say_images(frame)) or "None certainly misses more often than allowed."
    few = frame["R"].min()
    head = ["Hypothesis, and what is drawn from", "Looks", "At most", "Studies", "Missed at any look", "Allowed"]
    rows = [
        [
            f"{row['study']}/{row['hypothesis']}, {_DRAWN[row['noise']]}",
            str(row["looks"]),
            f"{row['most']} seeds",
            f"{row['R']:,}",
            f"{100 * row['estimate']:.2f} % ({100 * row['low']:.2f} to {100 * row['high']:.2f})",
            f"{100 * row['nominal']:.2f} %",
        ]
        for _, row in frame.sort_values("noise", kind="stable").iterrows()
    ]
    little = f" {few} studies prove little." if few < _MANY else ""
    return f"{often}{little}\n\n{table(head, rows)}"


_MANY = 1000


def say_images(frame: pd.DataFrame) -> list[str]:
    """Say which intervals over seeds and images miss too often, looked at as a study grows."""
    return [
        f"{row['study']}/{row['hypothesis']}, {_DRAWN[row['noise']]}: intervals over seeds and images, looked at as a "
        f"study grows, miss in {100 * row['estimate']:.2f} % of the studies ({100 * row['nominal']:.2f} % allowed)."
        for _, row in misses(frame, "greater").iterrows()
    ]


def write(
    frame: pd.DataFrame,
    document: dict[str, Any],
    sequential: pd.DataFrame,
    images: pd.DataFrame,
    elsewhere: pd.DataFrame,
) -> None:
    """Write docs/calibration.md and its picture."""
    others = [*say_sequential(sequential), *say_images(images), *say_elsewhere(elsewhere)]
    text = page(PAGE.read_text(encoding="utf-8"), frame, document, others)
    text = between("sequential.parquet", sequential_table(sequential), text)
    text = between("sequential.parquet, right", right_table(sequential), text)
    text = between("sequential-images.parquet", images_table(images), text)
    PAGE.write_text(between("made-elsewhere.parquet", elsewhere_table(elsewhere), text), encoding="utf-8")
    for theme in plots.THEMES:
        with mpl.rc_context({"svg.hashsalt": "mnist-ablate", "svg.fonttype": "none"}):
            draw_power(frame, theme).savefig(PAGE.with_name(f"calibration-{theme}.svg"), metadata={"Date": None})
