"""A training of the user's own: what it gets, what it must yield, and what becomes of it."""

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mnist_ablate
from mnist_ablate import data
from mnist_ablate.data import Images, own
from mnist_ablate.design import own_code
from mnist_ablate.design.metrics import Expected
from mnist_ablate.design.plan import OWN, Run, plan, runs_of
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import permutation, stream
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.errors import (
    DataError,
    InterruptedRunError,
    OtherProtocolError,
    RunsFailedError,
    StudyError,
    TrainingError,
)
from mnist_ablate.execution import runner
from mnist_ablate.gate import accept
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.report import live, method_words
from mnist_ablate.report.words import notices
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results
from mnist_ablate.training import own_training, worker
from mnist_ablate.training.own_training import TrainingData, train_own

NAME = "a_training_of_ones_own"
CODE = """import random
import numpy as np
import torch
import {name}_help


def arrays():
    x = np.arange(80.0).reshape(40, 2)
    return x[:30], x[:30].sum(axis=1), x[30:], x[30:].sum(axis=1)


def train(settings, seed, data):
    bias = data.generator("init").normal() + {name}_help.SHIFT
    for epoch in range(1, settings.epochs + 1):
        noise = random.random() + np.random.random() + torch.rand(1).item()
        yield {{"error": bias + (noise + 1) * settings.own["size"] / epoch * len(data.train[0]), "sound": True}}
"""
STUDY = f"""name = "s"
seeds = 6
[protocol]
train = "{NAME}:train"
dataset = "{NAME}:arrays"
epochs = 2
[factors]
size = [1, 2]
[metrics.error]
better = "lower"
label = "error <b>"
[metrics.sound]
yes_no = true
[[hypotheses]]
id = "size"
statement = "A larger size has a larger error"
effect = "size"
kind = "increase"
smallest = 1.0
"""


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Forget the modules of these tests, which all have one name, and keep arrays in a folder of the test's own."""
    monkeypatch.setenv("MNIST_ABLATE_DATA", str(tmp_path / "data"))
    yield
    forget()


def forget() -> None:
    """Forget what was imported, as a new Python has."""
    for name in [name for name in sys.modules if name.startswith(NAME)]:
        del sys.modules[name]
    own_code._IMPORTED.clear()


def written(folder: Path, study: str = STUDY, code: str = CODE) -> Path:
    """Write a study, its training, and what that imports; return the study's file."""
    (folder / f"{NAME}.py").write_text(code.format(name=NAME))
    (folder / f"{NAME}_help.py").write_text("SHIFT = 1.0\n")
    (folder / "s.toml").write_text(study)
    return folder / "s.toml"


def run(file: Path) -> Results:
    """Run a study in this process."""
    return runner.run(file, workers=0, progress=False)


def test_a_training_of_ones_own_is_a_study_like_any_other(in_folder: Path) -> None:
    """Its metrics are stored epoch by epoch and shown; it is resumed, verified, compared and judged."""
    results = run(written(in_folder))
    assert len(results.documents) == 12
    names = ["run_id", "study", "cell", "seed", "size", "epoch", "status", "error", "sound", "train_seconds"]
    assert list(results.epochs) == names
    assert results.epochs["error"].nunique() == 24
    assert set(results.epochs["sound"]) == {1.0}
    assert not any((results.folder / "predictions").iterdir())
    before = {path: path.stat().st_mtime_ns for path in (results.folder / "runs").iterdir()}
    next(iter(before)).unlink()
    again = run(in_folder / "s.toml")
    pd.testing.assert_frame_equal(
        again.epochs.drop(columns="train_seconds"), results.epochs.drop(columns="train_seconds")
    )
    changed = [path for path, at in before.items() if path.stat().st_mtime_ns != at]
    assert len(changed) == 1
    analysis = analyse(again)
    assert analysis.metric == "error"
    assert [judgement.verdict for judgement in analysis.judgements] == ["supported"]
    page = mnist_ablate.report(again).html.read_text(encoding="utf-8")
    assert "A larger size has a larger error" in page
    assert "error &lt;b&gt;" in page
    assert "made elsewhere" not in page
    methods = " ".join(method_words.paragraphs(analysis))
    assert f"We trained 12 runs by a training of our own ({NAME}:train) on {NAME}:arrays, for 2 epochs." in methods
    assert "made by other programs" not in methods
    assert "were read from" not in methods
    assert "<b>" not in page
    assert str(mnist_ablate.doctor(results.folder)).endswith("no damaged files.")
    assert (
        str(mnist_ablate.verify(results.folder, 2, workers=0, progress=False)) == "2 of 2 runs are the same to the bit."
    )
    comparison = mnist_ablate.compare(results.folder, mnist_ablate.write_compact(again, in_folder / "compact"))
    assert comparison.verdict == "bit-identical"
    assert {finding.response for finding in comparison.findings} == {"error", "sound"}
    assert "error" in mnist_ablate.load(in_folder / "compact")._repr_html_()


