"""Train the study beside this file with whatever Python, versions and environment this process has."""

import argparse
from pathlib import Path
from typing import Any

from mnist_ablate.execution import runner

STUDY = Path(__file__).with_name("study.toml")


def with_threads(n: int) -> None:
    """Let runs in this process use `n` threads, where they ask for one, and say so in their provenance."""
    import torch

    from mnist_ablate.training import worker
    from mnist_ablate.training.provenance import provenance

    original, told = torch.set_num_threads, provenance()

    def threads(_: int) -> None:
        original(n)

    changed: Any = torch
    changed.set_num_threads = threads
    in_worker: Any = worker
    in_worker.provenance = lambda: told | {"threads": n}


def main() -> None:
    """Train what is not stored yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--engine")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    workers = arguments.workers
    if arguments.threads != 1:  # in this process, where the change is
        with_threads(arguments.threads)
        workers = 0
    options = {name: getattr(arguments, name) for name in ("seeds", "epochs", "engine", "out")}
    runner.run(STUDY, workers=workers, **options)


if __name__ == "__main__":
    main()
