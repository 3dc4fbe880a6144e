"""What the gate sees of a training that is not ours: scikit-learn's digits and a small network, with planted bugs.

``python benchmarks/gate/elsewhere_digits.py`` writes the tables in ``results/reference/gate-elsewhere``, and resumes
where it stopped. A seed decides which images are held out; what must not matter, initial weights and the order of
batches, is drawn anew in each repeat.
"""

import argparse
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from mnist_ablate.gate.judge import _FLOOR_SHARE as FLOOR_SHARE
from mnist_ablate.gate.judge import judge
from mnist_ablate.gate.reference import Reference, Rules
from mnist_ablate.gate.shifts import CONFIDENCE, STATISTICAL_SHARE, UNSURE

MEASURED = Path(__file__).parent.parent.parent / "results" / "reference" / "gate-elsewhere"
CELLS = {"narrow": 16, "wide": 64}
"""Hidden units."""
SEEDS, REPEATS, SETS = 10, 3, 5
"""Seeds of a gate, repeats of its reference, and how many gates each bug meets, each with seeds of its own."""
POOL, DRAWS = 100, 100_000
"""Seeds of the clean runs that simulated gates are drawn from, and their number."""
METRICS = ("accuracy", "loss")

Array = NDArray[Any]
Settings = dict[str, Any]


