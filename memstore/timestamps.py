"""Times: aware UTC datetimes in records, integer microseconds in the file."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def now() -> datetime:
    """The time as records keep it: aware, UTC, whole microseconds."""
    return datetime.now(UTC)


def to_micros(when: datetime) -> int:
    """An aware datetime as stored: whole microseconds since 1970, UTC."""
    return (when - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The stored time as a datetime, aware, UTC."""
    return EPOCH + timedelta(0, 0, micros)  # by name it takes twice as long
