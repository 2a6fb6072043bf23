"""The two ways a job ends early on purpose and their exit status; other errors in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """The user's input or setting is at fault: one sentence, no traceback, exit status 2.

    The message says what is wrong, where, what was got, what was expected and what to do.
    """


class StoppedBySignal(Exception):  # noqa: N818 - it is not an error: run again to continue
    """The job was asked to stop and left its last complete state; exit status 75."""


def cause_of(error: BaseException) -> str:
    """What a library's error says, fit for the middle of a sentence: the start of its text.

    That is its first line, and what follows as long as a line ends with a comma.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    last = next((n for n, line in enumerate(lines) if not line.endswith(",")), len(lines) - 1)
    return " ".join(line.strip() for line in lines[: last + 1])


@contextmanager
def requiring_extra(extra: str, purpose: str) -> Iterator[None]:
    """Around the import of what only an extra of topocal installs.

    Args:
        extra: Its name.
        purpose: What needs it, as the subject of a sentence.

    Raises:
        UserError: It is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        msg = f"{error.name} is not installed; {purpose} needs it: pip install 'topocal[{extra}]'"
        raise UserError(msg) from None
