"""How long ended jobs are kept, by how they ended."""

from __future__ import annotations

from dataclasses import dataclass

from pgjobs.config import Duration, seconds
from pgjobs.errors import OptionError
from pgjobs.wording import given


@dataclass(frozen=True, slots=True)
class Keep:
    """How long a job is kept after it has ended; None for what ``result_ttl`` and ``failed_ttl`` say.

    What is kept for 0 is deleted when the pruner comes next, within minutes.

    Raises:
        OptionError: one of them is no length of time.
    """

    succeeded: Duration | None = None
    failed: Duration | None = None
    cancelled: Duration | None = None
    expired: Duration | None = None

    def __post_init__(self) -> None:
        self.document()

    def document(self) -> dict[str, float]:
        """Seconds by status, as the row keeps them."""
        given = {
            "succeeded": self.succeeded,
            "failed": self.failed,
            "cancelled": self.cancelled,
            "expired": self.expired,
        }
        return {status: seconds(value, what=f"keep {status}") for status, value in given.items() if value is not None}


def keep_of(value: object) -> Keep | None:
    """What the option ``keep`` may be.

    Raises:
        OptionError: it is something else.
    """
    if value is None or isinstance(value, Keep):
        return value
    raise OptionError(f"keep is {given(value)}; give Keep(failed='90d', …), or result_ttl for one length of time")
