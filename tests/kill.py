"""A process that kills itself: the same moment on a busy machine and on a quiet one."""

import os
import signal
import sys


def kill_before_rename(number: int) -> None:
    """Kill this process with `kill -9` just before it renames a file or folder for the nth time.

    A rename makes what was written a part of the workspace, so the process dies with the work done and not kept.

    Args:
        number: Which rename, from 1.
    """
    renames = iter(range(1, number))

    def hook(event: str, _arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and next(renames, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
