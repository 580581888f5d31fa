"""The server, its settings, its clock, and the way to it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

import psycopg

from pgjobs import statements
from pgjobs.connections.listener import arrives
from pgjobs.doctor.finding import Check, Finding, Patient, critical, warning
from pgjobs.wording import duration

SHORT_MS: Final = 10_000
"""A limit of the server on statements or transactions below this one ends duties and listeners of ours."""

_LIMITS: Final = (
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
)
_NEEDED: Final = {
    "fsync": (critical, "after a crash of the machine the database is damaged, and jobs are lost"),
    "full_page_writes": (critical, "a page that is half written when the machine crashes stays damaged"),
    "track_counts": (critical, "autovacuum does not see dead rows, and never begins"),
    "synchronous_commit": (
        warning,
        "a crash of the server takes back the last commits, enqueues and completions among them",
    ),
}


def version(patient: Patient) -> Iterator[Finding]:
    """A server that is older than what pgjobs is tested on."""
    host = patient.ask(statements.host_of())
    if host.version < patient.limits.oldest:
        oldest = patient.limits.oldest // 10_000
        yield critical(
            "version",
            f"the server is PostgreSQL {host.words}",
            f"pgjobs is tested on {oldest} and later, and may not work",
            f"upgrade it to PostgreSQL {oldest} or later, with pg_upgrade",
        )


def read_only(patient: Patient) -> Iterator[Finding]:
    """A standby, or a database whose transactions cannot write."""
    if patient.ask(statements.host_of()).standby:
        yield critical(
            "standby",
            "this server is a standby",
            "nothing can be enqueued or claimed here",
            "name the primary too, and add target_session_attrs=read-write to the URL",
        )
    elif patient.ask(statements.settings(["default_transaction_read_only"])).popitem()[1] == "on":
        yield critical(
            "read_only",
            "transactions of this role in this database are read-only",
            "nothing can be enqueued",
            _reset(patient, "default_transaction_read_only"),
        )


def settings(patient: Patient) -> Iterator[Finding]:
    """Settings by which data is lost or work is cut short."""
    found = patient.ask(statements.settings([*_NEEDED, *_LIMITS, "max_connections", "autovacuum"]))
    for name, (finding, why) in _NEEDED.items():
        if found[name] == "off":
            yield finding(name, f"{name} is off", why, f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()")
    if found["autovacuum"] == "off":
        remedy = "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()"
        yield critical(
            "autovacuum", "autovacuum is off", "dead rows stay, and every claim reads past more of them", remedy
        )
    if int(found["max_connections"]) < patient.limits.connections:
        yield warning(
            "max_connections",
            f"the server allows {found['max_connections']} connections",
            "a worker process takes up to three, and a producer has a pool of ten: those that come last are refused",
            "ALTER SYSTEM SET max_connections = 100, and restart the server",
        )
    for name in _LIMITS:
        if 0 < int(found.get(name, 0)) < SHORT_MS:
            yield warning(
                name,
                f"{name} is {duration(int(found[name]) / 1000)} for this role in this database",
                "duties, listeners and jobs that complete in a transaction of their own are cut off",
                _reset(patient, name),
            )


def _reset(patient: Patient, name: str) -> str:
    user, database = patient.conn.info.user, patient.conn.info.dbname
    value = "off" if name == "default_transaction_read_only" else "0"
    return f'ALTER ROLE "{user}" IN DATABASE "{database}" SET {name} = {value}'


def clock(patient: Patient) -> Iterator[Finding]:
    """This host's clock against the server's, beyond what the way there takes."""
    before = time.time()
    host = patient.ask(statements.host_of())
    after = time.time()
    skew_s = host.clock - (before + after) / 2
    if abs(skew_s) > patient.limits.skew_s + (after - before) / 2:
        yield warning(
            "clock",
            f"the clock of this host is {duration(abs(skew_s))} {'behind' if skew_s > 0 else 'ahead of'} the server's",
            "the server's alone counts, but producers make ids by theirs: jobs are pruned late and listed out of order",
            "keep both by NTP: timedatectl set-ntp true",
        )


def notifications(patient: Patient) -> Iterator[Finding]:
    """Whether what is notified is heard where workers listen; a pooler in transaction mode keeps it back."""
    named = os.environ.get("PGJOBS_LISTEN_URL") is not None
    slow = "a job starts up to a second late, and results are looked for instead of heard of"
    remedy = "set PGJOBS_LISTEN_URL to the server's own address, behind the pooler, for workers and producers"
    try:
        with closing(patient.database.for_listening().connect("pgjobs doctor")) as ear:
            heard = arrives(ear, patient.conn)
    except psycopg.errors.ReadOnlySqlTransaction:
        return  # a standby, which read_only says
    except psycopg.OperationalError:
        yield warning("notifications", "what PGJOBS_LISTEN_URL names is out of reach", slow, remedy)
        return
    if heard:
        return
    if named:
        what = "what is notified does not arrive at PGJOBS_LISTEN_URL: it names another database, or a pooler"
    elif patient.database.pooled:
        what = "a pooler in transaction mode stands before the server, and no notification passes it"
    else:
        what = "what is notified does not come back"
    yield warning("notifications", what, slow, remedy)


CHECKS: Final[Sequence[Check]] = (version, read_only, settings, clock, notifications)
