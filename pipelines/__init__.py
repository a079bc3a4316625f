"""WHEN it runs: definitions for Dagster, and the `stella` command."""
