"""The recipe's part on doing it all again by itself."""

from __future__ import annotations

from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter
from pydantic import Field, field_validator

from stella_assets.core.config import ConfigModel, Fraction, Positive, Weight


class Redistil(ConfigModel):
    """Embed what is new, train on from what is released, and promote what passes the gate."""

    schedule: str = Field(default="0 3 * * 1", description="when, as a cron expression; weekly, on Monday at 3")
    timezone: str = Field(default="UTC", description="of the schedule")
    watch: bool = Field(default=True, description="also when sources or teachers change")
    continue_from_release: bool = Field(default=True, description="train on from what is released; else from the base")
    min_new_fraction: Fraction = Field(
        default=0.01, description="share of new texts from which on it is worth training"
    )
    min_neighbor_change: Fraction = Field(
        default=0.05, description="share of changed neighbours from which on it is worth training all the same"
    )
    min_gain: float = Field(
        default=0.0, description="points of the mean above what is released, without which that stays; below 0 lets go"
    )
    keep: Positive = Field(default=4, description="releases that stay, with all that they rest on")
    retention_days: Weight = Field(default=7.0, description="how long something stays that nothing rests on")

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, schedule: str) -> str:
        if len(schedule.split()) != 5 or not croniter.is_valid(schedule):
            raise ValueError(
                f"{schedule!r} is no cron expression of five fields: minute, hour, day, month, weekday, as `0 3 * * 1` "
                "for Mondays at 3"
            )
        return schedule

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"{name!r} is no time zone; an example is `Europe/Berlin`")
        return ZoneInfo(name).key
