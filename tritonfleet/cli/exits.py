"""Exit codes, and the one error every command raises.

A command never prints its own failure: it raises `CliError`, and `main` writes the message to stderr
and exits with its code, so that scripts can rely on both.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2  # the command line or the fleet file is wrong
    TIMED_OUT = 3  # a wait did not end in time
    UNREACHABLE = 4  # no controller answers
    CHANGES = 5  # `plan`: there is something to do
    INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT, as shells count


class CliError(Exception):
    """What went wrong, in words, with what to do about it and the lines that prove it.

    ``details`` are printed verbatim below the message (log lines); ``hint`` is the remedy.
    """

    def __init__(
        self, code: ExitCode, message: str, *, hint: str = "", details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
        self.details = details
