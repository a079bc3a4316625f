"""What steps say to people, without Dagster's own events."""

from __future__ import annotations

import logging

import dagster as dg


def console_logger(handler: logging.Handler) -> dg.LoggerDefinition:
    """A logger of a run that shows what steps say, and leaves Dagster's own events to the UI.

    Args:
        handler: Prints the lines; it gets a filter and a formatter.

    Returns:
        A definition for `build_definitions`.
    """

    @dg.logger
    def people(_context: dg.InitLoggerContext) -> logging.Logger:
        # Not `getLogger`: the registry would keep the handlers of every earlier run of this process.
        logger = logging.Logger("stella", logging.INFO)
        handler.addFilter(_said_by_a_step)
        handler.setFormatter(_PlainFormatter())
        logger.addHandler(handler)
        return logger

    return people


def _said_by_a_step(record: logging.LogRecord) -> bool:
    """Neither an event of Dagster, nor its note on a step that was not reached because of a failure."""
    meta = getattr(record, "dagster_meta", {})
    # Dagster logs the note on skipped steps as a plain message, so only its text tells it apart.
    return not meta.get("dagster_event") and not str(meta.get("orig_message")).startswith("Dependencies for step")


class _PlainFormatter(logging.Formatter):
    """The message as the step gave it, without the ids of run and step."""

    def format(self, record: logging.LogRecord) -> str:
        return str(getattr(record, "dagster_meta", {}).get("orig_message", record.getMessage()))
