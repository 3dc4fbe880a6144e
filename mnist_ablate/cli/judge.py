"""The command `judge`."""

import argparse

from mnist_ablate.cli.arguments import add_language, add_latex
from mnist_ablate.paths import user_path


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `judge`."""
    parser.add_argument("table", type=user_path, metavar="TABLE", help="a CSV or Parquet file, or a folder of logs")
    parser.add_argument("--study", type=user_path, metavar="FILE", help="describes the columns, and has the hypotheses")
    parser.add_argument("--init", action="store_true", help="write that file as a guess from the columns, and stop")
    parser.add_argument("--out", type=user_path, metavar="DIR", help="folder of the report; by default reports/<study>")
    add_language(parser)
    add_latex(parser)
    parser.set_defaults(command=_judge)


def _judge(arguments: argparse.Namespace) -> int:
    from mnist_ablate.checks.judge import judge, write_proposal

    if arguments.init:
        file, proposal = write_proposal(arguments.table, arguments.study)
        print(f"{proposal}\nWritten: {file}. Correct it, then: judge {arguments.table} --study {file}")
    else:
        print(judge(arguments.table, arguments.study, out=arguments.out, lang=arguments.lang, latex=arguments.latex))
    return 0
