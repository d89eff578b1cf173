"""Every error that SliceWise raises on purpose.

An error says what is wrong, with which file, patient, field or request item, and how to cure it. The
command line prints it as one line and exits with ``exit_code``; the serving layers map the same classes to
HTTP and gRPC status codes in one place (``serving/status.py``).
"""

from __future__ import annotations

from typing import ClassVar


class SliceWiseError(Exception):
    """Base of all deliberate errors.

    Args:
        message: What is wrong, naming the thing.
        cure: What the user can do about it; shown after the message.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        """One line: the message, then the cure."""
        return f"{self.message} — {self.cure}" if self.cure else self.message


class UsageError(SliceWiseError):
    """The command was called with words it does not know (exit code 2)."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file, key or value is wrong; names the key."""


class SourceError(SliceWiseError):
    """A data source cannot be resolved: missing, empty or of no known layout."""


class StudyError(SliceWiseError):
    """One study cannot be used; the others go on.

    Args:
        study_id: The study's id, as in the dataset manifest.
        message: What is wrong, naming the file.
        cure: What to do about it.
    """

    def __init__(self, study_id: str, message: str, cure: str = "") -> None:
        super().__init__(f"study {study_id}: {message}", cure)
        self.study_id = study_id


class StoreError(SliceWiseError):
    """A slice store is missing, of another format version, or damaged."""


class LeakageError(SliceWiseError):
    """The audit found a patient group on more than one side of the split."""


class TrainingError(SliceWiseError):
    """Training cannot go on: no usable slices, a checkpoint of another run, a loss that is not finite."""


class BundleError(SliceWiseError):
    """A model bundle is missing, incomplete, or its digests do not match."""


class InputError(SliceWiseError):
    """One item given to the predictor is unusable (HTTP 400 / gRPC INVALID_ARGUMENT); names the field."""


class TooLargeError(InputError):
    """One item is larger than the stated limit (HTTP 413 / gRPC RESOURCE_EXHAUSTED)."""


class ServerError(SliceWiseError):
    """A server could not be started, reached or stopped (HTTP 503 / gRPC UNAVAILABLE)."""


class PortBusyError(ServerError):
    """A port asked for is taken by another process."""


class PipelineError(SliceWiseError):
    """A stage of the pipeline failed; names the stage."""


class RunLockedError(SliceWiseError):
    """Another process is working on the same run folder."""
