"""Studies, plans, mistakes in study files, and the identity of runs."""

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_ablate.design.contrasts import Contrast, Factor
from mnist_ablate.design.plan import cells, plan
from mnist_ablate.design.problems import RESULT_COLUMNS
from mnist_ablate.design.settings import KNOWN_FACTORS, Settings
from mnist_ablate.design.study import bundled_studies, load_study, parse_study
from mnist_ablate.errors import StudyError
from mnist_ablate.inference.intervals import median_interval
from mnist_ablate.store.schema import EPOCH_COLUMNS


def study_of(**keys: Any) -> dict[str, Any]:
    """Return the smallest valid study file, with other keys."""
    return {"name": "s", "factors": {"dropout": [0.0, 0.5]}} | keys


def complaints(document: dict[str, Any]) -> str:
    """Return the message about an invalid study file."""
    with pytest.raises(StudyError) as caught:
        parse_study(document, "file.toml")
    return str(caught.value)


def test_factorial_is_the_protocol() -> None:
    """The main study has 8 cells, 10 seeds and the default settings."""
    study = load_study("factorial")
    assert [cell.name for cell in cells(study)] == [
        "baseline",
        "batch_norm",
        "dropout",
        "dropout+batch_norm",
        "l2",
        "l2+batch_norm",
        "l2+dropout",
        "l2+dropout+batch_norm",
    ]
    assert len(plan(study)) == 80
    assert study.protocol == Settings()
    assert {factor.name: factor.levels for factor in study.varied} == {
        "l2": (0.0, 1e-5),
        "dropout": (0.0, 0.2),
        "batch_norm": (False, True),
    }


@pytest.mark.parametrize("name", bundled_studies())
def test_bundled_studies_are_valid(name: str) -> None:
    """Each bundled study loads under its file's name and plans each run once."""
    study = load_study(name)
    runs = plan(study)
    assert study.name == name
    assert study.title
    assert len({run.run_id for run in runs}) == len(runs)


def test_more_seeds_keep_the_runs_that_are_there() -> None:
    """More seeds or another title change no run's identity; new runs come last."""
    study = load_study("factorial")
    few, many = plan(study.with_options(seeds=2)), plan(study.with_options(seeds=3))
    assert many[: len(few)] == few
    retitled = parse_study(study.model_dump(exclude_unset=True) | {"title": "another", "name": "another"})
    assert [run.run_id for run in plan(retitled)] == [run.run_id for run in plan(study)]


