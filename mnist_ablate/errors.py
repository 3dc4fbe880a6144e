"""What can go wrong, one exception class per failure.

The message of each names the cause and the remedy; ``exit_status`` is what the commands end with:
1 the answer is bad news, 2 bad input, 3 cannot tell.
"""

from pathlib import Path


class MnistAblateError(Exception):
    """Base of every failure that this package foresees; the commands print it without a traceback."""

    exit_status = 2


class StudyError(MnistAblateError):
    """A study, or an option that changes one, is not valid; the message lists every mistake in it."""


class DataError(MnistAblateError):
    """A data set is not there, cannot be fetched, or is not the one that it should be."""


class DamagedFileError(MnistAblateError):
    """A stored file cannot be read back as it was written."""

    exit_status = 1


class ResultsError(MnistAblateError):
    """A results folder cannot be used: missing, empty, not writable, or of another study."""


class BusyError(ResultsError):
    """Another process is writing to the same results folder."""


class StorageError(MnistAblateError):
    """A result could not be written, for want of space or of permission; what is stored stays."""

    exit_status = 1


class WorkerError(MnistAblateError):
    """A process to train in could not be started."""

    exit_status = 1


class TrainingError(MnistAblateError):
    """A run's specification cannot be trained on the images that it was given."""


class RunsFailedError(MnistAblateError):
    """Some runs of a study failed; the others are stored in `folder`."""

    exit_status = 1

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder


class InterruptedRunError(MnistAblateError):
    """The user stopped the study (Ctrl-C) before it was complete, so there is no answer yet."""

    exit_status = 3


class ClusterError(MnistAblateError):
    """A cluster cannot be used: no scheduler at the address, or workers that would not give the same results."""


class WorkerDiedError(MnistAblateError):
    """Every worker that trained a run died under it."""

    exit_status = 1


class ExecutorLostError(MnistAblateError):
    """What trains the runs was lost before the study was complete; what is finished is kept."""

    exit_status = 3


class GateReferenceError(MnistAblateError):
    """The gate's reference is old, is of another study, or says too little of chance: nothing can be compared."""

    exit_status = 3
