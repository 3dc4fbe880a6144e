"""One result on every machine: small runs have the committed digests, however Numba compiles the kernels."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import digests
import numpy as np
import pytest
import torch

from mnist_ablate.design.settings import CHANCE, Settings
from mnist_ablate.training.protocol import RunResult, train


@pytest.fixture
def _mode_restored() -> Iterator[None]:
    """Leave the processor as it is found: not flushing."""
    yield
    torch.set_flush_denormal(False)


def test_every_run_has_its_digest() -> None:
    """All runs that the engine can train have the committed digests; ``--write`` of the script renews them."""
    assert digests.digests() == digests.expected()


def test_the_script_ends_with_1_if_a_digest_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``--check`` the committed digests pass, and another one is named."""
    monkeypatch.setattr("sys.argv", ["digests.py", "--check"])
    monkeypatch.setattr(digests, "digests", lambda _: digests.expected())
    digests.main()
    monkeypatch.setattr(digests, "digests", lambda _: digests.expected() | {"L1": "0" * 64})
    with pytest.raises(SystemExit, match=r"not the committed digests: L1$"):
        digests.main()


SUBNORMAL = ("subnormal gradients", "subnormal weights")


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.usefixtures("_mode_restored")
def test_flushing_changes_nothing(kept: bool) -> None:
    """The digests are the same where the processor flushes subnormal numbers (FTZ and DAZ) before a run.

    If it goes on with it, only the runs that were made to have such numbers within their sums change.
    """
    with digests.flushing(True, kept=kept):
        found = digests.digests()
    differ = {name for name, digest in digests.expected().items() if found[name] != digest}
    assert differ == (set(SUBNORMAL) if kept else set())


@pytest.mark.usefixtures("_mode_restored")
def test_the_mode_is_kept() -> None:
    """Within `flushing` the processor has the mode that is named, whatever the protocol asks of torch."""
    half = torch.tensor([torch.finfo(torch.float32).tiny]) / 2
    for on in (True, False):
        with digests.flushing(on, kept=True):
            torch.set_flush_denormal(not on)
            assert bool(half * 1 == 0) is on


@pytest.mark.parametrize("target", ["generic", "haswell"])
def test_vector_instructions_change_nothing(target: str, tmp_path: Path) -> None:
    """The digests are the same with code for SSE2 alone, without fused multiply-add, and for AVX2."""
    if lack := digests.missing_for(target):
        pytest.skip(lack)
    variables = os.environ | digests.compiling_for(target) | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(  # noqa: S603
        [sys.executable, digests.__file__], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["place"]["target"], made["place"]["features"]) == (target, "")
    assert made["digests"] == digests.expected()


@pytest.fixture(scope="module")
def result() -> RunResult:
    """Train the first of the runs."""
    return train(digests.runs()["baseline"], digests.images())


@pytest.mark.parametrize("what", ["weights_sha256", "rows", "first_losses", "prediction", "confidence"])
def test_a_digest_sees_one_bit(result: RunResult, what: str) -> None:
    """A digest changes with the last bit of any number of a result, and not with the time that it took."""

    def up(values: list[float]) -> list[float]:
        return [*values[:-1], float(np.nextafter(values[-1], 9))]

    last = result.rows[-1]
    predictions = dict(result.predictions)
    if what in predictions:
        predictions[what] = predictions[what].copy()
        predictions[what][-1:].view(np.uint8)[0] ^= 1
    changes: dict[str, Any] = {
        "weights_sha256": {"weights_sha256": result.weights_sha256[::-1]},
        "rows": {"rows": [*result.rows[:-1], last | {"val_loss": up([last["val_loss"]])[0]}]},
        "first_losses": {"first_losses": up(result.first_losses)},
    }
    changed = replace(result, **changes.get(what, {"predictions": predictions}))
    slower = replace(result, rows=[row | {"train_seconds": 9.0} for row in result.rows])
    assert digests.digest(slower) == digests.digest(result) != digests.digest(changed)


def test_every_setting_of_the_network_is_in_some_run() -> None:
    """The runs have each setting that decides arithmetic at another level than the default."""
    elsewhere = {*CHANCE, "dataset", "validation_fraction"}  # they decide which images and words there are
    elsewhere |= {"model", "own", "train"}  # of people's own models and trainings
    default = Settings()
    for name in Settings.model_fields.keys() - elsewhere:
        assert any(getattr(of_run, name) != getattr(default, name) for of_run in digests.SETTINGS.values()), name


def test_one_run_learns_and_one_diverges() -> None:
    """The runs go over what occurs: numbers of a network that has learnt, and those that are not finite."""
    runs, drawn = digests.runs(), digests.images()
    assert train(runs["all techniques"], drawn).rows[-1]["val_accuracy"] > 0.5
    assert train(runs["diverges"], drawn).rows[-1]["status"] == "diverged"
