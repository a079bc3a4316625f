"""Locks between processes of one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from storage.workspace import Workspace


@contextmanager
def file_lock(workspace: Workspace, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold what `name` stands for; the operating system frees it when its holder dies.

    `on_wait` is told before a second holder waits.
    """
    workspace.locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workspace.locks / f"{name.replace('/', '.')}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
