"""The `stella` command."""


def main() -> None:
    """Run the command. Threads of libraries are limited before anything loads them."""
    from pipelines.cli.boundary import exit_on_errors

    with exit_on_errors():
        from pipelines.environment import prepare_libraries

        prepare_libraries()
        from pipelines.cli.app import app

        app()
