"""The commands `plan`, `verify`, `doctor` and `compare`: print what the functions of `mnist_ablate.checks` return."""

import argparse

from mnist_ablate.cli.arguments import add_device, add_language, add_results, add_workers
from mnist_ablate.design.study import bundled_studies
from mnist_ablate.errors import StudyError
from mnist_ablate.language import find
from mnist_ablate.paths import user_path


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Add the options of `plan`."""
    parser.add_argument(
        "study", nargs="?", metavar="STUDY", help="a bundled study or a TOML file; by default all bundled ones"
    )
    parser.add_argument("--power", type=user_path, metavar="RESULTS", help="seeds that STUDY needs, by this pilot")
    parser.set_defaults(command=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from mnist_ablate.checks.plan import plan, power

    pilot = arguments.power
    if pilot and not arguments.study:
        raise StudyError(f"--power {pilot}: for which study? For example `plan factorial --power {pilot}`.")
    if pilot:
        print(power(arguments.study, pilot))
    elif arguments.study:
        print(plan(arguments.study))
    else:
        for name in bundled_studies():
            print(plan(name).summary)
    return 0


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Add the options of `verify`."""
    add_results(parser)
    parser.add_argument("--study", metavar="FILE", help="the study's file, if your own functions are beside it")
    parser.add_argument("--sample", type=int, metavar="N", help="only N runs, always the same ones; by default all")
    add_workers(parser)
    add_device(parser)
    parser.set_defaults(command=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    from mnist_ablate.checks.verify import verify

    names = ("sample", "study", "workers", "device")
    verification = verify(arguments.results, **{name: getattr(arguments, name) for name in names})
    print(verification)
    return verification.exit_status


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Add the options of `doctor`."""
    add_results(parser)
    parser.add_argument("--repair", action="store_true", help="move damaged files aside; nothing is deleted")
    parser.set_defaults(command=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from mnist_ablate.checks.doctor import doctor

    diagnosis = doctor(arguments.results, repair=arguments.repair)
    print(diagnosis)
    return diagnosis.exit_status


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the options of `compare`."""
    add_results(parser, "a")
    add_results(parser, "b")
    parser.add_argument("--out", type=user_path, metavar="DIR", help="folder of the page; by default reports/compare")
    parser.add_argument(
        "--margin",
        type=_margin,
        metavar="RESPONSE=SIZE",
        action="append",
        default=[],
        help="the smallest difference that matters, in points or nats; repeat it for several responses",
    )
    add_language(parser)
    parser.set_defaults(command=_compare)


def _margin(text: str) -> tuple[str, float]:
    response, _, size = text.partition("=")
    try:
        return response, float(size)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: allowed: RESPONSE=SIZE, as in test_accuracy=0.1") from None


def _compare(arguments: argparse.Namespace) -> int:
    from mnist_ablate.checks import compare_page
    from mnist_ablate.checks.compare import compare

    find(arguments.lang)  # before anything is read
    comparison = compare(arguments.a, arguments.b, dict(arguments.margin))
    written = compare_page.write(comparison, arguments.out, lang=arguments.lang)
    print(f"{comparison}\nMore: {written.html}, {written.markdown}")
    return comparison.exit_status
