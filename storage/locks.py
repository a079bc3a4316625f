"""Locks between processes of one machine."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stella_assets.storage.workspace import Workspace


@contextmanager
def file_lock(workspace: Workspace, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock `name`; the operating system frees it when its holder dies.

    Args:
        workspace: The folder of all state; processes of one machine that share it wait for each other.
        name: What is locked, e.g. a table's name.
        on_wait: Told when another process holds the lock, before waiting for it.
    """
    lock = FileLock(_lock_file(workspace, name))
    try:
        # Tried without waiting first, so that `on_wait` is told only when there is something to wait for.
        lock.acquire(blocking=False)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def inherited_lock(workspace: Workspace, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold the lock `name` together with child processes: it is free when the last of them has ended, too.

    For programs that go on writing after `kill -9` of this process. It is another lock than `file_lock` of that name.

    Args:
        workspace: The folder of all state.
        name: What is locked.
        on_wait: Told when another process holds the lock, before waiting for it.

    Yields:
        The descriptor to start the processes with: `subprocess.run(..., pass_fds=[descriptor])`.
    """
    with _lock_file(workspace, f"{name}.inherited").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        # Closing the file does not unlock it where a child has it open; `LOCK_UN` would.
        yield file.fileno()


def _lock_file(workspace: Workspace, name: str) -> Path:
    workspace.locks.mkdir(parents=True, exist_ok=True)
    return workspace.locks / f"{name.replace('/', '.')}.lock"


@contextmanager
def try_lock(workspace: Workspace, name: str) -> Iterator[bool]:
    """Hold the lock `name` if nobody else does; yields whether it is held."""
    lock = FileLock(_lock_file(workspace, name))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
