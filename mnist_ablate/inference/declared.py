"""What was declared before the runs, and whether a verdict is the one that was."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from mnist_ablate.design.design import Design
from mnist_ablate.inference.intervals import Unit
from mnist_ablate.language import later
from mnist_ablate.store.sealed import Document


@dataclass(frozen=True)
class Declarations:
    """What was declared before the runs.

    Parameters
    ----------
    files
        Number of runs by the SHA-256 of the study file.
    rules
        Number of runs by the SHA-256 of the hypotheses (`mnist_ablate.design.study.Study.hypotheses_sha256`).
    looks
        Numbers of seeds for verdicts, declared with the first run; empty where none was recorded.
    afterwards
        Why nothing that was declared counts as declared before the runs; empty where it may.
    """

    files: dict[str, int]
    rules: dict[str, int]
    looks: tuple[int, ...]
    afterwards: str = ""


def declarations(documents: Iterable[Document]) -> Declarations:
    """Read what was declared before the runs from their documents."""
    files: dict[str, int] = defaultdict(int)
    rules: dict[str, int] = defaultdict(int)
    started, looks = "", ()
    for document in documents:
        declared = document.get("declared", {})
        files[declared.get("study_sha256", "")] += 1
        rules[declared.get("hypotheses_sha256", "")] += 1
        when = str(document.get("provenance", {}).get("started", ""))
        if declared and (not started or when < started):
            started, looks = when, tuple(declared["looks"])
    return Declarations(dict(files), dict(rules), looks)


def provisional(study: Design, n: int, declared: Declarations, unit: Unit) -> str:
    """Return why a verdict from `n` seeds, or what else `unit` says, is not the declared one; empty if it is."""
    if declared.afterwards:
        return declared.afterwards
    if not declared.looks:
        return later("the runs do not say what was declared before them")
    changed = sum(runs for rules, runs in declared.rules.items() if rules != study.hypotheses_sha256)
    if changed:
        return later("{n} of the runs were made before the hypotheses became what they are now", n=changed)
    if len(study.looks) > 1 or len(declared.looks) > 1:
        return _other_looks(study.looks, declared.looks) or _incomplete(study, n)
    if n not in declared.looks:
        return _another_number(n, declared.looks[0], unit)
    return ""


def _another_number(n: int, declared: int, unit: Unit) -> str:
    match unit:
        case "seed":
            return later("it rests on {n} seeds, and {declared} were declared before the first run", n=n,
                         declared=declared)  # fmt: skip
        case "run":
            return later("it rests on {n} runs, and {declared} were declared before the first run", n=n,
                         declared=declared)  # fmt: skip
    return later(
        "it rests on {n} runs in each cell, and {declared} were declared before the first run", n=n, declared=declared
    )


def _other_looks(looks: tuple[int, ...], declared: tuple[int, ...]) -> str:
    """Return how the numbers of seeds differ from those that were declared before the first run."""
    if looks == declared:
        return ""
    if len(declared) == 1:
        return later("a fixed number of {n} seeds was declared before the first run", n=declared[0])
    now, then = ({"first": n[0], "step": n[1] - n[0] if len(n) > 1 else 0, "most": n[-1]} for n in (looks, declared))
    if len(looks) == 1:
        steps = ", ".join(f"{name} = {value}" for name, value in then.items())
        return later("it rests on a fixed number of seeds, and {steps} were declared before the first run", steps=steps)
    one, *more = (
        later("{setting} = {then}, which is {now} now", setting=name, then=then[name], now=now[name])
        for name in now
        if now[name] != then[name]
    )
    match more:
        case []:
            return later("its first run declared {one}", one=one)
        case [other]:
            return later("its first run declared {one} and {other}", one=one, other=other)
    return later("its first run declared {one} and {other} and {third}", one=one, other=more[0], third=more[1])


def _incomplete(study: Design, n: int) -> str:
    if n == study.n_seeds:
        return ""
    return later("its look at {seeds} seeds is incomplete: it rests on {n}", seeds=study.n_seeds, n=n)