GROWS = """import os
import numpy as np


def arrays():
    x = np.arange(80.0).reshape(40, 2)
    return x[:30], x[:30].sum(axis=1), x[30:], x[30:].sum(axis=1)


def train(settings, seed, data):
    size = settings.own["size"]
    for error in (KeyboardInterrupt, ValueError):
        if os.environ.get(error.__name__) == f"{{size}}/{{seed}}":
            raise error("here")
    for epoch in range(1, settings.epochs + 1):
        yield {{"error": 1.2 * size + data.generator(f"luck/{{size}}").normal() / epoch, "sound": True}}
"""


def test_it_goes_on_until_its_own_metrics_are_settled(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by Ctrl-C, by a run that fails, or not at all: the same looks and the same stop, bit for bit."""
    study = STUDY.replace("seeds = 6", "seeds = {first = 6, step = 2, most = 20}").replace("epochs = 2", "epochs = 1")
    file = written(in_folder, study.replace("smallest = 1.0", "smallest = 0.4"), GROWS)

    def judged(out: str, **options: Any) -> Analysis:
        return analyse(mnist_ablate.run(file, until_settled=True, out=out, progress=False, **options))

    def rows(analysis: Analysis) -> pd.DataFrame:
        epochs = analysis.results.epochs
        return epochs[epochs["seed"] < analysis.study.n_seeds].drop(columns="train_seconds").reset_index(drop=True)

    whole = judged("whole", workers=0)
    assert whole.standing.stop == "settled"
    assert len(whole.by_look) > 2
    assert live.content(whole)["numbers"] == list(whole.by_look["seeds"])
    for error, stopped, options in (
        ("KeyboardInterrupt", InterruptedRunError, {}),
        ("ValueError", RunsFailedError, {}),
        ("ValueError", RunsFailedError, {"fail_fast": True}),
    ):
        out = f"{error}-{len(options)}"
        with monkeypatch.context() as patch:
            patch.setenv(error, "2/7")
            with pytest.raises(stopped):
                judged(out, workers=0, **options)
        assert str(analyse(mnist_ablate.load(out)).standing) == "6 seeds: size not settled; goes on"
        with ThreadPoolExecutor(3) as pool:
            again = judged(out, executor=pool)
        assert again.standing == whole.standing
        pd.testing.assert_frame_equal(again.by_look, whole.by_look, check_exact=True)
        pd.testing.assert_frame_equal(rows(again), rows(whole), check_exact=True)


def test_a_yes_or_no_has_an_exact_test_and_no_looks(in_folder: Path) -> None:
    """A hypothesis about a metric that is yes or no is decided as that of a table is, and cannot be monitored."""
    study = STUDY.replace('effect = "size"', 'effect = "size"\nresponse = "sound"')
    code = CODE.replace('"sound": True', '"sound": seed == 3 or settings.own["size"] == 1')
    (judgement,) = analyse(run(written(in_folder, study, code))).judgements
    assert "Of 6 seeds, 5 differ: 0 up and 5 down (McNemar's exact test)." in judgement.sample.note
    grows = study.replace("seeds = 6", "seeds = {first = 6, step = 2, most = 20}")
    with pytest.raises(StudyError, match=r'hypotheses\[0\].response = "sound": cannot be monitored, because the exact'):
        load_study(written(in_folder, grows))


def test_a_run_does_not_depend_on_the_process(in_folder: Path, small: Images) -> None:
    """The global generators are seeded for each run, and left as they were."""
    written(in_folder)
    one = Run("s", "c", ("size",), 3, Settings(train=f"{NAME}:train", epochs=2, own={"size": 1}), OWN,
              metrics=(Expected("error"), Expected("sound")))  # fmt: skip
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 # what a user's code may draw from
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index] # noqa: NPY002
    first = train_own(one, small)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]  # type: ignore[index] # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    torch.manual_seed(2)
    random.seed(2)
    assert [row["error"] for row in train_own(one, small)] == [row["error"] for row in first]


def test_data_are_split_by_the_seed_as_in_any_study(small: Images) -> None:
    """Split, wrong labels and order are those of the perceptron's runs; each variant draws its own part anew."""

    def of(seed: int = 0, **settings: Any) -> TrainingData:
        return TrainingData(Run("s", "c", (), seed, Settings(train="a:b", **settings), OWN), small)

    rows, held_out = data.split(500, 0, 0.2)
    found = of()
    np.testing.assert_array_equal(found.train[0], small.train_images[rows])
    np.testing.assert_array_equal(found.validation[1], small.train_labels[held_out])
    np.testing.assert_array_equal(found.test[0], small.test_images)
    np.testing.assert_array_equal(found.order(2), permutation(stream(0, "batches/2"), 400))
    assert len(of(train_images=50).train[0]) == 50
    noisy = of(label_noise=0.5)
    assert (noisy.train[1] != found.train[1]).mean() == 0.5
    np.testing.assert_array_equal(noisy.test[1], found.test[1])
    assert not np.array_equal(of(split_seed=1).train[0], found.train[0])
    np.testing.assert_array_equal(of(split_seed=1).order(1), found.order(1))
    assert not np.array_equal(of(batch_seed=1).order(1), found.order(1))
    draws = [of(**kind).generator("init").random() for kind in ({}, {"init_seed": 1}, {"dropout_seed": 1})]
    assert draws[0] == draws[2] != draws[1]
    assert of().generator("other").random() != draws[0]


GOOD = {"error": 1.0, "sound": 1}


@pytest.mark.parametrize(
    ("yields", "problem"),
    [
        ([], r"must yield once for each epoch, 2 times \(epochs in the study file\), but yielded nothing"),
        ([GOOD], "but yielded 1"),
        ([GOOD] * 3, "but yielded more"),
        (GOOD, "returned dict, and must yield a dictionary of metrics for each epoch: write yield in place of return"),
        (None, "returned NoneType"),
        ([None, GOOD], "epoch 1: yielded NoneType"),
        ([GOOD, {"error": 1.0}], r"epoch 2: the dictionary lacks sound; the study's \[metrics\] are error, sound"),
        ([GOOD | {"f1": 1.0}], "epoch 1: the dictionary has f1"),
        ([{"f1": 1, "sound": 1}], "epoch 1: the dictionary lacks error and has f1"),
        ([GOOD | {"error": float("nan")}], "epoch 1: error is nan. A run whose metrics are not finite has failed"),
        ([GOOD, GOOD | {"error": np.float32("inf")}], "epoch 2: error is inf"),
        ([GOOD | {"error": "1.0"}], "error is '1.0', and must be a number"),
        ([GOOD | {"error": None}], "error is None, and must be a number"),
        ([GOOD | {"error": torch.ones(2)}], "and must be a number"),
        ([GOOD | {"sound": 0.5}], "sound is 0.5, and must be 0 or 1"),
        ([GOOD | {"error": -1.0}], "error is -1, outside of its range in the study file, 0 to inf"),
    ],
)
def test_what_is_no_course_of_metrics_is_one_clear_message(
    yields: Any, problem: str, small: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a function yields in place of its metrics is a failure that says what was wrong, and where."""
    monkeypatch.setattr(own_training, "own_function", lambda *_: lambda *_: yields)
    one = Run("s", "c", (), 0, Settings(train="a:b", epochs=2), OWN,
              metrics=(Expected("error", low=0.0), Expected("sound", yes_no=True)))  # fmt: skip
    with pytest.raises(TrainingError, match=problem):
        train_own(one, small)


def test_numbers_of_any_library_are_numbers(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors and numpy's numbers of one value become floats."""
    given = {"error": torch.tensor(0.5), "sound": np.bool_(True)}
    monkeypatch.setattr(own_training, "own_function", lambda *_: lambda *_: [given])
    one = Run("s", "c", (), 0, Settings(train="a:b", epochs=1), OWN, metrics=(Expected("error"), Expected("sound")))
    ((row),) = train_own(one, small)
    assert (row["error"], row["sound"], type(row["error"])) == (0.5, 1.0, float)


def test_a_failure_is_of_its_run_alone(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that cannot be measured is named with cell and seed; the others are stored, and it is tried again."""
    bad = CODE.replace("    bias =", "    if seed == 2 and settings.own['size'] == 2:\n        return\n    bias =")
    with pytest.raises(RunsFailedError, match="1 of 12 runs failed"):
        run(written(in_folder, code=bad))
    assert f"FAILED size=2, seed 2: train = '{NAME}:train': must yield once" in capsys.readouterr().err
    results = mnist_ablate.load(in_folder / "results" / "s")
    assert len(results.documents) == 11
    assert results.missing == [("size=2", 2)]
    assert any("but yielded nothing" in problem for problem in results.problems)


def test_a_changed_file_trains_its_runs_again_and_says_so(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A change of the training, or of a file that it imports, is named; the old runs count again when it is undone."""
    file = written(in_folder)
    first = run(file)
    helper = in_folder / f"{NAME}_help.py"
    helper.write_text("SHIFT = 2.0\n")
    forget()
    planned = mnist_ablate.plan(file)
    said = (
        f"{NAME}_help.py changed, used by train = '{NAME}:train' and dataset = '{NAME}:arrays'. To be trained "
        "again, of the stored runs: baseline (seeds 0 to 5); size=2 (seeds 0 to 5)"
    )
    assert planned.damaged == [said]
    assert len(planned.missing) == 12
    with pytest.raises(OtherProtocolError, match=f"{NAME}_help.py changed since its runs were trained"):
        mnist_ablate.verify(first, workers=0, progress=False)
    capsys.readouterr()
    second = run(file)
    assert said in capsys.readouterr().err
    assert not set(first.documents) & set(second.documents)
    assert (second.final["error"] - first.final["error"]).round(9).eq(1.0).all()
    assert "12 runs were made with other code" in str(mnist_ablate.doctor(first.folder))
    helper.write_text("SHIFT = 1.0\r\n")
    forget()
    assert mnist_ablate.plan(file).missing == []
    assert set(run(file).documents) == set(first.documents)


def test_a_file_that_this_python_has_imported_is_not_taken_for_the_changed_one(in_folder: Path) -> None:
    """A notebook that has imported the old code is asked to start again: it would train that under the new name."""
    file = written(in_folder)
    run(file)
    (in_folder / f"{NAME}.py").write_text(CODE.format(name=NAME) + "\n")
    with pytest.raises(TrainingError, match=f"{NAME}.py has changed since this Python imported it"):
        run(file)


def test_code_beside_the_study_file_is_verified_from_anywhere(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`verify` looks in the current folder alone, unless the study's file says where else the code is."""
    file = written(in_folder)
    results = run(file)
    elsewhere = in_folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    forget()
    with pytest.raises(OtherProtocolError, match=r"say where it is with --study FILE"):
        mnist_ablate.verify(in_folder / results.folder, 2, workers=0, progress=False)
    checked = mnist_ablate.verify(in_folder / results.folder, 2, study=file, workers=0, progress=False)
    assert str(checked) == "2 of 2 runs are the same to the bit."


def test_code_may_be_recorded_only(in_folder: Path) -> None:
    """With code = "recorded" a change keeps the stored runs, and each says what code it had."""
    file = written(in_folder, 'code = "recorded"\n' + STUDY)
    first = run(file)
    (in_folder / f"{NAME}_help.py").write_text("SHIFT = 2.0\n")
    forget()
    assert mnist_ablate.plan(file).missing == []
    run_id = first.final["run_id"].iloc[0]
    assert f"{NAME}_help.py" in first.documents[run_id]["provenance"]["code"]
    assert "code" not in first.documents[run_id]["specification"]
    check = mnist_ablate.verify(first, 1, workers=0, progress=False).checks[0]
    assert check.difference


def test_folders_without_code_stay_readable(in_folder: Path) -> None:
    """Runs from before code was part of the identity are read; `run` says why it trains them again, or goes on."""
    file = written(in_folder)
    study = load_study(file)
    store = Store(in_folder / "results" / "s")
    with store.opened(study):
        for one in plan(study):
            row = {"status": "ok", "error": 1.0, "sound": 1.0, "train_seconds": 0.1}
            store.write_run(one, [{"epoch": epoch, **row} for epoch in (1, 2)], {}, {"metrics": ["error", "sound"]})
    assert len(mnist_ablate.load(store.folder).documents) == 12
    planned = mnist_ablate.plan(file)
    assert len(planned.missing) == 12
    assert 'code = "recorded" in the study file keeps these' in planned.damaged[0]
    file.write_text('code = "recorded"\n' + STUDY)
    assert mnist_ablate.plan(file).missing == []


def test_worker_processes_train_it(in_folder: Path) -> None:
    """A worker process, which knows the run alone, finds function, code and arrays."""
    results = runner.run(load_study(written(in_folder)), seeds=1, workers=1, progress=False)
    inline = runner.run(in_folder / "s.toml", seeds=1, workers=0, progress=False, out=in_folder / "inline")
    assert results.epochs["error"].tolist() == inline.epochs["error"].tolist()


def test_a_machine_without_the_arrays_makes_them(in_folder: Path) -> None:
    """A worker elsewhere calls the function, and refuses arrays that are not those of the plan."""
    study = runner.with_own(load_study(written(in_folder)))
    one = next(runs_of(study))
    folder = own.kept_folder(one.arrays)
    for file in folder.iterdir():
        file.unlink()
    worker._load.cache_clear()
    assert worker._images(one).sha256 == one.arrays
    with pytest.raises(TrainingError, match="gives other arrays here than where the study began"):
        worker._images(replace(one, arrays="0" * 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": {}}, "metrics: a training of your own needs at least one"),
        ({"protocol": {}}, "metrics: only for a training of your own"),
        ({"metrics": {"seed": {}}}, "metrics.seed: not a name for a metric"),
        ({"metrics": {"size": {}}}, "metrics.size: size is a factor too"),
        ({"metrics": {"a b": {}}}, "metrics.a b: not a name for a metric"),
        ({"metrics": {"error": {"censored": "x"}}}, "metrics.error.censored: names a column of a table"),
        ({"metrics": {"error": {"beter": "x"}}}, "metrics.error.beter: unknown key; allowed: label, unit, better"),
        (
            {"metrics": {"error": {"better": "more"}}},
            'metrics.error.better = "more": allowed: one of "higher", "lower"',
        ),
        ({"metrics": {"error": {"range": [1.0, 0.0]}}}, "metrics.error.range = "),
        ({"engine": "fused"}, 'engine = "fused": has nothing to do where protocol.train trains'),
        ({"probes": ["weights"]}, "probes: know the perceptron only"),
        ({"protocol": {"train": "a:b", "model": "a:b"}}, "train and model cannot both be given"),
        ({"factors": {"train": ["", "a:b"], "size": [1]}}, "factors.train: a training of your own beside ours"),
        ({"hypotheses": {"response": "val_loss"}}, 'hypotheses[0].response = "val_loss": allowed: one of "error"'),
        ({"hypotheses": {"population": "seeds and images", "response": "test_accuracy"}}, "allowed: one of"),
        (
            {"hypotheses": {"over": "size", "summary": "log_drop", "effect": "x"}},
            'allowed with metrics of your own: "log_sd"',
        ),
        ({"protocol": {"train": "not a function"}}, "protocol.train = "),
    ],
)
def test_mistakes_in_a_study_of_ones_own(change: dict[str, Any], message: str) -> None:
    """Whatever is wrong with metrics and training is said in the words of the file."""
    hypothesis = {"id": "a", "statement": "b", "effect": "size", "kind": "increase", "smallest": 1.0}
    document: dict[str, Any] = {
        "name": "s", "protocol": {"train": "a:b"}, "factors": {"size": [1, 2]}, "metrics": {"error": {}},
    }  # fmt: skip
    document |= change | {"hypotheses": [hypothesis | change.get("hypotheses", {})]}
    with pytest.raises(StudyError) as told:
        parse_study(document)
    assert message in str(told.value)


def test_hypotheses_are_about_the_first_metric() -> None:
    """A hypothesis that names none is about the first metric, and another spelling of labels changes no study."""
    document = {
        "name": "s", "protocol": {"train": "a:b"}, "factors": {"size": [1, 2]}, "metrics": {"loss": {}, "error": {}},
        "hypotheses": [{"id": "a", "statement": "b", "effect": "size", "kind": "increase", "smallest": 1.0}],
    }  # fmt: skip
    study = parse_study(document)
    assert (study.metric, study.hypotheses[0].response) == ("loss", "loss")
    assert list(study.responses) == ["loss", "error"]
    assert study.chosen_engine == OWN


def test_the_gate_repeats_it_with_other_luck(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference is made, kept and judged by: the same code passes by its numbers, a worse one fails."""
    monkeypatch.setattr(accept, "BANK", range(1000, 1004))
    file = written(in_folder)
    reference = mnist_ablate.accept_reference(str(file), "first", reference="kept", out="out", workers=0)
    repeats = reference.evidence.runs.pivot(index=["cell", "seed", "response"], columns="repeat", values="value")
    error = pd.DataFrame(repeats.xs("error", level="response"))
    assert (error.nunique(axis=1) == 3).all()
    assert mnist_ablate.load_reference("kept").evidence.study == reference.evidence.study
    passed = mnist_ablate.gate(reference="kept", out="out", workers=0)
    assert passed.outcome == "pass"
    assert mnist_ablate.gate("out", reference="kept").outcome == "pass"
    helper = in_folder / f"{NAME}_help.py"
    helper.write_text("SHIFT = 50.0\n")
    forget()
    failed = mnist_ablate.gate(reference="kept", out="out", workers=0)
    assert failed.outcome == "fail"
    assert "error" in failed.sentence


PICTURES = """import numpy as np


def arrays():
    labels = np.arange(60) % {classes}
    images = np.repeat(20 * labels[:, None], 12, axis=1).reshape(60, 3, 4).astype(np.{dtype})
    return images[:40], labels[:40], images[40:], labels[40:]
"""


@pytest.mark.parametrize(("dtype", "engine"), [("uint8", "fused"), ("float32", "autograd")])
def test_the_perceptron_takes_data_of_ones_own(dtype: str, engine: str, in_folder: Path) -> None:
    """It has as many inputs and classes as the data; bytes are for the fast engine, other numbers for autograd."""
    (in_folder / f"{NAME}.py").write_text(PICTURES.format(classes=12, dtype=dtype))
    protocol = {"dataset": f"{NAME}:arrays", "width": 8, "epochs": 2, "batch_size": 8, "learning_rate": 0.01}
    document = {"name": "s", "seeds": 2, "protocol": protocol, "factors": {"label_noise": [0.0, 0.5]}}
    study = parse_study(document)
    settled = runner.with_engine(runner.with_own(study))
    assert settled.chosen_engine == engine
    if engine == "autograd":
        with pytest.raises(StudyError, match=r'"fused": takes at most .* gives 12 of float32: take "autograd"'):
            runner.with_engine(runner.with_own(study.with_options(engine="fused")))
    results = runner.run(study, engine="autograd", workers=0, progress=False)
    assert results.labels is not None
    assert set(results.labels) == set(range(12))
    assert results.mistakes is not None
    assert results.final["test_loss"].lt(np.log(12) * 2).all()
    page = mnist_ablate.report(results).html.read_text(encoding="utf-8")
    assert "What the networks get wrong" in page
    compact = mnist_ablate.load(mnist_ablate.write_compact(results, in_folder / "compact"))
    np.testing.assert_array_equal(compact.labels, results.labels)
    assert mnist_ablate.plan(study, engine="autograd").seconds == 0.0


def test_sizes_that_do_not_fit_data_of_ones_own_are_known_before_training(in_folder: Path) -> None:
    """More training images than there are, or targets that are no classes, are refused by study and cell."""
    (in_folder / f"{NAME}.py").write_text(PICTURES.format(classes=3, dtype="uint8"))
    protocol: dict[str, Any] = {"dataset": f"{NAME}:arrays"}
    document = {"name": "s", "protocol": protocol, "factors": {"train_images": [10, 33]}}
    with pytest.raises(StudyError, match="s, train_images=33: train_images = 33, but the split leaves 32 of 40"):
        mnist_ablate.plan(parse_study(document))
    (in_folder / f"{NAME}.py").write_text(PICTURES.format(classes=3, dtype="uint8").replace("% 3", "/ 3"))
    forget()
    with pytest.raises(DataError, match=r"its labels are float64 .*Only a training of your own"):
        mnist_ablate.plan(parse_study(document))


def test_a_run_that_diverges_on_data_of_ones_own_has_no_value(in_folder: Path) -> None:
    """Nobody knows what guessing gives there, so such a run is a failure of its cell, and the page says so."""
    (in_folder / f"{NAME}.py").write_text(PICTURES.format(classes=3, dtype="uint8"))
    protocol = {"dataset": f"{NAME}:arrays", "width": 8, "epochs": 1, "batch_size": 8}
    document = {"name": "s", "seeds": 2, "protocol": protocol, "factors": {"learning_rate": [0.01, 1e38]}}
    analysis = analyse(runner.run(parse_study(document), engine="autograd", workers=0, progress=False))
    assert analysis.seeds().isna().sum().tolist() == [0, 2]
    assert "They are failures of their cells" in " ".join(notices(analysis))