_OTHER: dict[str, Any] = {
    "l2": 0.1, "dropout": 0.1, "batch_norm": True, "dataset": "fashion-mnist", "validation_fraction": 0.1, "depth": 3,
    "width": 8, "epochs": 1, "batch_size": 32, "learning_rate": 0.1, "model": "a:b", "optimiser": "sgd", "l1": 0.1,
    "input_dropout": 0.1, "dropout_place": "after", "norm": "layer", "norm_place": "after", "shared_norm": True,
    "train_images": 100, "label_noise": 0.1, "init": "xavier", "init_scale": 2.0, "epoch_steps": 5,
    "evaluation": "train", "loss_mean": "batches", "split_seed": 1, "init_seed": 1, "batch_seed": 1, "dropout_seed": 1,
    "train": "a:b",
}  # fmt: skip
_ACTS_ON: dict[str, Any] = {  # what a setting needs to have something to act on
    "dropout_place": {"dropout": 0.5, "batch_norm": True, "norm_place": "after"}, "norm_place": {"batch_norm": True},
    "shared_norm": {"batch_norm": True}, "evaluation": {"batch_norm": True}, "dropout_seed": {"input_dropout": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN_FACTORS)
def test_every_setting_is_part_of_the_identity(name: str) -> None:
    """Any other setting, or seed, is another run."""
    shared = _ACTS_ON.get(name, {})
    default = Settings.model_fields[name].default
    base = plan(parse_study(study_of(protocol=shared, factors={name: [default]}, seeds=2)))
    metrics: dict[str, Any] = {"metrics": {"score": {}}} if name == "train" else {}
    changed = plan(parse_study(study_of(protocol=shared, factors={name: [_OTHER[name]]}, seeds=2, **metrics)))
    assert len({run.run_id for run in base + changed}) == 4


@pytest.mark.parametrize("name", _ACTS_ON)
def test_settings_without_anything_to_act_on_are_no_other_run(name: str) -> None:
    """If a setting has no effect, its levels are one run, under the name of the first."""
    levels = [Settings.model_fields[name].default, _OTHER[name]]
    (run,) = plan(parse_study(study_of(factors={name: levels}, seeds=1)))
    assert run.cell == "baseline"
    assert run.settings == Settings()
    acted_on = study_of(protocol=_ACTS_ON[name], factors={name: levels}, seeds=1)
    assert len(plan(parse_study(acted_on))) == 2


def test_dropout_before_relu_is_dropout_after_relu() -> None:
    """Masks go through ReLU, so the place of dropout is a setting only with a normalisation behind the activation."""
    for shared in ({"dropout": 0.5}, {"dropout": 0.5, "batch_norm": True}):
        document = study_of(protocol=shared, factors={"dropout_place": ["before", "after"]}, seeds=1)
        assert len(plan(parse_study(document))) == 1


def test_identity_is_what_it_always_was() -> None:
    """The identity of a run never changes: stored results are found by it."""
    study = load_study("factorial").model_copy(update={"first_seed": 0})
    assert plan(study, protocol_version=1)[0].run_id == "3c952478ef4912fa93d3"
    assert plan(study)[0].run_id == "eed81d80eba13ad39725"


def test_identity_does_not_depend_on_how_a_number_is_written() -> None:
    """0 and 0.0 are the same level, and a factor's place in the file does not matter."""
    one = parse_study(study_of(factors={"dropout": [0, 0.5], "l2": [0.0, 1.0]}))
    two = parse_study(study_of(factors={"l2": [0, 1], "dropout": [0.0, 0.5]}))
    assert plan(one) == plan(two)


def test_cell_names_tell_the_levels() -> None:
    """Cells name on-off factors alone and others with their level; the reference is left out."""
    document = study_of(factors={"learning_rate": [0.001, 0.01, 1e-4], "batch_norm": [False, True]})
    assert [cell.name for cell in cells(parse_study(document))] == [
        "baseline", "learning_rate=0.01", "learning_rate=0.0001",
        "batch_norm", "batch_norm+learning_rate=0.01", "batch_norm+learning_rate=0.0001",
    ]  # fmt: skip
    assert Factor("epochs", (5, 10)).label(10) == "epochs=10"


def test_a_study_with_a_model_may_have_factors_of_its_own() -> None:
    """Factors that are not settings reach the model's function, cell names, columns and identity."""
    factors = {"activation": ["relu", "gelu"], "dropout": [0.0, 0.5]}
    study = parse_study(study_of(protocol={"model": "mine:build"}, factors=factors, seeds=1))
    runs = plan(study)
    assert [run.cell for run in runs] == ["baseline", "activation=gelu", "dropout", "dropout+activation=gelu"]
    assert runs[1].settings.own == {"activation": "gelu"}
    assert runs[1].levels == {"dropout": 0.0, "activation": "gelu"}
    assert len({run.run_id for run in runs}) == 4
    assert parse_study(study.model_dump(mode="json", exclude_unset=True)) == study
    assert "factors.activation: unknown key" in complaints(study_of(factors=factors))
    for name in ("epoch", "no name", "own"):
        assert "not a name for a factor" in complaints(study_of(protocol={"model": "mine:build"}, factors={name: [1]}))
    assert "protocol.model = " in complaints(study_of(protocol={"model": "no function"}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"protocol": 3}, "protocol = 3: allowed: a table"),
        ({"cells": [3]}, "cells[0] = 3: allowed: a table"),
        ({"probes": 3}, "probes = 3: allowed: an array"),
        ({"factors": {"l2": 0.1}}, "factors.l2 = 0.1: allowed: an array"),
        ({"factors": {"l2": [-1]}}, "factors.l2[0] = -1: allowed: a number >= 0"),
        ({"exclude": 3}, "exclude = 3: allowed: an array"),
        (
            {"seeds": 0.5},
            "seeds = 0.5: allowed: a whole number >= 1 and <= 100000, or { first = 10, step = 10, most = 120 }",
        ),
        (
            {"protocol": {"model": "mine:build"}, "factors": {"own_one": [[]]}},
            "factors.own_one[0] = []: allowed: true or false, a finite number or text",
        ),
    ],
)
def test_messages_are_the_same_with_every_version_of_pydantic(keys: dict[str, object], message: str) -> None:
    """What is allowed is said in the words of this package, once for each mistake."""
    assert complaints(study_of(**keys)).splitlines() == [f"file.toml: {message}"]


def test_the_engine_is_what_the_study_needs() -> None:
    """The engine is fused unless a setting needs autograd; an impossible choice is refused."""
    assert {run.engine for run in plan(parse_study(study_of()))} == {"fused"}
    assert {run.engine for run in plan(parse_study(study_of(engine="autograd")))} == {"autograd"}
    own = study_of(protocol={"model": "mine:build"})
    assert {run.engine for run in plan(parse_study(own))} == {"autograd"}
    assert 'engine = "fused": has no code for model; allowed here: "autograd"' in complaints(own | {"engine": "fused"})
    mixed = study_of(factors={"optimiser": ["adam", "sgd"], "l1": [0.0, 1e-5]})
    assert {run.engine for run in plan(parse_study(mixed))} == {"fused"}


