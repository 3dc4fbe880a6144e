"""The simulation of intervals over seeds and images, look by look: the package's numbers, and a table that is right."""

import calibration
import calibration_page as document
import numpy as np
import pandas as pd
import pytest
import sequential_images as script
from marks import between

from mnist_ablate.design.study import load_study

LOOKS = (6, 9, 15)
PARTS = calibration.Components(0.3, 2.0, 6.0)


def test_intervals_are_those_of_the_package() -> None:
    """At every look the interval is the one that the package's repeated interval is cut from."""
    values = calibration.crossed(np.random.default_rng(0), 20, 300, PARTS)
    assert script.check(values, LOOKS, 0.01) == script._CHECKED


def test_drawing_look_by_look_is_drawing_every_number() -> None:
    """Means and both variances have the same average, and the means vary as much, as in studies drawn whole."""
    rng, studies, images = np.random.default_rng(1), 1500, 60
    short = script.gaussian(rng, studies, LOOKS, images, PARTS)
    whole = [script.followed(calibration.crossed(rng, LOOKS[-1], images, PARTS), LOOKS) for _ in range(studies)]
    for name, share in (("of_seeds", 0.05), ("of_images", 0.1)):
        long = np.concatenate([getattr(one, name) for one in whole])
        assert getattr(short, name).mean(axis=0) == pytest.approx(long.mean(axis=0), rel=share)
    means = np.concatenate([one.mean for one in whole])
    assert np.cov(short.mean.T) == pytest.approx(np.cov(means.T), rel=0.15)


def test_an_interval_that_is_too_narrow_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ten times the alpha that is counted against, misses are too many and are named; with alpha they are not."""
    monkeypatch.setattr(script, "_RESAMPLED", 30)
    study = load_study("norms").model_copy(update={"seeds": load_study("factorial").seeds})
    values = calibration.crossed(np.random.default_rng(2), 30, 80, PARTS)
    rows = list(script.simulate(study, "C9-accuracy", values, 0.2, 400))
    assert [row["noise"] for row in rows] == ["crossed", "resampled"]
    assert all(row["k"] / row["R"] < 0.25 for row in rows)
    frame = pd.DataFrame(rows)
    assert document.images_table(frame).startswith("None certainly misses more often than allowed. 30 studies prove")
    assert document.say_images(frame) == []
    (said, *_) = document.say_images(frame.assign(nominal=0.02))
    assert said.startswith("norms/C9-accuracy, crossed Gaussian model: intervals over seeds and images, looked at as")
    assert said in document.images_table(frame.assign(nominal=0.02)).partition("\n")[0]


def test_the_document_says_what_was_counted() -> None:
    """The committed counts give docs/calibration.md to the byte, and Gaussian ones bear out docs/statistics.md."""
    frame = pd.read_parquet(calibration.IMAGES)
    text = document.PAGE.read_text(encoding="utf-8")
    assert between("sequential-images.parquet", document.images_table(frame), text) == text
    assert {"factorial", "epochs", "norms"} <= set(frame["study"])
    gaussian = frame[frame["noise"] == "crossed"]
    assert (gaussian["low"] <= gaussian["nominal"]).all()
