"""Every error a user can fix, and the exit code each one carries.

A message is one plain sentence (or a short list of them) that says what is wrong, where,
what was expected, what was found, and what to do next. The command line prints it as it
stands, without a traceback.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_OUR_FAULT = 1
EXIT_USER_CAN_FIX = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class MedtransError(Exception):
    """Base of every error that a user can fix.

    Attributes
    ----------
    exit_code : int
        What the command line exits with when the error reaches it.
    """

    exit_code: ClassVar[int] = EXIT_USER_CAN_FIX


class UsageError(MedtransError):
    """The command or call itself asks for something impossible."""


class ConfigError(MedtransError):
    """A pipeline recipe has a wrong or unknown key, or a value out of range."""


class ManifestError(MedtransError):
    """A manifest CSV lists something that cannot be used."""


class FileError(MedtransError):
    """A file or folder cannot be read as a volume, or cannot be written."""


class UnreadableFileError(FileError):
    """The file is missing, damaged, or of a kind that medtrans does not read."""


class GeometryError(FileError):
    """The voxels are readable but do not form a volume on a regular grid."""


class OutputError(FileError):
    """The place to write to is missing, full, or not writable."""


class PackageError(MedtransError):
    """A model package is incomplete, damaged, or made for something else."""


class TrainingError(MedtransError):
    """Training cannot start or go on with what it was given."""


class FaultError(MedtransError):
    """A fault of ours stopped one volume of many; the cause says where."""

    exit_code: ClassVar[int] = EXIT_OUR_FAULT

    @classmethod
    def of(cls, error: Exception) -> FaultError:
        """Wrap an unexpected exception; its own message is left out: it may quote a header."""
        fault = cls(f"medtrans failed ({type(error).__name__}). This is a fault of medtrans.")
        fault.__cause__ = error
        return fault


class UnusualInputError(FileError):
    """The input is unlike what the model was trained on, and was asked to be refused then."""


class InputWarning(UserWarning):
    """What is unusual about an input that `Translator.translate` was given, and translated."""


class Interrupted(MedtransError):  # noqa: N818 - it is a stop, not an error
    """A signal stopped the work; what was done is saved."""

    exit_code: ClassVar[int] = EXIT_INTERRUPTED


class Terminated(Interrupted):
    """SIGTERM stopped the work; what was done is saved."""

    exit_code: ClassVar[int] = EXIT_TERMINATED
