"""Studies that go on until they are settled: look by look, whoever trains, and whatever is in the way."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import growing
import pytest
from disturbed import wait_for

import mnist_ablate
from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.errors import InterruptedRunError, RunsFailedError, StudyError
from mnist_ablate.execution import runner
from mnist_ablate.execution.executors import InlineExecutor, WorkerLostError
from mnist_ablate.execution.workplace import Workplace
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.verdicts import Judgement
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results, load
from mnist_ablate.training import tasks, worker
from mnist_ablate.training.protocol import train

P = ParamSpec("P")
T = TypeVar("T")
FOLDER = Path("results/grows")


@pytest.fixture(autouse=True)
def _small_mnist(small: Images, monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    """Train on small images, in an empty folder."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    monkeypatch.setattr(data, "fetch", lambda *_, **__: data.Fetched("mnist", in_folder, "planted"))


def grows(**keys: Any) -> Study:
    """Make a study of two cells, with looks at 6, 8, 10 and 12 seeds."""
    hypothesis = {"id": "H", "statement": "So it is", "effect": "dropout", "kind": "negligible", "smallest": 2.5}
    return parse_study({
        "name": "grows", "seeds": {"first": 6, "step": 2, "most": 12}, "futility": 0.0, "hypotheses": [hypothesis],
        "protocol": {"epochs": 1, "width": 4, "batch_size": 100}, "factors": {"dropout": [0.0, 0.5]},
    } | keys)  # fmt: skip


def stops_at(seeds: int, asked: list[int]) -> Callable[[Results], tuple[bool, str]]:
    """Return what stops a study at a number of seeds, and notes the whole looks that it is asked at."""

    def decide(results: Results) -> tuple[bool, str]:
        whole = [n for n in results.study.looks if results.final["seed"].lt(n).sum() == 2 * n]
        asked.append(whole[-1])
        return whole[-1] >= seeds, f"{whole[-1]} seeds"

    return decide


def trained(monkeypatch: pytest.MonkeyPatch, before: Callable[[Run], None] = lambda _: None) -> list[int]:
    """Note the seed of every training that takes place; `before` hears of each first."""
    seeds: list[int] = []
    original = train

    def noting(run: Run, images: Images) -> Any:
        before(run)
        seeds.append(run.seed)
        return original(run, images)

    monkeypatch.setattr(worker, "train", noting)
    return seeds


