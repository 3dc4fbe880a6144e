"""The study that is disturbed, its undisturbed results, and the comparison of a disturbed folder with them."""

import contextlib
import io
import random
import shutil
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mnist_ablate import cli
from mnist_ablate.checks import doctor
from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.study import load_study
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results, load

STUDY = """\
name = "tiny"
seeds = 2
engine = "autograd"
[protocol]
epochs = 2
width = 4
depth = 1
train_images = 256
validation_fraction = 0.005
[factors]
l2 = [0.0, 1e-4]
dropout = [0.0, 0.2]
[[exclude]]
l2 = 1e-4
dropout = 0.2
"""
"""Three cells, two seeds, real MNIST: a run takes a fraction of a second and writes files of the usual kind."""

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (None if an exception escaped) and everything it printed."""

    status: int | None
    text: str

    @property
    def last_line(self) -> str:
        """The last line that is not empty."""
        return next((line.strip() for line in reversed(self.text.splitlines()) if line.strip()), "")


def command(*arguments: str) -> Ended:
    """Run a command of the program in this process."""
    printed = io.StringIO()
    status: int | None = None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            status = cli.main(arguments)
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:  # noqa: BLE001  # an escaping exception is what we look for
            traceback.print_exc(file=printed)
    return Ended(status, printed.getvalue())


@dataclass(frozen=True)
class Bench:
    """The benchmark's folder, with the study's file and its undisturbed results."""

    work: Path

    @property
    def study_file(self) -> Path:
        """The study's TOML file."""
        return self.work / "tiny.toml"

    @property
    def sound_folder(self) -> Path:
        """The undisturbed results folder."""
        return self.work / "undisturbed"

    @cached_property
    def runs(self) -> list[Run]:
        """The runs of the study in training order."""
        return plan(load_study(self.study_file))

    @cached_property
    def undisturbed(self) -> Results:
        """The undisturbed results; they are trained if they are missing."""
        ended = command(*self.run_command(self.sound_folder))
        if ended.status != 0:
            raise SystemExit(f"the undisturbed study failed: {ended.text}")
        return load(self.sound_folder)

    def prepare(self) -> None:
        """Write the study's file and train its undisturbed results."""
        self.work.mkdir(parents=True, exist_ok=True)
        self.study_file.write_text(STUDY, encoding="utf-8")
        assert len(self.undisturbed.documents) == len(self.runs)

    def run_command(self, folder: Path, workers: int = 0) -> list[str]:
        """Return the arguments that run the study."""
        return ["run", str(self.study_file), "--out", str(folder), "--workers", str(workers)]

    def copy(self, folder: Path, runs: int) -> None:
        """Make `folder` look as it does when only the first `runs` runs are stored."""
        shutil.copytree(self.sound_folder, folder)
        store = Store(folder)
        for run in self.runs[runs:]:
            store.run_file(run.run_id).unlink()
            store.predictions_file(run.run_id).unlink()
        if runs < len(self.runs):
            store.index_file.unlink(missing_ok=True)

    def resume(self, folder: Path) -> tuple[Ended, bool]:
        """Run the same command again; if that does not end well, repair with `doctor` and run once more.

        Returns
        -------
        tuple
            How the last command ended, and whether a repair was needed.
        """
        ended = command(*self.run_command(folder))
        if ended.status == 0 and not any(finding.kind == "damaged" for finding in doctor.examine(folder)):
            return ended, False
        command("doctor", str(folder), "--repair")
        return command(*self.run_command(folder)), True

    def differences(self, folder: Path) -> Outcome:
        """Count the rows of `folder` that are lost, double or different; name what else an undisturbed one lacks."""
        try:
            results = load(folder)
        except Exception as error:  # noqa: BLE001  # a folder that cannot be read has lost everything
            return {"lost": len(self.undisturbed.epochs), "double": 0, "different": 0, "left": repr(error)}
        return count_differences(self.undisturbed, results) | {"left": "; ".join(_leftovers(folder, results))}


def _leftovers(folder: Path, results: Results) -> Iterator[str]:
    """Name findings, problems and temporary files.

    Predictions under the name of no run are left out: nothing reads them, and `doctor` names them.
    """
    messages = [finding.message for finding in doctor.examine(folder)]
    yield from (message for message in messages if "predictions have no run" not in message)
    yield from results.problems
    yield from map(str, folder.glob("**/.*.tmp"))


_KEY = ["run_id", "epoch"]
_SECONDS = ["train_seconds", "eval_seconds"]
_DECIDED = ("schema_version", "specification", "data_sha256", "weights_sha256", "first_losses", "declared")
"""The parts of a run's document that do not depend on when and where it was made."""


def count_differences(sound: Results, disturbed: Results) -> dict[str, int]:
    """Count lost, double and different rows; all rows of a run differ if its predictions or its document do."""
    before, after = (results.epochs.drop(columns=_SECONDS).set_index(_KEY) for results in (sound, disturbed))
    common = before.index.intersection(after.index)
    old, new = before.loc[common], after[~after.index.duplicated()].loc[common, before.columns]
    different = (old.ne(new) & ~(old.isna() & new.isna())).any(axis=1)
    changed = [run_id for run_id in common.unique("run_id") if _differs(sound, disturbed, run_id)]
    different |= common.get_level_values("run_id").isin(changed)
    lost, double = len(before) - len(common), len(after) - len(common)
    return {"lost": lost, "double": double, "different": int(different.sum())}


def _differs(sound: Results, disturbed: Results, run_id: str) -> bool:
    a, b = sound.documents[run_id], disturbed.documents[run_id]
    if any(a.get(name) != b.get(name) for name in _DECIDED):
        return True
    try:
        return not sound.predictions(run_id).equals(disturbed.predictions(run_id))
    except Exception:  # noqa: BLE001  # unreadable is different
        return True


# ---- The registry of faults ----


@dataclass(frozen=True)
class Scene:
    """One injection: the fault's kind, part and stage, the folder it happens to, and its source of chance."""

    bench: Bench
    folder: Path
    kind: str
    part: str
    stage: str
    rng: random.Random


Fault = Callable[[Scene], Outcome]
FAULTS: list[tuple[str, str, str, Fault]] = []
"""Kind, part, stage and function of every fault. The function disturbs the study and returns how its command ended."""


def fault(kind: str, stages: Iterable[str], parts: Iterable[str] = ("",)) -> Callable[[Fault], Fault]:
    """Register a function for a kind of fault, once for each part and stage."""

    def register(function: Fault) -> Fault:
        FAULTS.extend((kind, part, stage, function) for stage in stages for part in parts)
        return function

    return register
