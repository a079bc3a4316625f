"""Locks between processes of one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from storage.workspace import Workspace


@contextmanager
def file_lock(workspace: Workspace, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock `name`; the operating system frees it when its holder dies.

    Args:
        workspace: The folder of all state; processes of one machine that share it wait for each other.
        name: What is locked, e.g. a table's name.
        on_wait: Told when another process holds the lock, before waiting for it.
    """
    workspace.locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workspace.locks / f"{name.replace('/', '.')}.lock")
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
