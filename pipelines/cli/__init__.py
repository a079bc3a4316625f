"""The `stella` command."""

import gc
import io
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the command. Threads of libraries are limited before anything loads them."""
    # Ctrl-C ends the process at once until all is loaded: as an exception in the middle of an import it may be lost, or
    # leave a lock behind that the next import waits for. Background jobs of scripts go on ignoring it.
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_streams()
    # Imports are inside, in this order: libraries read their variables when they are loaded, and a failing import is
    # reported.
    from stella_assets.pipelines.cli.boundary import exit_on_errors

    with exit_on_errors():
        gc.disable()  # imports make no garbage, and looking for some takes a tenth of their time
        from stella_assets.pipelines.environment import prepare_libraries
        from stella_assets.pipelines.project import require_current_folder

        require_current_folder()
        prepare_libraries()
        from stella_assets.pipelines.cli.app import app

        gc.freeze()  # nor is there any to be found later
        gc.enable()
        signal.signal(signal.SIGINT, interrupt)
        app()


def _open_streams() -> None:
    """Let all streams exist, and take every text: a parent may have closed them, and their encoding may be ASCII."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # In this order it gets the number of the closed stream, which a file of the store would get otherwise.
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (until the end)
    if isinstance(sys.stdout, io.TextIOWrapper):  # standard error does so by itself
        sys.stdout.reconfigure(errors="backslashreplace")
