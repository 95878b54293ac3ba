"""Turns every failure into one sentence and an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from types import FrameType
from typing import ParamSpec

import typer

from pueprotect.cli.console import complain, err
from pueprotect.errors import ExitCode, PueprotectError

DEBUG = "PUEPROTECT_DEBUG"

P = ParamSpec("P")


def reported(command: Callable[P, int]) -> Callable[P, None]:
    """Turn a command's result and every failure into an exit code; PUEPROTECT_DEBUG=1 adds the traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = _code(lambda: command(*args, **kwargs))
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
            code = ExitCode.CLOSED_PIPE
        raise typer.Exit(code)

    return run


def _code(command: Callable[[], int]) -> int:
    """The exit code of a command; it writes the sentence about a failure."""
    try:
        with _terminable(), warnings.catch_warnings():
            # Pillow warns about damaged metadata and large pictures; what matters becomes an error of ours.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            return command()
    except KeyboardInterrupt:
        complain("interrupted; finished work is kept. Run the same command with --resume to go on.")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get(DEBUG) == "1":
            err.console.print_exception()
        complain(_sentence(error))
        return error.exit_code if isinstance(error, PueprotectError) else ExitCode.ERROR


def _discard_output() -> None:
    """Lead stdout and stderr nowhere: nobody reads them any more, and flushing them at the exit would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a stream without a file, as in tests
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM do what Ctrl-C does: finished work is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def uncollected() -> Iterator[None]:
    """Switch off the search for cyclic garbage, which slows down a short command that makes none."""
    gc.disable()
    try:
        yield
    finally:
        if "torch" not in sys.modules:  # torch reports leaks without the search at the exit
            gc.freeze()
        gc.enable()


def _sentence(error: Exception) -> str:
    if isinstance(error, PueprotectError):
        return str(error)
    what = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"{what}; free memory, or choose a smaller --size or --surrogate."
    if isinstance(error, OSError):
        return f"{what}; check the path, its permissions and the space on the disk."
    return f"unexpected {what}; run the command again with {DEBUG}=1 and report the traceback."