class Split(NamedTuple):
    """Images and labels to train on and to test on."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array


@cache
def split_of(seed: int) -> Split:
    """Return the images of a seed, pixels from 0 to 1."""
    x, y = load_digits(return_X_y=True)
    x, test_x, y, test_y = train_test_split(x / 16, y, test_size=0.25, random_state=seed, stratify=y)
    return Split(x, y, test_x, test_y)


class Bug(NamedTuple):
    """A mistake: its name, what is wrong, and what it does to images and settings, given the seed."""

    name: str
    what: str
    change: Callable[[Split, Settings, int], tuple[Split, Settings]]


def _set(**values: Any) -> Callable[[Split, Settings, int], tuple[Split, Settings]]:
    return lambda split, settings, _: (split, settings | values)


def _data(change: Callable[[Split], dict[str, Array]]) -> Callable[[Split, Settings, int], tuple[Split, Settings]]:
    return lambda split, settings, _: (split._replace(**change(split)), settings)


def _wrong_labels(every: int) -> Callable[[Split], dict[str, Array]]:
    return lambda s: {"y": np.where(np.arange(len(s.y)) % every == 0, (s.y + 1) % 10, s.y)}


def _without(columns: slice) -> Callable[[Split], dict[str, Array]]:
    def change(split: Split) -> dict[str, Array]:
        x, test_x = split.x.copy(), split.test_x.copy()
        x[:, columns] = test_x[:, columns] = 0
        return {"x": x, "test_x": test_x}

    return change


def _sorted(split: Split, settings: Settings, _: int) -> tuple[Split, Settings]:
    order = np.argsort(split.y, kind="stable")
    return split._replace(x=split.x[order], y=split.y[order]), settings | {"shuffle": False}


BUGS = (
    Bug("labels_5_percent", "5 % of the training labels shifted by one", _data(_wrong_labels(20))),
    Bug("labels_1_percent", "1 % of the training labels shifted by one", _data(_wrong_labels(100))),
    Bug("rate_tenth", "a tenth of the learning rate", _set(learning_rate_init=0.001)),
    Bug("rate_times_10", "ten times the learning rate", _set(learning_rate_init=0.1)),
    Bug("no_shuffling", "batches in the order of the split, in every epoch", _set(shuffle=False)),
    Bug("sorted_by_label", "images sorted by label, and not shuffled", _sorted),
    Bug("not_scaled", "pixels from 0 to 16 instead of 0 to 1",
        _data(lambda s: {"x": 16 * s.x, "test_x": 16 * s.test_x})),
    Bug("other_scale", "test images divided by 15 instead of 16", _data(lambda s: {"test_x": s.test_x * 16 / 15})),
    Bug("leak", "test images are trained on, too",
        _data(lambda s: {"x": np.vstack([s.x, s.test_x]), "y": np.append(s.y, s.test_y)})),
    Bug("tested_on_training", "tested on the training images", _data(lambda s: {"test_x": s.x, "test_y": s.y})),
    Bug("half_the_epochs", "half of the epochs", _set(max_iter=10)),
    Bug("l2_times_1000", "a thousand times the L2", _set(alpha=0.1)),
    Bug("row_dropped", "one of eight rows of pixels lost", _data(_without(slice(24, 32)))),
    Bug("pixel_dropped", "one of 64 pixels lost", _data(_without(slice(28, 29)))),
    Bug("one_seed_for_all", "initial weights and batches of seed 0 in every run", _set(random_state=0)),
    Bug("one_split_for_all", "the images of seed 0 in every run", lambda _, settings, __: (split_of(0), settings)),
    Bug("stale_model", "the network of the next seed is tested, which knows these images",
        lambda s, settings, seed: (split_of(seed + 1)._replace(test_x=s.test_x, test_y=s.test_y), settings)),
    Bug("tenth_of_the_data", "a tenth of the training images, left over from debugging",
        _data(lambda s: {"x": s.x[::10], "y": s.y[::10]})),
    Bug("with_replacement", "training images drawn with replacement",
        lambda s, settings, seed: (_drawn(s, seed), settings)),
    Bug("batch_800", "batches of 800 for 100", _set(batch_size=800)),
    Bug("sgd", "plain gradient descent for Adam", _set(solver="sgd")),
    Bug("no_relu", "ReLU missing", _set(activation="identity")),
    Bug("early_stopping", "a tenth of the images held out for early stopping", _set(early_stopping=True)),
    Bug("test_transposed", "test images transposed",
        _data(lambda s: {"test_x": s.test_x.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)})),
    Bug("few_tested", "tested on the first 100 test images alone",
        _data(lambda s: {"test_x": s.test_x[:100], "test_y": s.test_y[:100]})),
)  # fmt: skip
LUCK = Bug("clean-luck", "other initial weights and batches", _set())
CLEAN = (
    LUCK,
    Bug("clean-rounding", "the same in float32", _data(lambda s: {"x": s.x.astype(np.float32)})),
    Bug("clean-order", "pixels in another order", _data(lambda s: {"x": s.x[:, ::-1], "test_x": s.test_x[:, ::-1]})),
)
"""Changes that must not matter."""


def _drawn(split: Split, seed: int) -> Split:
    rows = np.random.default_rng(seed).integers(0, len(split.x), len(split.x))
    return split._replace(x=split.x[rows], y=split.y[rows])


def train(cell: str, seed: int, repeat: int, name: str = "") -> tuple[float, float]:
    """Train a network, perhaps with the bug of a name; return accuracy in percent and loss on the images held out."""
    settings = {"hidden_layer_sizes": (CELLS[cell],), "learning_rate_init": 0.01, "batch_size": 100, "max_iter": 20}
    split, settings = split_of(seed), settings | {"random_state": 1000 * seed + repeat}
    for bug in (*BUGS, *CLEAN):
        if bug.name == name:
            split, settings = bug.change(split, settings, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen
        model = MLPClassifier(**settings).fit(split.x, split.y)
    shares = model.predict_proba(split.test_x)
    right = float((shares.argmax(axis=1) == split.test_y).mean())
    return 100 * right, float(log_loss(split.test_y, shares, labels=np.arange(10)))


def runs(seeds: Iterable[int], repeats: Iterable[int], bug: str = "", workers: int = 1) -> pd.DataFrame:
    """Train all cells with some seeds and repeats; return them as the gate takes them."""
    wanted = list(itertools.product(CELLS, seeds, repeats))
    # Processes that are forked have the bugs, which cannot be sent.
    results = Parallel(workers, backend="multiprocessing")(delayed(train)(*run, bug) for run in wanted)
    rows = [
        (*run, metric, value)
        for run, values in zip(wanted, results, strict=True)
        for metric, value in zip(METRICS, values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["cell", "seed", "repeat", "response", "value"])


# ---- Bugs ----

WAYS = {
    "gate": "this gate, three repeats",
    "without repeats": "this gate, without repeats",
    "one run, threshold": "one run, accuracy at least the mean of the reference, rounded down to half a point",
    "three runs, threshold": "the mean of three seeds, the same threshold",
    "one run, 2 sd": "one run, accuracy at least the mean minus 2 sd of the reference's seeds",
    "every run, 2 sd": "the same for every run of the cell",
    "approx, 1 point": "one run, `pytest.approx(stored, abs=0.01)`",
}
PEER_CELL = "wide"


def judged(now: pd.DataFrame, accepted: pd.DataFrame) -> Iterator[tuple[str, str, float]]:
    """Judge runs in every way: yield the way, the outcome, and the shift of accuracy in points."""
    first = accepted[accepted["repeat"] == 0]
    for way, table in (("gate", accepted), ("without repeats", first)):
        verdict = judge(now, Reference.of_tables(table))
        yield way, verdict.outcome, float(verdict.shifts["shift"]["mean", "accuracy"])
    ours, stored = (
        table.query("cell == @PEER_CELL and response == 'accuracy'").sort_values("seed")["value"].to_numpy()
        for table in (now, first)
    )
    threshold, lowest = math.floor(2 * stored.mean()) / 2, stored.mean() - 2 * stored.std(ddof=1)
    for way, good in (
        ("one run, threshold", ours[0] >= threshold),
        ("three runs, threshold", ours[:3].mean() >= threshold),
        ("one run, 2 sd", ours[0] >= lowest),
        ("every run, 2 sd", (ours >= lowest).all()),
        ("approx, 1 point", abs(ours[0] - stored[0]) <= 1.0),
    ):
        yield way, "pass" if good else "fail", math.nan


def power(index: int, workers: int) -> pd.DataFrame:
    """Train every bug and every clean change with a set of seeds, and judge them."""
    seeds, rows = range(SEEDS * index, SEEDS * (index + 1)), []
    accepted = runs(seeds, range(REPEATS), workers=workers)
    for bug in (*BUGS, *CLEAN):
        now = runs(seeds, [REPEATS if bug is LUCK else 0], bug.name, workers).assign(repeat=0)
        for way, outcome, shift in judged(now, accepted):
            rows.append({"set": index, "item": bug.name, "way": way, "outcome": outcome, "points": shift})
    return pd.DataFrame(rows)


# ---- False alarms ----


def simulate(pool: pd.DataFrame, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw gates from clean runs, each with a reference of its own: how many raise an alarm, or cannot tell.

    Of each of ten seeds, three repeats are the reference's and one is the candidate's. Without repeats, one repeat of
    each is the reference's, and another is the candidate's.
    """
    values = _array(pool)
    rows = []
    for way, kept in (("gate", REPEATS), ("without repeats", 1)):
        outcomes = [_drawn_gate(*_draw(values, rng, kept)) for _ in range(draws)]
        rows.append({"way": way, "gates": draws, "seeds": len(values), "alarms": outcomes.count("fail"),
                     "unsure": outcomes.count("cannot tell")})  # fmt: skip
    return pd.DataFrame(rows)


