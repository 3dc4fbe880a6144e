"""The commands `run` and `data`."""

import argparse

from mnist_ablate import data
from mnist_ablate.checks.run import run
from mnist_ablate.cli.arguments import add_device, add_language, add_study, add_workers, tell
from mnist_ablate.errors import RunsFailedError
from mnist_ablate.language import find
from mnist_ablate.paths import user_path
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    add_study(parser)
    parser.add_argument("--seeds", type=int, metavar="N", help="number of seeds (blocks)")
    parser.add_argument("--until-settled", action="store_true", help="add seeds until every hypothesis is settled")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of each run")
    parser.add_argument("--dataset", metavar="NAME", help=" or ".join(data.DATASETS))
    add_workers(parser)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="train on the workers of this Dask scheduler instead")
    add_device(parser)
    parser.add_argument("--engine", metavar="NAME", help="autograd or fused; by default the fastest possible")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first run that fails")
    parser.add_argument("--out", type=user_path, metavar="DIR", help="results folder; by default results/<study>")
    parser.add_argument("--report", action="store_true", help="also write reports/<study>, or DIR/report with --out")
    add_language(parser)
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    names = ("seeds", "until_settled", "epochs", "dataset", "engine", "workers", "scheduler", "device",
             "fail_fast", "out")  # fmt: skip
    find(arguments.lang)  # before hours of training
    failure = None
    try:
        results = run(arguments.study, **{name: getattr(arguments, name) for name in names})
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

        print(f"Report:  {write(results, arguments.out and arguments.out / 'report', lang=arguments.lang).html}")
    if failure is not None:
        raise failure
    return 0


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options of `data`."""
    names = list(data.DATASETS)
    parser.add_argument("name", nargs="?", metavar="NAME", default="mnist", choices=names, help=" or ".join(names))
    parser.add_argument("--from", dest="source", type=user_path, metavar="DIR", help="take the files from this folder")
    parser.set_defaults(command=_data)


def _data(arguments: argparse.Namespace) -> int:
    fetched = data.fetch(arguments.name, arguments.source, say=tell)
    print(f"{fetched.name}: {fetched.folder} ({fetched.source})")
    return 0
