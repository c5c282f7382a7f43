"""How a stage ends: its exceptions and its exit status."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence

DONE, FAILED, BAD_INPUT, CAN_CONTINUE = 0, 1, 2, 75  # exit statuses


class InputError(ValueError):
    """The user's input is wrong. The message is one line: what, where, how to mend it. Exit status 2.

    Attributes
    ----------
    agreed : bool
        Whether every rank has it, so that each can end by itself.
    """

    agreed = False


class ToldElsewhere(InputError):
    """An `InputError` that another rank prints; this one ends with the same status in silence."""

    agreed = True


class Stopped(Exception):
    """Asked to stop, saved, and the same command continues. Exit status 75 (EX_TEMPFAIL)."""


class Failed(Exception):
    """Something that the stage started or waited for has failed; the message says what and where. Exit status 1."""


def exit_status(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Run a stage and say in its exit status how it ended: 0 done, 2 bad input, 75 can continue, 1 anything else."""
    try:
        main(argv)
    except ToldElsewhere:
        return BAD_INPUT
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except Stopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return CAN_CONTINUE
    except Failed as failed:
        print(f"failed: {failed}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; run the same command again", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        sys.stderr.close()
        return FAILED
    except Exception:
        traceback.print_exc()
        return FAILED
    return DONE
