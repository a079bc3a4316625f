"""polars, loaded when it is first used: that takes a fifth of a second, and most commands need no table."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl
else:

    class _Polars(ModuleType):
        def __getattr__(self, name: str) -> Any:
            import polars

            value = getattr(polars, name)
            setattr(self, name, value)
            return value

    pl = _Polars("polars")

__all__ = ["pl"]
