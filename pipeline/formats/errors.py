"""The two ways a job ends early on purpose, and their exit status."""


class UserError(ValueError):
    """The user's input or setting is at fault: one sentence, no traceback, exit status 2.

    The message says what is wrong, where, what was got, what was expected and what to do.
    """


class StoppedBySignal(Exception):  # noqa: N818 - it is not an error: run again to continue
    """The job was asked to stop and left its last complete state; exit status 75."""
