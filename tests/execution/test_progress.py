"""What a person sees while runs are trained."""

import time

import pytest

from mnist_ablate.execution.progress import Bar, Lines, Silent, make_progress


def test_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal the first and the last run have a line, and the rest none within the first seconds."""
    lines = Lines(100)
    for i in range(100):
        lines.step(f"run {i}")
    lines.close()
    printed = capsys.readouterr().err.splitlines()
    assert [line.split(" runs")[0] for line in printed] == ["1 of 100", "100 of 100"]
    assert printed[1].endswith("run 99")


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line comes when the last one is half a minute old, with the time left once the pace is known."""
    steps(monkeypatch, Lines(10), [10.0] * 6)
    assert capsys.readouterr().err.splitlines() == ["1 of 10 runs; note", "4 of 10 runs, 0:01:00 left; note"]


def test_the_forecast_leaves_out_the_first_run_of_each_worker(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers compile for two minutes, then take 5 s a run: 8 runs are left, and so 20 s, not 10 minutes."""
    monkeypatch.setattr("mnist_ablate.execution.progress._SECONDS_BETWEEN_LINES", 0.0)
    seconds = [120.0, 1.0, 4.0, 1.0]
    steps(monkeypatch, Lines(12, 2), seconds)
    assert capsys.readouterr().err.splitlines() == [
        "1 of 12 runs; note",
        "2 of 12 runs; note",
        "3 of 12 runs, 0:00:36 left; note",
        "4 of 12 runs, 0:00:20 left; note",
    ]
    bar = Bar(12, 2)
    steps(monkeypatch, bar, seconds)
    bar.close()
    told = capsys.readouterr().err
    assert "0:00:20 left; note" in told
    assert "left" not in told.split("3/12")[0].split("4/12")[0]


def steps(monkeypatch: pytest.MonkeyPatch, shown: Lines | Bar, seconds: list[float]) -> None:
    """Let runs end one after the other, each so many seconds after the last."""
    now = [time.monotonic()]
    monkeypatch.setattr("mnist_ablate.execution.progress.time.monotonic", lambda: now[0])
    for passed in seconds:
        now[0] += passed
        shown.step("note")


def test_bar_shows_the_last_run_and_messages(capsys: pytest.CaptureFixture[str]) -> None:
    """The bar counts, shows how the last run went, and leaves messages whole."""
    bar = Bar(2)
    bar.step("first")
    bar.say("a message")
    bar.step("second")
    bar.close()
    shown = capsys.readouterr().err
    assert "a message\n" in shown
    assert "2/2" in shown
    assert "second" in shown


def test_the_display_fits_the_place(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar on a terminal, lines in a log; silence still lets messages through."""
    assert isinstance(make_progress(3), Lines)
    monkeypatch.setattr("mnist_ablate.execution.progress.sys.stderr.isatty", lambda: True)
    bar = make_progress(3)
    assert isinstance(bar, Bar)
    bar.close()
    capsys.readouterr()
    silent = Silent()
    silent.step("unseen")
    silent.close()
    silent.say("seen")
    assert capsys.readouterr().err == "seen\n"