def test_no_factor_hides_a_result() -> None:
    """Factors may not have the name of a column that every result has."""
    assert {"run_id", "study", "cell", "seed", *EPOCH_COLUMNS} == RESULT_COLUMNS


def test_excluded_cells_are_left_out() -> None:
    """A table under `exclude` removes every cell that matches all of it."""
    factors = {"l2": [0.0, 1.0], "dropout": [0.0, 0.5], "batch_norm": [False, True]}
    study = parse_study(study_of(factors=factors, exclude=[{"l2": 1.0, "dropout": 0.5}]))
    assert [cell.name for cell in cells(study)] == [
        "baseline", "batch_norm", "dropout", "dropout+batch_norm", "l2", "l2+batch_norm",
    ]  # fmt: skip


def test_listed_cells_are_the_only_ones() -> None:
    """With `cells`, only those run, and a factor that a cell leaves out is at its reference."""
    factors = {"l2": [0.0, 1.0], "dropout": [0.0, 0.5]}
    study = parse_study(study_of(factors=factors, cells=[{}, {"dropout": 0.5}]))
    assert [cell.name for cell in cells(study)] == ["baseline", "dropout"]
    assert cells(study)[1].settings == Settings(dropout=0.5)


def test_all_mistakes_are_told_at_once() -> None:
    """One message has every mistake, each with file, key, value and what is allowed."""
    document = {
        "name": "no spaces allowed", "seeds": 0, "titel": "typo",
        "protocol": {"epochs": "five", "lr": 0.1, "batch_norm": True},
        "factors": {"dropout": [0.0, 1.5, 0.0], "l2": [], "batch_norm": [False, 1], "dataset": ["mnist", "cifar"]},
        "exclude": [{"dropout": 0.7}], "cells": [{"width": 3}],
    }  # fmt: skip
    lines = complaints(document).splitlines()
    assert all(line.startswith("file.toml: ") for line in lines)
    for expected in (
        'name = "no spaces allowed": allowed: text matching',
        "seeds = 0: allowed: a whole number >= 1",
        "titel: unknown key; allowed: name, title",
        'protocol.epochs = "five": allowed: a whole number >= 1',
        "protocol.lr: unknown key; allowed: l2, dropout",
        "protocol.batch_norm: batch_norm is a factor too",
        "factors.dropout[1] = 1.5: allowed: a number >= 0 and < 1",
        "factors.dropout[2] = 0.0: repeated",
        "factors.l2 = []: allowed: at least one level",
        "factors.batch_norm[1] = 1: allowed: true or false",
        'factors.dataset[1] = "cifar": allowed: one of "mnist", "fashion-mnist", or "module:function" of your own',
        "exclude[0].dropout = 0.7: not a level of it; allowed: 0.0, 1.5, 0.0",
        "cells[0].width: not a factor of this study; allowed: batch_norm, dataset, dropout, l2",
        "exclude and cells cannot both be given",
    ):
        assert sum(expected in line for line in lines) == 1, expected
    assert len(lines) == 14


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"factors": {"l2": [0.0]}}, "name: missing"),
        ({"name": "s"}, "factors: missing"),
        (study_of(factors={}), "factors: at least one is needed"),
        (study_of(factors={"learning_rate": [float("nan")]}), "factors.learning_rate[0] = nan: allowed: a number > 0"),
        (study_of(factors=[1]), "factors = [1]: allowed: "),
        (study_of(exclude=[{}]), "exclude: leaves no cell to run"),
        (study_of(exclude=3), "exclude = 3: allowed: "),
        (study_of(protocol={"batch_size": 1, "batch_norm": True}), "batch_norm needs a batch_size of at least 2"),
        (
            study_of(protocol={"batch_norm": True, "norm": "layer"}),
            'batch_norm and norm = "layer" cannot both be given',
        ),
        (study_of(protocol={"width": 12, "norm": "group"}), "a multiple of 8, and 12 is not"),
        (study_of(protocol={"evaluation": "train", "model": "a:b"}), 'evaluation = "train" is for the perceptron'),
        (study_of(protocol={"epochs": 32_000, "epoch_steps": 100_000}), "at most 1,000,000,000 steps"),
        (
            study_of(protocol={"optimiser": "lion"}),
            'protocol.optimiser = "lion": allowed: one of "adam", "adamw", "sgd"',
        ),
        (study_of(protocol={"label_noise": 1.5}), "protocol.label_noise = 1.5: allowed: a number >= 0 and <= 1"),
    ],
)
def test_each_mistake_is_named(document: dict[str, Any], complaint: str) -> None:
    """A mistake is named by its key, with what is allowed."""
    assert complaint in complaints(document)