def _array(table: pd.DataFrame) -> Array:
    """Return values in the shape (seeds, repeats, cells, metrics)."""
    wide = table.pivot(index=["seed", "repeat"], columns=["cell", "response"], values="value").sort_index()
    wide = wide[list(itertools.product(CELLS, METRICS))]
    return wide.to_numpy().reshape(table["seed"].nunique(), -1, len(CELLS), len(METRICS))


def _draw(values: Array, rng: np.random.Generator, kept: int) -> tuple[Array, Array]:
    """Return a candidate, shape (seeds, cells, metrics), and its reference, shape (seeds, repeats, cells, metrics)."""
    seeds = rng.choice(len(values), SEEDS, replace=False)
    repeats = rng.permuted(np.tile(np.arange(values.shape[1]), (SEEDS, 1)), axis=1)
    drawn = values[seeds[:, None], repeats]
    return drawn[:, 0], drawn[:, 1 : 1 + kept]


def _contrasts(values: Array) -> Array:
    """Return the mean of the cells, and each cell: (..., cells, metrics) to (..., checks)."""
    contrasts = np.concatenate([values.mean(axis=-2, keepdims=True), values], axis=-2)
    return contrasts.reshape(*contrasts.shape[:-2], -1)


@cache
def _factors(df: int, checks: int) -> tuple[float, float]:
    """Return the limit and the margin of the statistical level, in standard errors, and the floor's quantile."""
    margin = float(stats.t.ppf(CONFIDENCE, df))
    alarm = float(stats.t.isf(Rules().budget * STATISTICAL_SHARE / checks / 2, df))
    return max(alarm, float(stats.t.isf(UNSURE / checks / 2, df)) + margin), margin


