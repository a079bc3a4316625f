"""The `stella` command."""

import gc
import signal


def main() -> None:
    """Run the command. Threads of libraries are limited before anything loads them."""
    # Ctrl-C ends the process at once until all is loaded: as an exception in the middle of an import it may be lost, or
    # leave a lock behind that the next import waits for. Background jobs of scripts go on ignoring it.
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Imports are inside, in this order: libraries read their variables when they are loaded, and a failing import is
    # reported.
    from stella_assets.pipelines.cli.boundary import exit_on_errors

    with exit_on_errors():
        gc.disable()  # imports make no garbage, and looking for some takes a tenth of their time
        from stella_assets.pipelines.environment import prepare_libraries

        prepare_libraries()
        from stella_assets.pipelines.cli.app import app

        gc.freeze()  # nor is there any to be found later
        gc.enable()
        signal.signal(signal.SIGINT, interrupt)
        app()
