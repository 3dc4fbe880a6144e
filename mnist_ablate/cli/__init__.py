"""The command line: a friendly layer over what the package does.

A command imports what it alone needs, late: `run` has workers training before statistics are loaded.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from mnist_ablate import data
from mnist_ablate.design.plan import cells, plan
from mnist_ablate.design.study import Study, bundled_studies, load_study
from mnist_ablate.errors import MnistAblateError, RunsFailedError, StudyError
from mnist_ablate.execution import runner
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results, load

_INTERRUPTED = 3
_GATE_REFERENCE = Path("results/reference/gate")  # from the root of a checkout


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`, by default the process's own; return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
        sys.stdout.flush()  # here, where it is told when that cannot be written
    except BrokenPipeError:  # the reader, such as `head`, has enough
        _print_no_more()
        return 0
    except (MemoryError, OSError) as error:
        _print_no_more()
        print(f"mnist-ablate: {_cause(error)}. What is finished is kept: run the same command again.", file=sys.stderr)
        return 1
    except MnistAblateError as error:
        print(f"mnist-ablate: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("mnist-ablate: Stopped.", file=sys.stderr)
        return _INTERRUPTED
    return status


def _print_no_more() -> None:
    """Send what is still to be printed nowhere: at its end, the interpreter would try once more, and complain."""
    with suppress(OSError):  # where it is no file, as in a notebook
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cause(error: MemoryError | OSError) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory; give fewer --workers, or end other programs"
    return f"{error.filename or 'what is printed'}: {error.strerror or error}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mnist-ablate", description="Does L2, dropout or BatchNorm help on MNIST?")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="train every run of a study that is not stored yet"))
    planned = commands.add_parser("plan", help="say what a study would run, and about how long that takes")
    planned.add_argument("study", nargs="?", metavar="STUDY", help="a bundled study or a TOML file; all bundled ones")
    planned.add_argument("--power", type=Path, metavar="RESULTS", help="a pilot: say how many seeds STUDY needs")
    planned.set_defaults(command=_plan)
    fetched = commands.add_parser("data", help="fetch and check a data set, and print where it lies")
    fetched.add_argument("name", nargs="?", metavar="NAME", default="mnist", choices=list(data.DATASETS))
    fetched.add_argument("--from", dest="source", type=Path, metavar="DIR", help="a folder that has the files")
    fetched.set_defaults(command=_data)
    _add_verify(commands.add_parser("verify", help="train stored runs again, and compare them bit for bit"))
    _add_doctor(commands.add_parser("doctor", help="check a results folder without training"))
    _add_compare(commands.add_parser("compare", help="two results folders: the same, equivalent or different?"))
    _add_gate(commands.add_parser("gate", help="has training got worse since the reference was accepted?"))
    return parser


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results folder")
    parser.add_argument("--repair", action="store_true", help="move what is damaged aside; nothing is deleted")
    parser.set_defaults(command=_doctor)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results folder")
    parser.add_argument("--sample", type=int, metavar="N", help="so many of the runs, always the same; by default all")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; by default one per physical core")
    parser.set_defaults(command=_verify)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", nargs="?", metavar="STUDY", default="factorial", help="a bundled study or a TOML file")
    parser.add_argument("--seeds", type=int, metavar="N", help="number of seeds (blocks)")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of each run")
    parser.add_argument("--dataset", metavar="NAME", help=" or ".join(data.DATASETS))
    parser.add_argument("--workers", type=int, metavar="N", help="processes; by default one per physical core")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="train on the workers of this Dask scheduler instead")
    parser.add_argument("--engine", metavar="NAME", help="what does the training steps")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first run that fails")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results folder; by default results/<study>")
    parser.add_argument("--report", action="store_true", help="then write reports/<study>, or DIR/report with --out")
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    names = ("seeds", "epochs", "dataset", "engine", "workers", "scheduler", "fail_fast", "out")
    options = {name: getattr(arguments, name) for name in names}
    failure = None
    try:
        results = runner.run(arguments.study, **options)
    except RunsFailedError as error:
        if not Store(error.folder).stored():
            raise
        failure, results = error, load(error.folder)
    from mnist_ablate.inference.analysis import analyse
    from mnist_ablate.report.sections.cells import table

    print(table(analyse(results)).text)
    print(f"Results: {results.folder}")
    if arguments.report:
        from mnist_ablate.report import write

        print(f"Report:  {write(results, arguments.out and arguments.out / 'report').html}")
    if failure is not None:
        raise failure
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    if arguments.power and not arguments.study:
        raise StudyError(
            f"--power {arguments.power}: for which study? As in `plan factorial --power {arguments.power}`."
        )
    if arguments.power:
        print("\n".join(_describe_power(load_study(arguments.study), load(arguments.power))))
        return 0
    for name in [arguments.study] if arguments.study else bundled_studies():
        print("\n".join(_describe(load_study(name), verbose=bool(arguments.study))))
    return 0


def _describe(study: Study, *, verbose: bool) -> list[str]:
    """Say what `study` would run, what is stored of it, and how long the rest takes on this machine."""
    from mnist_ablate.training import worker

    study = runner.with_engine(study)
    runner.check_sizes(study)
    folder = Path("results") / study.name
    runs = plan(study)
    done, damaged = Store(folder).completed(runs)
    missing = [run for run in runs if run.run_id not in done]
    workers = runner.default_workers()
    time = timedelta(seconds=round(worker.estimate_seconds(missing) / workers))
    lines = [
        f"{study.name}: {study.title}",
        f"  {len(cells(study))} cells x {study.seeds} seeds = {len(runs)} runs; {len(done)} stored in {folder}",
        f"  {len(missing)} to do: about {time} with {workers} workers, from a trial of a few steps on this machine",
    ]
    if verbose:
        lines += [f"  factor {factor.name}: {', '.join(map(str, factor.levels))}" for factor in study.design]
        lines += [f"  cell {cell.name}" for cell in cells(study)]
    return lines + [f"  {message}" for message in damaged]


def _describe_power(study: Study, results: Results) -> list[str]:
    """Say how many seeds the hypotheses of `study` need, with `results` as the pilot, and what the run would cost."""
    from mnist_ablate.inference import verdicts as hypotheses
    from mnist_ablate.training import worker

    needed = hypotheses.power_table(hypotheses.as_pilot(results, study))
    shown = needed.astype({"likely": float, "cautious": float})  # not None, which pandas would write as such
    numbers = {"sd": "{:.4f}".format, "smallest": "{:g}".format, "likely": _whole, "cautious": _whole}
    lines = [
        f"{study.name}: seeds that each hypothesis needs, from the pilot {results.folder}",
        *(f"  {line}" for line in shown.to_string(index=False, formatters=numbers, na_rep="-").splitlines()),
        "  n: seeds of the pilot. sd: of the effect, from seed to seed. smallest: the smallest effect that matters.",
        f"  likely: gives a clear answer with {hypotheses.POWER:.0%} probability if the true sd is the pilot's.",
        "  cautious: the same if the true sd is the upper 80 % limit of what the pilot's few seeds allow.",
    ]
    differing = _differences(study, results.study)
    lines += [f"  The pilot has {differing}: the sd may differ, too."] if differing else []
    per_seed = worker.estimate_seconds(plan(runner.with_engine(study).with_options(seeds=1)))
    workers = runner.default_workers()
    for name in ("likely", "cautious"):
        if not needed[name].isna().any():
            time = timedelta(seconds=round(per_seed * int(needed[name].max()) / workers))
            seeds = f"{needed[name].max():.0f} seeds settle all by the {name} number"
            lines.append(f"  {seeds}: about {time} with {workers} workers, from nothing")
    return lines


def _whole(number: float) -> str:
    """Write a number of seeds, where NaN is none."""
    return "-" if math.isnan(number) else f"{number:.0f}"


def _differences(study: Study, pilot: Study) -> str:
    """Name the shared settings in which a pilot is not like `study`."""
    asked, had = study.protocol.model_dump(), pilot.protocol.model_dump()
    return ", ".join(
        f"{name} = {had[name]} in the place of {asked[name]}" for name in asked if had[name] != asked[name]
    )


def _data(arguments: argparse.Namespace) -> int:
    fetched = data.fetch(arguments.name, arguments.source, say=_say)
    print(f"{fetched.name}: {fetched.folder} ({fetched.source})")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from mnist_ablate.checks.verify import exit_status, verify

    checks = verify(load(arguments.results), arguments.sample, workers=arguments.workers)
    different = [check for check in checks if check.difference]
    for check in different:
        print(check)
    print(f"{len(checks) - len(different)} of {len(checks)} runs are the same to the bit.")
    return exit_status(checks)


def _doctor(arguments: argparse.Namespace) -> int:
    from mnist_ablate.checks import doctor

    findings = doctor.examine(arguments.results)
    damaged = [finding for finding in findings if finding.kind == "damaged"]
    for finding in findings:
        print(f"{finding.kind.upper()}: {finding.message}")
    for moved in doctor.repair(arguments.results, damaged) if arguments.repair else ():
        print(f"moved to {moved}")
    remedy = (
        "" if arguments.repair or not damaged else " Move them aside with --repair; `run` then makes those runs again."
    )
    print(f"{arguments.results}: {len(damaged) or 'no'} damaged files.{remedy}")
    return 1 if damaged else 0


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A", help="results folder")
    parser.add_argument("b", type=Path, metavar="B", help="results folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the page, by default reports/compare")
    parser.add_argument(
        "--margin",
        type=_margin,
        metavar="RESPONSE=SIZE",
        action="append",
        default=[],
        help="the smallest difference that matters, in points or nats; may be given again for another response",
    )
    parser.set_defaults(command=_compare)


def _margin(text: str) -> tuple[str, float]:
    """Read a response and its margin, as in ``test_accuracy=0.1``."""
    response, _, size = text.partition("=")
    try:
        return response, float(size)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: allowed: RESPONSE=SIZE, as in test_accuracy=0.1") from None


def _compare(arguments: argparse.Namespace) -> int:
    from mnist_ablate.checks import compare
    from mnist_ablate.checks import compare_page as compare_report

    found = compare.check(arguments.a, arguments.b, dict(arguments.margin))
    written = compare_report.write(found, arguments.out or compare_report.OUT)
    print(f"{compare_report.text(found)}\nMore: {written.html}, {written.markdown}")
    return found.exit_status


def _add_gate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="?", type=Path, metavar="RESULTS", help="judge this folder; else train first")
    parser.add_argument("--reference", type=Path, metavar="DIR", default=_GATE_REFERENCE, help="what to compare with")
    parser.add_argument("--study", metavar="STUDY", default="gate", help="for --accept: a bundled study or a TOML file")
    parser.add_argument("--accept", action="store_true", help="make a new reference of the code as it is")
    parser.add_argument("--why", metavar="TEXT", help="the reason for it, which is kept")
    parser.add_argument("--changed-on-purpose", action="store_true", help="do not judge the course of golden runs")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; by default one per physical core")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("results/gate"), help="for runs and gate.md")
    parser.set_defaults(command=_gate)


def _gate(arguments: argparse.Namespace) -> int:
    from mnist_ablate.gate import accept as gate_accept
    from mnist_ablate.gate import runs as gate_runs

    options = {name: getattr(arguments, name) for name in ("reference", "out", "workers")}
    if arguments.accept:
        gate_accept.accept(load_study(arguments.study), arguments.why, **options, say=_say)
        print(f"Reference: {arguments.reference}")
        return 0
    purpose = arguments.changed_on_purpose
    verdict, page = gate_runs.judge(arguments.results, **options, changed_on_purpose=purpose, say=_say)
    print(f"{verdict.sentence}\nMore:  {page}")
    return verdict.exit_status


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
