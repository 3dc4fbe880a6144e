"""The user's own functions: where they are looked for (beside the study file, here, on Python's path); their code."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.design.own_code import check_present, code_of, own_function
from mnist_ablate.design.plan import plan
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.errors import StudyError, TrainingError
from mnist_ablate.execution import cluster, runner
from mnist_ablate.execution.executors import Processes, ended
from mnist_ablate.training import tasks, worker

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
    key = f"the source of {NAME}:build"
    assert needs.environment[key] != "none"
    assert cluster.environment((f"{NAME}:build",))[key] == "none"


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
        own_function("json:no_such_function")


def test_a_module_of_the_same_name_does_not_take_its_place(in_folder: Path) -> None:
    """Where a module of the same name is imported already, from another folder, its model is not trained instead."""
    first, second = (str(written(in_folder / name).parent) for name in ("a", "b"))
    assert own_function(f"{NAME}:build", first).__module__ == NAME
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


def test_code_is_followed_through_the_users_own_modules(in_folder: Path) -> None:
    """The module and what it imports of the user's own, also within functions and packages; nothing else."""
    folder = in_folder / "elsewhere"
    written(folder)
    assert list(code_of(f"{NAME}:build", str(folder))) == [f"{NAME}.py", f"{NAME}_late.py", f"{NAME}_layers.py"]
    package = folder / f"{NAME}_parts"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import one\n")
    (package / "one.py").write_text(
        "import json, torch, mnist_ablate\nfrom .deep import two\nfrom .deep.two import x\n"
    )
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "two.py").write_text("x = 1\nfrom ..three import y\n")
    (package / "three.py").write_text("y = 2\n")
    (package / "unused.py").write_text("")
    (in_folder / f"{NAME}_here.py").write_text("not Python\n")  # in the current folder
    (folder / f"{NAME}_layers.py").write_text(f"import {NAME}_parts.one\nfrom {NAME}_here import z\nfrom . import no\n")
    found = code_of(f"{NAME}:build", str(folder))
    parts = ["__init__.py", "deep/__init__.py", "deep/two.py", "one.py", "three.py"]
    assert list(found) == sorted([f"{NAME}.py", f"{NAME}_late.py", f"{NAME}_layers.py", f"{NAME}_here.py",
                                  *(f"{NAME}_parts/{name}" for name in parts)])  # fmt: skip
    (package / "three.py").write_text("y = 3\n")
    changed = code_of(f"{NAME}:build", str(folder))
    assert {file for file in found if found[file] != changed[file]} == {f"{NAME}_parts/three.py"}


def test_the_code_of_a_library_is_not_the_users() -> None:
    """An installed package, the standard library and this package have no code of the user's."""
    assert code_of("json:loads") == code_of("numpy:array") == code_of("mnist_ablate:run") == {}


def test_a_new_identity_for_new_code(in_folder: Path) -> None:
    """Once somebody has looked at the code, it is part of the identity; `recorded` leaves it out."""
    study = load_study(written(in_folder))
    looked = runner.with_own(study)
    ids = [[run.run_id for run in plan(one)] for one in (study, looked, looked.model_copy(update={"code": "recorded"}))]
    assert ids[0] == ids[2]
    assert not set(ids[0]) & set(ids[1])
    assert plan(looked)[0].specification["code"] == code_of(f"{NAME}:build", str(in_folder))
