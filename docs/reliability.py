"""Write the tables and the picture of docs/reliability.md from the committed measurements: ``nox -s readme``."""

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from mnist_ablate.store.sealed import read_table

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "docs"))
from marks import between  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
REFERENCE = ROOT / "results" / "reference"
PICTURE = ROOT / "docs" / "night.svg"
_COLOURS = ("#0072b2", "#d55e00", "#009e73")


def with_faults(text: str, found: pd.DataFrame) -> str:
    """Return the page with the table of the faults in its place."""
    rows = [_faults(kind, of) for kind, of in found.groupby("kind", sort=False)]
    head = ("Fault", "When", "Injections", "Exit status", "Repaired", "Lost", "Double", "Different", "Otherwise wrong")
    total = _faults("**All**", found) | {"when": "", "status": ""}
    flips = int(found["flips"].sum())
    seen = f"Single bits flipped in files with a digest: {flips:,}, not seen: {int(found['unseen'].sum()):,}."
    return between("results/reference/faults.parquet", f"{_markdown(head, [*rows, total])}\n\n{seen}", text)


def _faults(kind: Any, of: pd.DataFrame) -> dict[str, str]:
    statuses = of["status"].value_counts()
    otherwise = of["hung"] | of["traceback"] | (of["left_over"] > 0) | (of["left"] != "") | (of["resumed"] != 0)
    otherwise |= of["unseen"] > 0
    return {
        "kind": str(kind),
        "when": ", ".join(dict.fromkeys(of["stage"])),
        "n": f"{len(of):,}",
        "status": ", ".join(f"{status:.0f} ({n})" for status, n in statuses.items()),
        "repaired": f"{int(of['repaired'].sum())}",
        **{name: f"{int(of[name].sum())}" for name in ("lost", "double", "different")},
        "otherwise": f"{int(otherwise.sum())}",
    }


def _markdown(head: tuple[str, ...], rows: list[dict[str, str]]) -> str:
    lines = [head, (":--", *["--:"] * (len(head) - 1)), *(tuple(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_MUST_NOT = ("traceback", "wrong answer", "hang", "crash", "not read")


def with_fuzz(text: str, found: pd.DataFrame) -> str:
    """Return the page with the table of bad input in its place."""
    head = ("Reader", "Inputs", "Right answers", "Our errors", *(f"{name.capitalize()}s" for name in _MUST_NOT[:1]))
    head += ("Wrong answers", "Hangs", "Crashes", "Not read", "Longest, s", "Peak memory, MB")
    rows = [_fuzz(reader, of) for reader, of in found.groupby("reader", sort=False)]
    return between("results/reference/fuzz.parquet", _markdown(head, rows), text)


def _fuzz(reader: Any, of: pd.DataFrame) -> dict[str, str]:
    counts = of.set_index("outcome")["n"]
    ours = {name: n for name, n in counts.items() if name not in ("right", *_MUST_NOT)}
    return {
        "reader": str(reader),
        "inputs": f"{int(of['inputs'].iloc[0]):,}",
        "right": f"{int(counts.get('right', 0)):,}",
        "ours": ", ".join(f"{name} {n:,}" for name, n in ours.items()),
        **{name: f"{int(counts.get(name, 0))}" for name in _MUST_NOT},
        "longest": f"{of['longest_seconds'].iloc[0]:.2f}",
        "peak": f"{of['peak_mb'].iloc[0]:.0f}",
    }


def with_night(text: str, samples: pd.DataFrame, document: dict[str, Any]) -> str:
    """Return the page with what came of the night's study in its place."""
    seconds, machine = document["seconds"], document["machine"]
    facts = {
        "Runs planned, stored and read back": f"{document['runs']:,}, {document['present']:,}",
        "Rows, of which twice": f"{document['rows']:,}, {document['rows_twice']}",
        "Exit status of `run`, `doctor`, the report": _statuses(document),
        "Minutes for them": ", ".join(f"{seconds[name] / 60:.1f}" for name in ("run", "doctor", "report")),
        **{f"Memory of {name}, MB: early, late, most": of for name, of in growth(samples).items()},
    }
    table = _markdown(("", "found"), [{"what": what, "found": value} for what, value in facts.items()])
    where = f"{machine['processor']}, Python {machine['python']}, PyTorch {machine['torch']}, 2 workers."
    early = (
        "*Early* and *late* are medians while 10 to 20 % and 90 to 100 % of the runs were stored; *most* is over all."
    )
    after = "What the driver holds at the very end is the whole table, which it reads back and indexes."
    picture = "![Memory of the driver and of the workers against time](night.svg)"
    return between("results/reference/night.parquet", f"{table}\n\n{where} {early} {after}\n\n{picture}", text)


def _statuses(document: dict[str, Any]) -> str:
    return ", ".join(str(document[name]) for name in ("status", "doctor_status", "report_status"))


def growth(samples: pd.DataFrame) -> dict[str, str]:
    """Give, for each process, the median memory early and late in the training, and the most of all."""
    share = samples["stored"] / samples["stored"].max()
    found = {}
    for name, of in samples.groupby("process"):
        early, late = (of[share[of.index].between(*ends)]["memory_mb"] for ends in ((0.1, 0.2), (0.9, 0.9999)))
        found[str(name)] = f"{early.median():.0f}, {late.median():.0f}, {of['memory_mb'].max():.0f}"
    return found


def draw(samples: pd.DataFrame) -> Figure:
    """Draw memory against time."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axes = figure.subplots()
    for colour, (name, of) in zip(_COLOURS, samples.groupby("process"), strict=False):
        axes.plot(of["seconds"] / 60, of["memory_mb"], color=colour, label=str(name), linewidth=1.2)
    axes.set(xlabel="minutes", ylabel="memory, MB", ylim=(0, None))
    axes.grid(color="#e3e5e8")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def page(text: str) -> str:
    """Return the page with what has been measured in its places."""
    for name, put in (("faults", with_faults), ("fuzz", with_fuzz)):
        file = REFERENCE / f"{name}.parquet"
        text = put(text, pd.read_parquet(file)) if file.exists() else _not_yet(name, text)
    if not (REFERENCE / "night.parquet").exists():
        return _not_yet("night", text)
    night, document = read_table(REFERENCE / "night.parquet")
    return with_night(text, night.to_pandas(), document)


def _not_yet(name: str, text: str) -> str:
    return between(f"results/reference/{name}.parquet", "Not measured yet.", text)


def main() -> None:
    """Write the page's tables and its picture."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    if (REFERENCE / "night.parquet").exists():
        night, _ = read_table(REFERENCE / "night.parquet")
        with mpl.rc_context({"svg.hashsalt": "mnist-ablate", "svg.fonttype": "none"}):
            draw(night.to_pandas()).savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