_FLOOR = float(stats.t.isf(Rules().budget * FLOOR_SHARE / (SEEDS * len(CELLS)), SEEDS - 1)) * math.sqrt(1 + 1 / SEEDS)


def _drawn_gate(now: Array, accepted: Array) -> str:
    """Judge as `mnist_ablate.gate.judge.judge` does, which `tests/benchmarks` compares; a thousand times as fast."""
    n, repeats = accepted.shape[:2]
    known, moved = _contrasts(accepted), _contrasts(now) - _contrasts(accepted).mean(axis=1)
    if repeats > 1:
        df, factor = n * (repeats - 1), (1 + 1 / repeats) / n
        variance = ((known - known.mean(axis=1, keepdims=True)) ** 2).sum(axis=(0, 1)) / df
        of_cells = variance[len(METRICS) :].reshape(len(CELLS), -1).sum(axis=0) / len(CELLS) ** 2
        variance[: len(METRICS)] = np.maximum(variance[: len(METRICS)], of_cells)
    else:
        df, factor = n - 1, 2 / n
        variance = known[:, 0].var(axis=0, ddof=1)
    limit, margin = _factors(df, known.shape[-1])
    shifts, se = np.abs(moved.mean(axis=0)), np.sqrt(variance * factor)
    accuracy, first = METRICS.index("accuracy"), accepted[:, 0]
    floor = first.mean(axis=0) - _FLOOR * first.std(axis=0, ddof=1)
    if (shifts > limit * se).any() or (now[..., accuracy].min(axis=0) < floor[..., accuracy]).any():
        return "fail"
    return "cannot tell" if (shifts + margin * se > limit * se).any() else "pass"


def main() -> None:
    """Measure everything, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MEASURED, help="folder of the tables")
    parser.add_argument("--work", type=Path, default=MEASURED.parents[1] / "gate-elsewhere", help="what is done so far")
    parser.add_argument("--sets", type=int, default=SETS, help="sets of seeds that each bug is planted in")
    parser.add_argument("--pool", type=int, default=POOL, help="seeds of the clean runs of the simulation")
    parser.add_argument("--draws", type=int, default=DRAWS, help="simulated gates")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    for folder in (arguments.out, arguments.work):
        folder.mkdir(parents=True, exist_ok=True)
    sets = [
        kept(arguments.work / f"set-{index}.parquet", partial(power, index, arguments.workers))
        for index in range(arguments.sets)
    ]
    pd.concat(sets, ignore_index=True).to_parquet(arguments.out / "power.parquet", index=False)
    seeds = range(10_000, 10_000 + arguments.pool)
    pool = kept(arguments.work / "pool.parquet", lambda: runs(seeds, range(REPEATS + 1), workers=arguments.workers))
    simulated = simulate(pool, arguments.draws, np.random.default_rng(0))
    simulated.to_parquet(arguments.out / "simulation.parquet", index=False)


def kept(file: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return what `make` returns, from a file if it has been made before."""
    if not file.exists():
        make().to_parquet(file.with_suffix(".tmp"), index=False)
        file.with_suffix(".tmp").rename(file)
        print(f"{file.stem}: done", flush=True)
    return pd.read_parquet(file)


if __name__ == "__main__":
    main()