CLAIM = {"id": "x", "statement": "y", "effect": "dropout", "kind": "increase", "smallest": 0.1}


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (study_of(hypotheses=[CLAIM | {"response": "ece"}]), 'response = "ece": needs "calibration" among the probes'),
        (study_of(probes=["ece"]), 'probes[0] = "ece": allowed: one of "preactivations", "gradients"'),
        (study_of(probes=["weights"], protocol={"model": "a:b"}), "probes: know the perceptron only"),
        (study_of(hypotheses=[CLAIM | {"over": "width"}]), "over and summary belong together"),
        (study_of(hypotheses=[CLAIM | {"over": "l2", "summary": "log_sd"}]), 'over = "l2": not a factor of this study'),
        (study_of(hypotheses=[CLAIM | {"over": "dropout", "summary": "log_sd"}]), "dropout: not a factor"),
    ],
)
def test_claims_about_what_is_not_measured_are_refused(document: dict[str, Any], complaint: str) -> None:
    """A response that no probe of the study gives, or a summary over what does not vary, is refused with the reason."""
    assert complaint in complaints(document)


def test_contradictory_cells_are_refused() -> None:
    """Levels that contradict each other are refused when the study is read, not when its runs fail."""
    factors = {"batch_size": [64, 1], "batch_norm": [False, True]}
    assert "batch_norm needs a batch_size of at least 2" in complaints(study_of(factors=factors))
    kept = parse_study(study_of(factors=factors, exclude=[{"batch_size": 1, "batch_norm": True}]))
    assert len(cells(kept)) == 3


def test_options_are_checked_like_the_file() -> None:
    """An option out of range, or one that is a factor, is refused in the same words."""
    study = load_study("factorial")
    assert study.with_options() == study
    assert study.with_options(epochs=1, seeds=2).protocol.epochs == 1
    with pytest.raises(StudyError, match=r"options for factorial: protocol.epochs = 0: allowed: a whole number >= 1"):
        study.with_options(epochs=0)
    with pytest.raises(StudyError, match='engine = "fast": allowed: one of "autograd", "fused"'):
        study.with_options(engine="fast")
    with pytest.raises(StudyError, match="dropout is a factor too"):
        study.with_options(dropout=0.1)


def test_a_study_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    """A wrong name lists the bundled studies; a file that is not TOML names the line."""
    with pytest.raises(StudyError, match=r"factoral: no such study .* one of: .*factorial"):
        load_study("factoral")
    with pytest.raises(StudyError, match="no such study"):
        load_study(tmp_path)
    file = tmp_path / "bad.toml"
    file.write_text("name = \n")
    with pytest.raises(StudyError, match=r"bad.toml: not a TOML file: .*line 1"):
        load_study(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(StudyError, match=r"bad.toml: not a TOML file"):
        load_study(file)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["l2", "dropout", "x"]), inner),
    max_leaves=8,
)


_KEYS = ["name", "seeds", "protocol", "factors", "exclude", "cells", "hypotheses", "alpha", "settle", "x"]


@given(st.dictionaries(st.sampled_from(_KEYS), _JSON))
def test_no_document_causes_a_traceback(document: dict[str, Any]) -> None:
    """Any document is a study or a StudyError."""
    with contextlib.suppress(StudyError):
        parse_study(document)


GROWING = {"first": 6, "step": 2, "most": 10}
_CLAIM = {"id": "H", "statement": "So it is", "effect": "dropout", "kind": "increase", "smallest": 0.1}
_THIN = st.fixed_dictionaries(
    {}, optional={key: _JSON | st.just(value) for key, value in (_CLAIM | {"at": {}}).items()}
)


_STEPS = st.fixed_dictionaries({}, optional=dict.fromkeys(("first", "step", "most"), st.integers(-1, 30) | _JSON))


@given(st.lists(_THIN, max_size=3), _JSON | st.just(0.05), _STEPS | _JSON)
def test_no_hypotheses_cause_a_traceback(claims: list[Any], alpha: Any, seeds: Any) -> None:
    """Any hypotheses in an otherwise valid study give a study or a StudyError."""
    with contextlib.suppress(StudyError):
        parse_study(study_of(hypotheses=claims, alpha=alpha, seeds=seeds))


