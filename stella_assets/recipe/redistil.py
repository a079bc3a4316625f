"""The recipe's part on re-distillation: when the recipe is re-run, and what is promoted and kept."""

from __future__ import annotations

from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter
from pydantic import Field, field_validator

from stella_assets.core.config import ConfigModel, Fraction, Gain, Positive, Weight


class Redistil(ConfigModel):
    """Embed what is new, continue training from the active release, and promote what passes the gate."""

    schedule: str = Field(default="0 3 * * 1", description="when, as a cron expression; weekly, on Monday at 3")
    timezone: str = Field(default="UTC", description="of the schedule")
    watch: bool = Field(default=True, description="also re-run when sources, teachers or the recipe change")
    continue_from_release: bool = Field(
        default=True, description="start from the active release's encoder; else from the base model"
    )
    min_new_fraction: Fraction = Field(
        default=0.01, description="share of new texts from which a training run is started"
    )
    min_neighbor_change: Fraction = Field(
        default=0.05, description="share of changed nearest neighbours from which it is started with fewer new texts"
    )
    min_gain: Gain = Field(
        default=0.0,
        description="points of the mean to gain over the active release; below 0 allows a loss",
    )
    keep: Positive = Field(default=4, description="releases that are kept, with all artefacts that they depend on")
    retention_days: Weight = Field(
        default=7.0, le=36_500, description="days that an artefact is kept that nothing depends on"
    )

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, schedule: str) -> str:
        # croniter also accepts a sixth field, seconds, which Dagster's scheduler does not.
        if len(schedule.split()) != 5 or not croniter.is_valid(schedule):
            raise ValueError(
                f"{schedule!r} is not a cron expression of five fields: minute, hour, day, month, weekday, "
                "e.g. `0 3 * * 1` for Mondays at 3"
            )
        return schedule

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, name: str) -> str:
        # Asked first: `ZoneInfo` raises several types of errors, e.g. for a name that is a folder of its database.
        if name not in available_timezones():
            raise ValueError(f"{name!r} is not a time zone; an example is `Europe/Berlin`")
        return ZoneInfo(name).key
