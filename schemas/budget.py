"""The `budget` of a job file -> how much one run may take, and by when it must stop.

Each run has the whole budget anew: what an earlier one has spent does not count.
"""

import re
from datetime import date, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field

from schemas.job_problems import refuse, shown
from schemas.recipe_specs import Real, Spec, Whole

_DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_MAX_DURATION = timedelta(days=3650)
_WANTED = "a time with its zone, such as 2026-12-01T06:00:00Z, or a time after the start, such as 6h, 90m or 1h30m"


def _deadline(value: object) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.isoformat()
    if isinstance(value, str) and (_duration(value) or _moment(value)):
        return value
    is_time = isinstance(value, date) or (isinstance(value, str) and _is_time(value))
    why = " without a zone: add Z or +01:00, say" if is_time else ""
    got = str(value) if isinstance(value, date) else shown(value)
    raise refuse(f"must be {_WANTED}, got {got}{why}")


class BudgetSpec(Spec):
    """What one run may take; when any of it is spent the run stops as after Ctrl-C, and ends with exit code 4."""

    max_gpu_hours: Real | None = Field(default=None, gt=0)
    """Hours times GPUs that the label actors hold, from when they are started; nothing is spent without GPUs."""
    max_images: Whole | None = Field(default=None, ge=1)
    """Images that one run labels at most."""
    deadline: Annotated[str, BeforeValidator(_deadline)] | None = None
    """When the run stops: a time with its zone (`2026-12-01T06:00:00Z`), or after its start (`6h`, `90m`, `1h30m`)."""

    def stops_at(self, started_at: datetime) -> datetime | None:
        """When a run that starts then has to stop; None without a deadline."""
        if self.deadline is None:
            return None
        duration = _duration(self.deadline)
        if duration is not None:
            return started_at + duration
        moment = _moment(self.deadline)
        assert moment is not None, "checked when the job was read"
        return moment


def _duration(text: str) -> timedelta | None:
    """None for what is none: also for nothing at all, and for more than ten years."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or sum(len(part or "") for part in found.groups()) > 12:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    if not 0 < days * 86400 + hours * 3600 + minutes * 60 + seconds <= _MAX_DURATION.total_seconds():
        return None
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    return True
