"""What keeps vacuum from removing dead rows: the oldest transaction, wherever it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pgjobs import statements
from pgjobs.doctor.finding import Check, Finding, Patient, skipped, warning
from pgjobs.statements import Holder
from pgjobs.wording import duration

_WHY: Final = "no row that has died since can be removed: tables and indexes grow, and queries read past dead rows"


def horizon(patient: Patient) -> Iterator[Finding]:
    """Long transactions, standbys, slots and prepared transactions."""
    if not patient.ask(statements.host_of()).sees_all:
        who = patient.conn.info.user
        what = f"the role {who} does not see how long transactions of others are open"
        yield skipped("horizon", what, f"GRANT pg_read_all_stats TO {who}")
    for holder in patient.ask(statements.holders_of_horizon()):
        if holder.kind in ("session", "prepared"):
            if (holder.seconds or 0) > patient.limits.long_s:
                yield _transaction(holder)
        elif (holder.age or 0) > patient.limits.old:
            yield _replica(holder)


def _transaction(holder: Holder) -> Finding:
    since = f"for {duration(holder.seconds or 0)}"
    if holder.kind == "prepared":
        return warning(
            "prepared_transaction",
            f"the transaction {holder.name!r} of {holder.who} has been prepared {since}, and not ended",
            _WHY,
            f"ROLLBACK PREPARED '{holder.name}'; or COMMIT PREPARED, as its transaction manager knows",
        )
    application = holder.application or "no application_name"
    what = f"the transaction of pid {holder.name} ({application}, user {holder.who}) has been"
    mend = f"SELECT pg_terminate_backend({holder.name})"
    if holder.state.startswith("idle in transaction"):
        mend += "; against forgotten ones: ALTER DATABASE … SET idle_in_transaction_session_timeout = '5min'"
    if holder.age is None:
        why = "it pins no rows, but what it has locked waits: migrations, and jobs whose rows it holds"
        return warning("long_transaction", f"{what} open {since} ({holder.state})", why, mend)
    return warning("horizon", f"{what} open {since} ({holder.state})", _WHY, mend)


def _replica(holder: Holder) -> Finding:
    back = f"{holder.age:,} transactions back"
    if holder.kind == "standby":
        return warning(
            "standby_feedback",
            f"the standby {holder.application} (pid {holder.name}) holds the horizon {back}, by hot_standby_feedback",
            _WHY,
            "end the long query on the standby, or set hot_standby_feedback = off there",
        )
    if holder.kind == "idle slot":
        mend = f"SELECT pg_drop_replication_slot('{holder.name}')"
        return warning(
            "slot", f"nobody uses the replication slot {holder.name}, which holds the horizon {back}", _WHY, mend
        )
    mend = "end the long query on its standby, or set hot_standby_feedback = off there"
    return warning("slot", f"the replication slot {holder.name} holds the horizon {back}", _WHY, mend)


CHECKS: Final[Sequence[Check]] = (horizon,)
