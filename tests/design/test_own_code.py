"""Where a user's own model is looked for: beside the study file, in the current folder, on Python's path."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.design.plan import plan
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.errors import StudyError, TrainingError
from mnist_ablate.execution import cluster, runner
from mnist_ablate.execution.executors import Processes, ended
from mnist_ablate.training import tasks, worker
from mnist_ablate.training.own_model import check_present, own_model

NAME = "a_model_beside_its_study"
MODEL = """from torch import nn
import {name}_layers


def build(settings, seed):
    import {name}_late

    return nn.Linear(784, {name}_layers.CLASSES)
"""
STUDY = f"""name = "s"
seeds = 1
[protocol]
model = "{NAME}:build"
epochs = 1
epoch_steps = 1
[factors]
dropout = [0.0, 0.5]
"""


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Forget the modules of these tests, which all have one name, and find the path unchanged."""
    before = sys.path.copy()
    yield
    assert sys.path == before
    for name in [name for name in sys.modules if name.startswith(NAME)]:
        del sys.modules[name]


def written(folder: Path) -> Path:
    """Write a study into `folder`, and beside it its model, which imports other modules there; return the study."""
    folder.mkdir(exist_ok=True)
    (folder / f"{NAME}.py").write_text(MODEL.format(name=NAME))
    (folder / f"{NAME}_layers.py").write_text("CLASSES = 10\n")
    (folder / f"{NAME}_late.py").write_text("")
    (folder / "s.toml").write_text(STUDY)
    return folder / "s.toml"


@pytest.mark.parametrize("where", ["study", "here"])
def test_a_model_is_found_beside_its_study_and_here(
    where: str, in_folder: Path, small: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model, and what it imports, may lie in the study file's folder or in the current one."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    monkeypatch.setattr(data, "fetch", lambda *_, **__: data.Fetched("mnist", in_folder, "planted"))
    file = written(in_folder / "elsewhere")
    if where == "here":
        (in_folder / "other").mkdir()
        monkeypatch.chdir(file.parent)
        file = file.rename(in_folder / "other" / "s.toml")
    results = runner.run(file.relative_to(Path.cwd()) if where == "study" else file, workers=0, progress=False)
    assert len(results.documents) == 2


@pytest.mark.usefixtures("mnist")
def test_worker_processes_look_there_too(in_folder: Path) -> None:
    """A worker process, which knows the run alone, finds the model beside the study's file."""
    run, _ = plan(load_study(written(in_folder / "elsewhere")).with_options(epochs=1))
    with ended(Processes(1)) as workers:
        answer = workers.submit(tasks.evaluate_or_nothing, run, {}).result()  # it makes the model, then misses weights
    assert answer[0] == {}


def test_the_folder_is_no_part_of_a_run(in_folder: Path) -> None:
    """Where the study's file lies changes no run's identity, and makes no study another."""
    here, there = (plan(load_study(written(in_folder / name))) for name in ("a", "b"))
    assert here == there
    assert [run.run_id for run in here] == [
        run.run_id for run in plan(parse_study(load_study(in_folder / "a/s.toml").model_dump(exclude_unset=True)))
    ]
    assert {run.folder for run in here} == {str(in_folder / "a")}


def test_workers_of_a_cluster_look_there_too(in_folder: Path) -> None:
    """What a Dask worker must have is found beside the study's file, there as here."""
    needs = cluster.needs_of(plan(load_study(written(in_folder / "elsewhere"))))
    assert needs.folder == str(in_folder / "elsewhere")
    assert needs.environment[f"the source of {NAME}"] != "none"
    assert cluster.environment((NAME,))[f"the source of {NAME}"] == "none"


def test_a_missing_model_is_known_before_training(in_folder: Path) -> None:
    """Nothing is trained without the model's module, and the message says where it was looked for."""
    file = written(in_folder / "elsewhere")
    (file.parent / f"{NAME}.py").unlink()
    with pytest.raises(StudyError) as told:
        runner.run(file, workers=0, out=in_folder / "out")
    assert str(told.value) == (
        f"s: model = '{NAME}:build': No module named '{NAME}'; looked in {file.parent} (the study file's folder), "
        f"{in_folder} (the current folder), and where Python's import looks."
    )
    assert not (in_folder / "out").exists()
    with pytest.raises(TrainingError, match=r"looked in /.* \(the current folder\)"):
        own_model("json:no_such_function")


def test_a_module_of_the_same_name_does_not_take_its_place(in_folder: Path) -> None:
    """Where a module of the same name is imported already, from another folder, its model is not trained instead."""
    first, second = (str(written(in_folder / name).parent) for name in ("a", "b"))
    assert own_model(f"{NAME}:build", first).__module__ == NAME
    with pytest.raises(TrainingError, match=rf"a/{NAME}\.py is imported already, and would hide .*Rename the module"):
        check_present(f"{NAME}:build", second)


def test_a_failure_within_the_model_is_not_taken_for_a_missing_one(in_folder: Path) -> None:
    """An AttributeError of the user's own code stays what it is."""
    file = written(in_folder)
    (in_folder / f"{NAME}.py").write_text("def build(settings, seed):\n    return settings.no_such_setting\n")
    run, _ = plan(load_study(file))
    from mnist_ablate.training.engines import make_engine

    with pytest.raises(AttributeError, match="no_such_setting"):
        make_engine(run.engine, run.settings, run.seed, run.folder)


def test_the_installed_program_looks_there(in_folder: Path) -> None:
    """The program, unlike ``python -m``, has no folder of the user's on its path, and finds the model all the same."""
    file = written(in_folder / "elsewhere")
    program = "import sys; sys.path.remove(''); from mnist_ablate.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "plan", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 # our own program
    assert (done.returncode, done.stderr) == (0, "")
