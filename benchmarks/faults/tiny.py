"""The study that is disturbed, an undisturbed folder of it, and how another folder is held against that one."""

import contextlib
import io
import math
import shutil
import traceback
from collections import Counter
from collections.abc import Iterator
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
from mnist_ablate.store.schema import EPOCH_COLUMNS

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
"""Three cells, two seeds, on real MNIST: a run takes a fraction of a second, and writes files of the usual kind."""

_SECONDS = ("train_seconds", "eval_seconds")
_DECIDED = ("schema_version", "specification", "data_sha256", "weights_sha256", "first_losses", "declared")
"""What a run's document says that does not depend on when and where it was made."""


@dataclass(frozen=True)
class Told:
    """How a command ended: its exit status (None where an exception escaped) and all that it printed."""

    status: int | None
    text: str

    @property
    def last_line(self) -> str:
        """The last line that says something."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def command(*arguments: str) -> Told:
    """Run a command of the program in this process."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            status: int | None = cli.main(arguments)
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:  # noqa: BLE001  # whatever escapes is what is looked for
            status = None
            traceback.print_exc(file=told)
    return Told(status, told.getvalue())


@dataclass(frozen=True)
class Bench:
    """A folder to work in, with the study's file and the undisturbed results.

    Parameters
    ----------
    work
        Where everything of this benchmark lies.
    """

    work: Path

    @property
    def study_file(self) -> Path:
        """The study, as a user's file."""
        return self.work / "tiny.toml"

    @property
    def sound_folder(self) -> Path:
        """The undisturbed results folder."""
        return self.work / "undisturbed"

    @cached_property
    def runs(self) -> list[Run]:
        """The runs of the study, in the order in which they are trained."""
        return plan(load_study(self.study_file))

    @cached_property
    def undisturbed(self) -> Results:
        """What the study gives when nothing happens, made where it is not there."""
        told = command(*self.run_command(self.sound_folder))
        if told.status != 0:
            raise SystemExit(f"the undisturbed study failed: {told.text}")
        return load(self.sound_folder)

    def prepare(self) -> None:
        """Write the study, and make its results."""
        self.work.mkdir(parents=True, exist_ok=True)
        self.study_file.write_text(STUDY, encoding="utf-8")
        assert len(self.undisturbed.documents) == len(self.runs)

    def run_command(self, folder: Path, workers: int = 0) -> list[str]:
        """Give the arguments that run the study."""
        return ["run", str(self.study_file), "--out", str(folder), "--workers", str(workers)]

    def copy(self, folder: Path, runs: int) -> None:
        """Make `folder` as it is when the first `runs` runs are stored."""
        shutil.copytree(self.sound_folder, folder)
        where = Store(folder)
        for run in self.runs[runs:]:
            where.run_file(run.run_id).unlink()
            where.predictions_file(run.run_id).unlink()
        if runs < len(self.runs):
            where.index_file.unlink(missing_ok=True)

    def resume(self, folder: Path) -> tuple[Told, bool]:
        """Run the same command again; if that does not end well, let the doctor repair and run once more.

        Returns
        -------
        tuple
            How the last command ended, and whether a repair was needed.
        """
        told = command(*self.run_command(folder))
        if told.status == 0 and not damage(folder):
            return told, False
        command("doctor", str(folder), "--repair")
        return command(*self.run_command(folder)), True

    def differences(self, folder: Path) -> dict[str, Any]:
        """Count the rows of `folder` that are lost, double or different, and say what else is not as it should be."""
        try:
            found = load(folder)
        except Exception as error:  # noqa: BLE001  # a folder that cannot be read has lost all
            return {"lost": len(self.undisturbed.epochs), "double": 0, "different": 0, "left": repr(error)}
        return count(self.undisturbed, found) | {"left": "; ".join(left(folder, found))}


def damage(folder: Path) -> list[str]:
    """List what the doctor calls damaged."""
    return [finding.message for finding in doctor.examine(folder) if finding.kind == "damaged"]


def left(folder: Path, found: Results) -> Iterator[str]:
    """Say what a resumed folder has that an undisturbed one has not: findings, problems, temporary files.

    Predictions that lie there under a name of no run are left out: nothing reads them, and the doctor names them.
    """
    yield from (
        finding.message for finding in doctor.examine(folder) if "predictions have no run" not in finding.message
    )
    yield from found.problems
    yield from (str(file) for file in folder.glob("**/.*.tmp"))


def count(wanted: Results, found: Results) -> dict[str, int]:
    """Count the rows that are lost, double or different; a run whose predictions or document differ counts whole."""
    before, after = _rows(wanted), _rows(found)
    n_after = Counter(zip(found.epochs["run_id"], found.epochs["epoch"], strict=True))
    changed = {run_id for run_id in wanted.documents.keys() & found.documents.keys() if _differs(wanted, found, run_id)}
    return {
        "lost": len(before.keys() - after.keys()),
        "double": sum(n_after.values()) - len(before.keys() & after.keys()),
        "different": sum(key[0] in changed or row != after[key] for key, row in before.items() if key in after),
    }


def _rows(results: Results) -> dict[tuple[str, int], tuple[Any, ...]]:
    names = [name for name in results.epochs.columns if name not in _SECONDS]
    assert set(EPOCH_COLUMNS) - set(names) == set(_SECONDS)
    table = results.epochs[names].itertuples(index=False, name=None)
    of = dict(zip(zip(results.epochs["run_id"], results.epochs["epoch"], strict=True), table, strict=True))
    return {key: tuple("nan" if isinstance(v, float) and math.isnan(v) else v for v in row) for key, row in of.items()}


def _differs(wanted: Results, found: Results, run_id: str) -> bool:
    a, b = wanted.documents[run_id], found.documents[run_id]
    if any(a.get(name) != b.get(name) for name in _DECIDED):
        return True
    try:
        return not wanted.predictions(run_id).equals(found.predictions(run_id))
    except Exception:  # noqa: BLE001  # unreadable is different
        return True
