"""Everything that this package foresees can go wrong: one exception class per failure.

Each message names the cause and the remedy. The number is the exit status of a command that ends with the error:
1 the answer is bad news, 2 bad input, 3 cannot tell::

    MnistAblateError                2
        StudyError                  2
        DataError                   2
        DamagedFileError            1
        ResultsError                2
            BusyError               2
        StorageError                1
        WorkerError                 1
        TrainingError               2
        RunsFailedError             1
        InterruptedRunError         3
        ClusterError                2
        DeviceError                 2
        WorkerDiedError             1
        ExecutorLostError           3
        GateReferenceError          3
        NoVerdictError              3
        OtherProtocolError          3
        TableError                  2
        LanguageError               2
"""

from pathlib import Path


class MnistAblateError(Exception):
    """Base of all errors of this package; commands print its message without a traceback."""

    exit_status = 2


class StudyError(MnistAblateError):
    """A study, or an option that changes one, is not valid; the message lists every mistake."""


class DataError(MnistAblateError):
    """A data set is missing, cannot be fetched, or is not the expected one."""


class DamagedFileError(MnistAblateError):
    """A stored file cannot be read back as it was written."""

    exit_status = 1


class ResultsError(MnistAblateError):
    """A results folder cannot be used: it is missing, empty, not writable, or holds another study."""


class BusyError(ResultsError):
    """Another process is writing to the same results folder."""


class StorageError(MnistAblateError):
    """A result could not be written for lack of space or permission; what is already stored stays."""

    exit_status = 1


class WorkerError(MnistAblateError):
    """A worker process could not be started."""

    exit_status = 1


class TrainingError(MnistAblateError):
    """A run cannot be trained as specified on the given images."""


class RunsFailedError(MnistAblateError):
    """Some runs of a study failed; the others are stored in `folder`."""

    exit_status = 1

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder

    def __reduce__(self) -> tuple[type, tuple[str, Path]]:
        return type(self), (str(self), self.folder)  # to come back from a worker of a pool, which would hang


class InterruptedRunError(MnistAblateError):
    """The user stopped the study (Ctrl-C) before it was complete, so there is no answer yet."""

    exit_status = 3


class ClusterError(MnistAblateError):
    """A cluster cannot be used: no scheduler answers, or its workers would give other results."""


class DeviceError(MnistAblateError):
    """A graphics card that was asked for cannot be used: no card, driver, compiler or memory."""


class WorkerDiedError(MnistAblateError):
    """Every worker that tried a run died while training it."""

    exit_status = 1


class ExecutorLostError(MnistAblateError):
    """The executor or cluster was lost before the study was complete; finished runs are stored."""

    exit_status = 3


class GateReferenceError(MnistAblateError):
    """The gate cannot compare: its reference is outdated, of another study, or has too few repeats."""

    exit_status = 3


class NoVerdictError(MnistAblateError):
    """The gate cannot tell, because something other than training failed: a disk, memory, a library, a worker."""

    exit_status = 3


class OtherProtocolError(MnistAblateError):
    """Runs of another protocol, or of other code of the user's, cannot be verified: other bits are to be expected."""

    exit_status = 3


class TableError(MnistAblateError):
    """A table of runs that were made elsewhere cannot be read or judged; the message names rows or columns."""


class LanguageError(MnistAblateError):
    """There is no catalogue of the language that was asked for, or it lacks a message of a page."""