def test_without_being_asked_it_trains_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` alone trains the seeds of the first look, and the results know that there may be more."""
    seeds = trained(monkeypatch)
    results = mnist_ablate.run(grows(first_seed=1000), workers=0)
    assert sorted(set(seeds)) == list(range(1000, 1006))
    assert (results.study.n_seeds, results.study.looks) == (6, (6, 8, 10, 12))
    assert next(iter(results.documents.values()))["declared"]["looks"] == [6, 8, 10, 12]


def test_it_is_asked_at_each_look_and_stops_where_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each look is asked once all its runs are stored; nothing is trained after the last."""
    seeds, asked = trained(monkeypatch), list[int]()
    results = runner.run(grows(), workers=0, decide=stops_at(10, asked))
    assert asked == [6, 8, 10]
    assert sorted(seeds) == sorted([*range(10)] * 2)
    assert results.study.n_seeds == 10
    assert "8 seeds" in capsys.readouterr().err
    runner.run(grows(), workers=0, decide=stops_at(99, asked), progress=False)
    assert max(seeds) == 11
    assert capsys.readouterr().err == ""


def test_workers_go_on_while_a_look_is_computed() -> None:
    """The next batch is trained meanwhile, and no further; what was trained ahead waits for its look."""
    asked: list[int] = []

    def slow(results: Results) -> tuple[bool, str]:
        end = time.monotonic() + 60
        while len(Store(FOLDER).stored()) < 16 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.2)
        assert len(Store(FOLDER).stored()) == 16
        return stops_at(6, asked)(results)

    with ThreadPoolExecutor(3) as pool:
        runner.run(grows(), executor=pool, workers=3, decide=slow)
    assert asked == [6]


def judged(results: Results) -> tuple[str, list[Judgement]]:
    """Return where a study stands, and its verdicts."""
    analysis = analyse(results)
    return str(analysis.standing), analysis.judgements


def test_a_killed_study_goes_on_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after any number of runs and resumed by other workers: the same looks, the same stop, the same verdicts.

    What is stored by then may differ, as workers train ahead.
    """
    expected = judged(mnist_ablate.run(grows(), workers=0, until_settled=True, out="whole"))
    assert expected[0].startswith("10 seeds: all settled")
    for after in (1, 11, 12, 13, 17, 19):
        left = after

        def interrupt(_: Run) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        out = f"after-{after}"
        with monkeypatch.context() as patch:
            trained(patch, interrupt)
            with pytest.raises(InterruptedRunError):
                mnist_ablate.run(grows(), workers=0, until_settled=True, out=out)
        assert len(load(out).documents) == after
        with ThreadPoolExecutor(3) as pool:
            assert judged(mnist_ablate.run(grows(), executor=pool, until_settled=True, out=out)) == expected
        assert judged(load(out)) == expected


def test_a_command_killed_in_two_batches_goes_on_to_the_same_end(in_folder: Path) -> None:
    """`run --until-settled`, ended by SIGKILL amid a batch, twice, each time with other workers, changes nothing."""
    hold = growing.write(in_folder, "growing_and_killed")
    whole = mnist_ablate.run("grows.toml", workers=0, until_settled=True, out="whole")
    assert str(analyse(whole).standing) == "8 seeds: all settled"
    command = [sys.executable, "-m", "mnist_ablate", "run", "grows.toml", "--until-settled", "--out", "killed"]
    for first_held, workers in ((3, "1"), (7, "2")):  # of the seeds 0 to 5, and of 6 and 7
        hold.write_text(str(first_held))
        driver = subprocess.Popen([*command, "--workers", workers], stderr=subprocess.PIPE, text=True)  # noqa: S603
        wait_for(driver, Path("killed"), 2 * first_held)
        driver.kill()
        driver.communicate()
        assert len(load("killed").documents) == 2 * first_held
    hold.unlink()
    done = subprocess.run([*command, "--workers", "3"], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stderr.splitlines()[-1] == "8 seeds: all settled"
    killed = load("killed")
    assert judged(killed) == judged(whole)
    assert analyse(killed).by_look.equals(analyse(whole).by_look)


def test_runs_that_are_there_already_change_nothing() -> None:
    """If all runs of all looks are stored before the first look is asked, looks, stop and verdicts are the same."""
    expected = judged(mnist_ablate.run(grows(), workers=0, until_settled=True, out="whole"))
    with ThreadPoolExecutor(4) as pool:
        everything = mnist_ablate.run(grows().with_options(seeds=12), executor=pool, out="all", progress=False)
    assert len(everything.documents) == 24
    found = judged(mnist_ablate.run(grows(), workers=0, until_settled=True, out="all"))
    assert found[0] == expected[0]
    assert [(j.verdict, j.low, j.high) for j in found[1]] == [(j.verdict, j.low, j.high) for j in expected[1]]


def test_a_look_without_all_its_runs_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure ends the study at its batch; the next call tries it again and goes on."""
    asked: list[int] = []
    original = tasks.train_one

    def breaks(run: Run) -> Any:
        if run.seed == 7:
            raise ValueError("planted")
        return original(run)

    with monkeypatch.context() as patch:
        patch.setattr(tasks, "train_one", breaks)
        with pytest.raises(RunsFailedError, match="2 of 16 runs failed"):
            runner.run(grows(), workers=0, decide=stops_at(10, asked))
    assert asked == [6]
    runner.run(grows(), workers=0, decide=stops_at(10, asked))
    assert asked == [6, 6, 8, 10]


class _Losing(InlineExecutor):
    """Loses its worker with the first run of seed 7, and has room for more calls than one."""

    room = 2
    lost = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn`, unless its worker is to die."""
        run: Any = args[0]
        if run.seed != 7 or _Losing.lost:
            return super().submit(fn, *args, **kwargs)
        _Losing.lost = True
        future: Future[T] = Future()
        future.set_exception(WorkerLostError("planted"))
        return future


def test_a_lost_run_is_tried_again_before_its_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose worker died is trained alone at the end of its batch, and then the look is asked."""
    asked: list[int] = []
    monkeypatch.setattr(Workplace, "_local_crew", lambda *_: _Losing())
    runner.run(grows(), decide=stops_at(10, asked))
    assert asked[0] == 6
    assert asked[-1] == 10
    assert _Losing.lost


@pytest.mark.parametrize(
    ("study", "options", "words"),
    [
        (grows(), {"seeds": 20}, "seeds = 20, until settled: give one of them."),
        (
            grows().with_options(seeds=3),
            {},
            "grows: has a fixed number of seeds, 3, so it cannot go on until it is settled. Declare seeds = "
            "{ first = 10, step = 10, most = 120 } in its file before the first run.",
        ),
    ],
)
def test_a_fixed_number_cannot_go_on(study: Study, options: dict[str, Any], words: str) -> None:
    """A number of seeds that does not grow is refused in one sentence, before anything is made."""
    with pytest.raises(StudyError, match=re.escape(words)):
        mnist_ablate.run(study, until_settled=True, **options)
    assert not FOLDER.exists()