def claims(*changes: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Return a study file with a hypothesis for each of `changes`; a None in one removes a key."""
    hypotheses = [{key: value for key, value in (_CLAIM | change).items() if value is not None} for change in changes]
    return study_of(hypotheses=hypotheses, factors={"dropout": [0.0, 0.5], "width": [64, 128, 256]}, **keys)


def test_hypotheses_of_a_file() -> None:
    """A hypothesis has the defaults that are documented, comes back from the stored study, and keeps its order."""
    document = claims({}, {"id": "G", "at": {"width": 128}, "response": "gap", "kind": "negligible"}, seeds=GROWING)
    study = parse_study(document)
    first, second = study.hypotheses
    assert (first.id, first.response, first.at, first.claim) == ("H", "test_accuracy", "average", "")
    assert (second.id, second.response, second.at) == ("G", "gap", {"width": 128})
    assert (study.alpha, study.settle, study.futility, study.looks) == (0.05, "sign", 0.10, (6, 8, 10))
    assert parse_study(study.model_dump(mode="json", exclude_unset=True)) == study


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"effect": "droput"}, "hypotheses[0].droput: not a factor of this study; allowed: dropout, width"),
        ({"effect": "width"}, "hypotheses[0].width: which level? allowed: width[128], width[256], trend(width)"),
        ({"effect": "width[99]"}, "hypotheses[0].width: which level?"),
        ({"effect": "dropout*width"}, 'hypotheses[0].effect = "dropout*width": allowed: "mean", or terms such as'),
        ({"at": {"depth": 2}}, "hypotheses[0].depth: not a factor of this study"),
        ({"at": {"width": 99}}, "hypotheses[0].at.width = 99: not a level of it; allowed: 64, 128, 256"),
        ({"at": {"dropout": 0.5}}, 'hypotheses[0].effect = "dropout": each factor once'),
        ({"at": "baseline"}, 'hypotheses[0].at: allowed: "average", "reference" or a table of levels'),
        ({"at": {"width": []}}, 'hypotheses[0].at: allowed: "average", "reference" or a table of levels'),
        ({"kind": "bigger"}, 'hypotheses[0].kind = "bigger": allowed: one of "increase", "decrease", "negligible"'),
        ({"response": "accuracy"}, 'hypotheses[0].response = "accuracy": allowed: one of "test_accuracy", '),
        ({"smallest": 0.0}, "hypotheses[0].smallest = 0.0: allowed: a number > 0"),
        ({"smallest": "big"}, 'hypotheses[0].smallest = "big": allowed: a number > 0'),
        ({"smallest": None}, "hypotheses[0].smallest: missing"),
        ({"statement": None}, "hypotheses[0].statement: missing"),
        ({"id": "two words"}, 'hypotheses[0].id = "two words": allowed: text matching'),
        ({"smalest": 0.1}, "hypotheses[0].smalest: unknown key; allowed: id, statement, claim, response, over, "),
    ],
)
def test_each_mistake_in_a_hypothesis_is_named(change: dict[str, Any], complaint: str) -> None:
    """A mistake in a hypothesis is one line: its place and what is allowed."""
    said = complaints(claims(change)).splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"file.toml: {complaint}")


def test_mistakes_between_hypotheses() -> None:
    """Repeated ids, effects that need cells that do not run, and impossible shares of chance are each named."""
    assert 'hypotheses: id = "H": repeated; allowed: each id once' in complaints(claims({}, {}))
    excluded = claims({}, exclude=[{"width": 64, "dropout": 0.5}])
    assert 'hypotheses[0].effect = "dropout": needs 6 cells, but this study runs 5' in complaints(excluded)
    assert "alpha = 0.5: allowed: a number > 0 and <= 0.2" in complaints(claims({}, alpha=0.5))
    assert "hypotheses = 3: allowed: " in complaints(study_of(hypotheses=3))
    both = complaints(claims({"effect": "x"}, {"id": "G", "effect": "y"})).splitlines()
    assert [line.split(":")[1] for line in both] == [" hypotheses[0].x", " hypotheses[1].y"]


def test_words_change_no_rule() -> None:
    """The digest of the rules covers what decides a verdict, and nothing else, such as wording."""
    study = parse_study(claims({}))
    rules = study.hypotheses_sha256
    for words in (
        {"statement": "Other words"},
        {"claim": "Part of this"},
        {"response": "test_accuracy", "at": "average"},
    ):
        assert parse_study(claims(words)).hypotheses_sha256 == rules
    assert parse_study(claims({}, title="other", seeds=20)).hypotheses_sha256 == rules
    others: list[dict[str, Any]] = [
        {"kind": "decrease"}, {"smallest": 0.2}, {"effect": "trend(width)"}, {"at": "reference"}, {"id": "G"},
        {"response": "gap"}, {"at": {"width": 64}},
    ]  # fmt: skip
    found = {parse_study(claims(change)).hypotheses_sha256 for change in others}
    found |= {
        parse_study(claims({}, {"id": "G"})).hypotheses_sha256,
        parse_study(claims({}, alpha=0.1)).hypotheses_sha256,
    }
    assert len(found - {rules}) == 9


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"seeds": GROWING | {"first": 5}}, "seeds.first = 5: allowed: a whole number >= 6 and <= 100000"),
        ({"seeds": GROWING | {"step": 0}}, "seeds.step = 0: allowed: a whole number >= 1 and <= 100000"),
        ({"seeds": GROWING | {"most": 5}}, "seeds.most = 5: allowed: first plus a whole number of steps, as 6 or 8"),
        (
            {"seeds": GROWING | {"most": 11}},
            "seeds.most = 11: allowed: first plus a whole number of steps, as 10 or 12",
        ),
        ({"seeds": {"first": 6, "step": 2}}, "seeds.most: missing"),
        ({"seeds": GROWING | {"last": 9}}, "seeds.last: unknown key; allowed: first, step, most"),
        ({"seeds": {"first": 6, "step": 1, "most": 106}}, "seeds.step = 1: makes 101 looks; allowed: at most 100"),
        (
            {"seeds": GROWING, "looks": [6, 10]},
            "looks: no longer a key; allowed instead: seeds = { first = 10, step = 10, most = 120 }",
        ),
        (
            {"seeds": GROWING, "hypotheses": []},
            "seeds: there is nothing to settle without hypotheses; allowed: a whole number, or add some",
        ),
        (
            {"seeds": 10, "settle": "size"},
            "settle: needs a number of seeds that grows; allowed: seeds = { first = 10, step = 10, most = 120 }",
        ),
        ({"seeds": GROWING, "settle": "both"}, 'settle = "both": allowed: one of "sign", "size"'),
        ({"seeds": GROWING, "futility": 1.0}, "futility = 1.0: allowed: a number >= 0 and < 1"),
        ({"first_seed": -1}, "first_seed = -1: allowed: a whole number >= 0 and <= 1000000000"),
    ],
)
def test_each_mistake_in_growing_seeds_is_named(keys: dict[str, Any], message: str) -> None:
    """A mistake in how seeds grow, or in the rule to stop by, is one line: its key and what is allowed."""
    assert complaints(claims({}) | keys).splitlines() == [f"file.toml: {message}"]


def test_a_median_that_stays_infinite_cannot_be_monitored() -> None:
    """Too few seeds for a finite order-statistic interval at alpha over the family are refused, with why."""
    hypothesis = {"over": "width", "summary": "highest"}
    for least, alpha in ((6, 0.05), (8, 0.01)):
        assert median_interval(np.arange(float(least)), alpha)[0] > -math.inf
        assert median_interval(np.arange(float(least - 1)), alpha)[0] == -math.inf
    said = complaints(claims(hypothesis, alpha=0.01, seeds={"first": 6, "step": 1, "most": 7}))
    assert said == (
        'file.toml: hypotheses[0].summary = "highest": cannot be monitored, because the interval of a median is '
        "infinite up to 7 seeds at this alpha; allowed: seeds.most >= 8"
    )
    assert parse_study(claims(hypothesis, alpha=0.01, seeds={"first": 6, "step": 1, "most": 8})).looks == (6, 7, 8)


def test_a_spread_between_seeds_cannot_be_monitored() -> None:
    """It is refused where seeds grow, with why, and allowed with a fixed number."""
    hypothesis = {"over": "seed", "summary": "log_sd"}
    assert complaints(claims(hypothesis, seeds=GROWING)) == (
        'file.toml: hypotheses[0].over = "seed": cannot be monitored, because looks need a number of each seed that '
        "stays, and what a seed says of the spread changes with every seed that is added; allowed: a fixed number of "
        "seeds, as seeds = 120"
    )
    assert parse_study(claims(hypothesis, seeds=10)).looks == (10,)


def test_seeds_grow_from_look_to_look() -> None:
    """A study has the seeds of its first look until it goes on; what it declares does not change with that."""
    study = parse_study(claims({}, seeds=GROWING, first_seed=1000))
    assert (study.n_seeds, study.looks) == (6, (6, 8, 10))
    assert sorted({run.seed for run in plan(study)}) == list(range(1000, 1006))
    later = study.reaching(8)
    assert sorted({run.seed for run in plan(later)}) == list(range(1000, 1008))
    assert (later.seeds, later.looks) == (study.seeds, study.looks)
    assert parse_study(claims({})).reaching(30).looks == (30,)


def test_a_given_number_of_seeds_is_fixed() -> None:
    """The option for seeds replaces the steps and the rule to stop by; other options leave them."""
    study = parse_study(claims({}, seeds=GROWING, settle="size", futility=0.2))
    assert study.with_options(seeds=20).looks == (20,)
    assert study.with_options(seeds=20).hypotheses == study.hypotheses
    later = study.with_options(engine="autograd", epochs=1)
    assert (later.looks, later.settle, later.futility) == ((6, 8, 10), "size", 0.2)


def test_hypotheses_are_no_part_of_a_run() -> None:
    """With other hypotheses, or none, the runs are the same."""
    assert plan(parse_study(claims({}))) == plan(parse_study(claims()))


def test_levels_that_are_nearly_alike_are_two_cells() -> None:
    """Levels that differ only in the seventh digit give cells of different names."""
    study = parse_study(study_of(factors={"learning_rate": [0.001, 0.00100001, 0.001000011]}))
    assert len({cell.name for cell in cells(study)}) == 3


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        f"seeds = {'9' * 5000}",
        "a = \udce9",
        "name = 1979-05-27",
        "seeds = nan",
        "[factors]\nl2 = {}",
    ],
    ids=["deep", "long", "no text", "date", "nan", "table"],
)
def test_whatever_a_study_file_holds_is_one_of_our_errors(text: str, tmp_path: Path) -> None:
    """Endless nesting, numbers of thousands of digits and bytes that are not text are refused, naming the file."""
    file = tmp_path / "study.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StudyError, match=r"study\.toml: "):
        load_study(file)


def test_a_factor_of_ones_own_has_levels_of_one_type() -> None:
    """A whole number beside a fraction is refused: their columns could not be read together."""
    with pytest.raises(StudyError, match=r"factors\.gain = \[0, 0\.5\]: levels of more than one type"):
        parse_study(study_of(protocol={"model": "m:f"}, factors={"gain": [0, 0.5]}))
    assert cells(parse_study(study_of(protocol={"model": "m:f"}, factors={"gain": [0.0, 0.5]})))


def test_thousands_of_mistakes_are_not_all_told() -> None:
    """A study with thousands of mistakes names the first twenty, and counts the others."""
    with pytest.raises(StudyError) as told:
        parse_study({"name": "x", "title": "x", "seeds": 2, "factors": {"l2": [0.5] * 3000}})
    assert len(str(told.value).splitlines()) == 21
    assert str(told.value).endswith("study: and 2,979 more")


def test_half_a_surrogate_pair_is_no_text() -> None:
    """Text that UTF-8 cannot encode is refused and shown."""
    hypotheses = [{"id": "a", "statement": "b", "effect": "l2\ud800", "kind": "increase", "smallest": 0.1}]
    with pytest.raises(StudyError, match=r"ud800"):
        parse_study({"name": "x", "title": "x", "seeds": 2, "factors": {"l2": [0.0, 0.5]}, "hypotheses": hypotheses})


def test_a_whole_number_beyond_all_floats_is_refused() -> None:
    """A level beyond all floating-point numbers is a mistake in the study, with our own error."""
    slope = {"id": "a", "statement": "b", "effect": "trend(train_images)", "kind": "increase", "smallest": 0.1}
    document = {"name": "x", "title": "x", "seeds": 2, "factors": {"train_images": [100, 300, 10**400]}}
    with pytest.raises(StudyError, match="too large"):
        parse_study(document | {"hypotheses": [slope]})


OWN: dict[str, Any] = {"model": "mine:build"}


@pytest.mark.parametrize(
    ("factors", "complaint"),
    [
        (
            {"aug": ["none", "flip", "flip+blur"], "blur": [False, True]},
            'two cells would both be called "aug=flip+blur": aug = "flip", blur = true and aug = "flip+blur", '
            "blur = false; rename a level or a factor",
        ),
        ({"x": ["a", "\u00e9", "e\u0301"]}, 'two cells would both be called "x=e'),  # one letter, written in two ways
        ({"x": ["a", "b+c", "b + c"]}, 'two cells would both be called "x=b + c"'),
        ({"x": ["a", "use l2", "use L2"]}, 'two cells would both be called "x=use L2"'),  # pages write L2 for l2
        ({"baseline": [False, True]}, "factors.baseline: not a name for a factor"),
        ({"mean": [False, True]}, "factors.mean: not a name for a factor"),  # the effect "mean" is another
        ({"L2": [False, True], "l2": [0.0, 0.1]}, "factors.l2: reads like L2; rename one of them"),
        ({"BatchNorm": [0, 1], "batch_norm": [False, True]}, "factors.batch_norm: reads like BatchNorm"),
        ({"Rate": [1, 2, 3], "rate": [1, 2, 3]}, "factors.rate: reads like Rate"),  # levels-rate.svg
        ({"x" * 300: [0, 1]}, f"factors.{'x' * 20}...: a name of 300 bytes; allowed: at most 100"),
        ({"x": [2**63, 1]}, "factors.x[0] = 9223372036854775808: allowed: whole numbers of 64 bits"),
        ({"x": ["a", "b\0"]}, r'factors.x[1] = "b\u0000": allowed: text without control characters'),
        ({"x": ["a", "", "b"]}, 'factors.x[1] = "": allowed: text that can be written in an effect, as in x[text]'),
        ({"x": [1, True]}, "factors.x[1] = true: repeated"),
        ({"x": [0.0, -0.0]}, "factors.x[1] = -0.0: repeated"),
    ],
)
def test_names_that_would_meet_are_refused(factors: dict[str, Any], complaint: str) -> None:
    """Cells or factors that would have one name, or read alike, are refused before training, with the remedy."""
    (line,) = [line for line in complaints(study_of(protocol=OWN, factors=factors)).splitlines() if complaint in line]
    assert line.startswith("file.toml: factors")


@pytest.mark.parametrize("level", ["b[c]", "[", "]", "b:c", " b ", "a" * 3000, "$5", "<b>", "\u6f22", "b=c", "A"])
def test_any_other_text_is_a_level(level: str) -> None:
    """Any other text can be a level, and each level is an effect against the reference."""
    study = parse_study(study_of(protocol=OWN, factors={"x": ["a", level, "d"]}, seeds=1))
    assert [cell.name for cell in cells(study)] == ["baseline", f"x={level}", "x=d"]
    levels = {cell.name: cell.levels for cell in cells(study)}
    (factor,) = study.varied
    assert Contrast(factor.effect(level)).weights(study.varied, levels) == {"baseline": -1.0, f"x={level}": 1.0}


def test_a_cell_takes_its_levels_from_the_factor() -> None:
    """A cell that writes 1 for 1.0 or for true is the factor's own level, and a cell that is listed twice is one."""
    factors = {"gain": [0.0, 1.0], "gate": [False, True]}
    listed = [{"gain": 1, "gate": 1}, {"gain": 1.0, "gate": True}, {}]
    study = parse_study(study_of(protocol=OWN, factors=factors, cells=listed, seeds=1))
    assert [cell.name for cell in cells(study)] == ["gain+gate", "baseline"]
    assert [type(level) for level in plan(study)[0].levels.values()] == [float, bool]


def test_numbers_of_numpy_and_pandas_are_numbers() -> None:
    """Options and levels may be scalars, arrays and series: they are the same study, down to the run's identity."""
    options: Any = {"seeds": np.int64(1), "epochs": np.int32(1), "dataset": np.str_("mnist")}
    study = load_study("factorial").with_options(**options)
    assert (study.seeds, study.protocol.epochs) == (1, 1)
    ours = study_of(factors={"l2": [0.0, 0.5], "width": [3, 4], "batch_norm": [False, True]})
    theirs = ours | {
        "factors": {"l2": np.array([0.0, 0.5]), "width": pd.Series([3, 4]), "batch_norm": np.array([0, 1]) > 0}
    }
    assert plan(parse_study(theirs)) == plan(parse_study(ours))
    wrong: Any
    for wrong in (True, 1.0, "1", np.float64(1), np.True_):
        with pytest.raises(StudyError, match=r"seeds = (true|1\.0|\"1\"): allowed: a whole number >= 1"):
            study.with_options(seeds=wrong)


class Somewhere(os.PathLike[str]):
    """A path that is no `pathlib.Path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_files_of_windows_editors_are_read(tmp_path: Path, newline: str, mark: bytes) -> None:
    """A byte order mark and Windows' ends of lines change nothing."""
    file = tmp_path / "s.toml"
    file.write_bytes(mark + newline.join(['name = "s"', "[factors]", "dropout = [0.0, 0.5]"]).encode())
    assert load_study(file) == load_study(Somewhere(file)) == parse_study(study_of())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_files_in_other_encodings_are_refused(tmp_path: Path, encoding: str) -> None:
    """A study file in UTF-16, as PowerShell writes, or another encoding is refused with the remedy."""
    file = tmp_path / "s.toml"
    file.write_bytes(('name = "s"\n' + "# \u00e9\n" * (encoding == "latin-1")).encode(encoding))
    with pytest.raises(StudyError, match=r"s\.toml: not a TOML file: it is not text in UTF-8 .*Save it as UTF-8\.$"):
        load_study(file)


def test_what_is_no_study_at_all() -> None:
    """Anything but a study, a name or a path is refused in one sentence."""
    wrong: Any
    for wrong in (3, None, {"name": "s"}):
        with pytest.raises(StudyError, match=r"^study = .*: allowed: a Study, a bundled study's name or a path$"):
            load_study(wrong)
