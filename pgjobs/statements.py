"""Every query of ``pgjobs/sql`` as a typed function that returns a Statement.

A Statement is a value: sync, async and borrowed connections run it alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Any, Final, Generic, LiteralString, NamedTuple, TypeAlias, TypeVar
from uuid import UUID

from pgjobs.job import FailureRow, JobRow, Status, Template

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = Sequence[Row]


class Query:
    """A named text of ``pgjobs/sql``, with psycopg's named parameters, for any schema."""

    __slots__ = ("_text", "name")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._text = text

    def __repr__(self) -> str:
        return f"<Query {self.name}>"

    @lru_cache(maxsize=512)  # noqa: B019 - queries live as long as the program
    def text(self, schema: str) -> LiteralString:
        """The text with ``%(name)s`` parameters, for psycopg and psycopg2."""
        own: Any = self._text if schema == "pgjobs" else _TOKEN.sub(f"{schema}.", self._text)
        text: LiteralString = own  # schema is a checked name, and the rest is ours
        return text

    @lru_cache(maxsize=512)  # noqa: B019
    def numbered(self, schema: str) -> tuple[str, tuple[str, ...]]:
        """The text with ``$1`` parameters, for asyncpg, and the parameters' names in that order."""
        names: list[str] = []

        def number(match: re.Match[str]) -> str:
            if match[1] not in names:
                names.append(match[1])
            return f"${names.index(match[1]) + 1}"

        return _PARAMETER.sub(number, self.text(schema)), tuple(names)


_TOKEN: Final = re.compile(r"\bpgjobs\.")
_PARAMETER: Final = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True, slots=True)
class Statement(Generic[T]):
    """A query with its parameters and the function that reads its rows."""

    query: Query
    params: Mapping[str, Any]
    read: Callable[[Rows], T]
    prepare: bool = False
    """Whether a plan for any values may be kept. One made while the table was empty scans it when it is huge."""


def _load() -> Iterator[tuple[str, Query]]:
    for file in sorted(files("pgjobs").joinpath("sql").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            for name, text in re.findall(
                r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", file.read_text(), re.MULTILINE | re.DOTALL
            ):
                yield name, Query(name, _without_comments(text))


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.strip().splitlines() if not line.startswith("--"))


QUERIES: Final[Mapping[str, Query]] = dict(_load())


def _rows(rows: Rows) -> Rows:
    return rows


def _nothing(rows: Rows) -> None:
    return None


def _scalar(rows: Rows) -> Any:
    return rows[0][0] if rows else None


def _column(rows: Rows) -> list[Any]:
    return [row[0] for row in rows]


def _is_true(rows: Rows) -> bool:
    return bool(rows and rows[0][0])


# -- enqueue


def enqueue(row: Template, job_id: UUID, args: str) -> Statement[bool]:
    """Adds one job; returns whether an idle worker should be told."""
    params = {
        "id": str(job_id),
        "task": row.task,
        "queue": row.queue,
        "priority": row.priority,
        "max_attempts": row.max_attempts,
        "timeout": row.timeout,
        "ttl": row.ttl,
        "args": args,
        "options": row.options,
    }
    if row.waits:
        params |= {"run_at": row.run_at, "delay": row.delay}
        return Statement(QUERIES["enqueue_due"], params, _is_true, prepare=True)
    return Statement(QUERIES["enqueue"], params, _is_true, prepare=True)


def enqueue_many(row: Template, ids: Sequence[UUID], args: Sequence[str]) -> Statement[None]:
    """Adds a chunk of jobs, which differ in id and arguments alone."""
    params = {
        "ids": [str(job_id) for job_id in ids],
        "args": list(args),
        "task": row.task,
        "queue": row.queue,
        "priority": row.priority,
        "max_attempts": row.max_attempts,
        "timeout": row.timeout,
        "ttl": row.ttl,
        "options": row.options,
        "run_at": row.run_at,
        "delay": row.delay,
    }
    return Statement(QUERIES["enqueue_many"], params, _nothing)


def copy() -> Query:
    """The COPY that takes (id, task, queue, priority, max_attempts, timeout, args, options)."""
    return QUERIES["copy"]


def somebody_idle(queue: str) -> Statement[bool]:
    """Whether a worker waits for work on the queue."""
    return Statement(QUERIES["somebody_idle"], {"queue": queue}, _is_true)


def notify(payload: str) -> Statement[None]:
    """Sends a hint to the workers and clients of the schema."""
    return Statement(QUERIES["notify"], {"payload": payload}, _nothing)


def tell_of(row: Template) -> Statement[None]:
    """Tells the workers that there is work in the lane of a job."""
    return notify(f"queued {row.priority} {row.queue}")


# -- claim

Lane: TypeAlias = tuple[str, int]
"""A queue and a priority."""

NO_BOUND: Final = 2**63 - 1


class Range(NamedTuple):
    """The positions of a lane from low on, below high."""

    lane: Lane
    low: int = 0
    high: int = NO_BOUND


def _ranges(ranges: Sequence[Range]) -> dict[str, Any]:
    return {
        "queues": [lane[0] for lane, _, _ in ranges],
        "priorities": [lane[1] for lane, _, _ in ranges],
        "lows": [low for _, low, _ in ranges],
        "highs": [high for _, _, high in ranges],
    }


def claim(worker: UUID, claim_id: UUID, ranges: Sequence[Range], limit: int) -> Statement[Rows]:
    """Takes up to limit jobs from ranges of lanes, in their order of preference."""
    return Statement(QUERIES["claim"], {"worker": worker, "claim": claim_id, "limit": limit} | _ranges(ranges), _rows)


def bounds(ranges: Sequence[Range]) -> Statement[Rows]:
    """Rows of (queue, priority, lowest live position or None, last value of the sequence, xmin, xmax)."""
    params = _ranges(ranges)
    del params["highs"]
    return Statement(QUERIES["bounds"], params, _rows)


def new_lanes(known: Iterable[Lane], *, queues_too: bool) -> Statement[list[Lane]]:
    """Every lane that has queued jobs and is not known; of the queues of known lanes alone unless queues_too."""
    priorities: dict[str, list[int]] = {}
    for queue, priority in known:
        priorities.setdefault(queue, []).append(priority)
    queues = sorted(priorities)
    gaps = [
        (queue, above, below)
        for queue in queues
        for above, below in pairwise([-1000, *sorted(priorities[queue]), 1000])
        if below - above > 1
    ]
    params: dict[str, Any] = {
        "afters": ["", *queues] if queues_too else [],
        "befores": [*queues, None] if queues_too else [],
        "queues": [gap[0] for gap in gaps],
        "aboves": [gap[1] for gap in gaps],
        "belows": [gap[2] for gap in gaps],
    }
    return Statement(QUERIES["new_lanes"], params, lambda rows: [(row[0], row[1]) for row in rows])


def strays(ranges: Sequence[Range]) -> Statement[list[Range]]:
    """The narrowest ranges around what may be claimed within some ranges, a thousand jobs in each at most."""
    return Statement(
        QUERIES["strays"], _ranges(ranges), lambda rows: [Range((row[0], row[1]), row[2], row[3] + 1) for row in rows]
    )


def noted_lanes() -> Statement[list[Range]]:
    """What workers have noted: each lane from its low bound on."""
    return Statement(
        QUERIES["noted_lanes"], {}, lambda rows: [Range((row[0], row[1]), row[2], NO_BOUND) for row in rows]
    )


def note_lanes(ranges: Sequence[Range]) -> Statement[None]:
    """Notes where the live positions of lanes begin."""
    params = _ranges(sorted(ranges))
    del params["highs"]
    return Statement(QUERIES["note_lanes"], params, _nothing)


def idle(worker: UUID, claim_id: UUID, queues: Sequence[str]) -> Statement[bool]:
    """Sets the worker's flags unless the claim found something; returns whether it did set them."""
    params = {"worker": worker, "claim": claim_id, "queues": list(queues)}
    return Statement(QUERIES["idle"], params, bool)


def busy(worker: UUID) -> Statement[None]:
    """Takes the worker's flags away."""
    return Statement(QUERIES["busy"], {"worker": worker}, _nothing)


# -- complete


class Recorded(NamedTuple):
    """The jobs whose outcomes were recorded, and the channels of those who wait for results."""

    ids: list[Any]
    channels: list[str]


def _recorded(rows: Rows) -> Recorded:
    ids = [row[0] for row in rows if row[1] is None]
    return Recorded(ids, [row[1] for row in rows[len(ids) :]] if len(ids) < len(rows) else [])


def complete(columns: Mapping[str, Any]) -> Statement[Recorded]:
    """Records successes (ids, claims, results, waits, seconds)."""
    return Statement(QUERIES["complete"], columns, _recorded)


def settle(columns: Mapping[str, Sequence[Any]]) -> Statement[Recorded]:
    """Records every other end of an attempt."""
    return Statement(QUERIES["settle"], columns, _recorded)


def complete_within(job_id: UUID, claim_id: UUID, result: str | None, duration_s: float) -> Statement[bool]:
    """Records a success in the caller's transaction; returns whether the claim still held."""
    params = {"id": str(job_id), "claim": str(claim_id), "result": result, "seconds": duration_s}
    return Statement(QUERIES["complete_within"], params, bool)


def standing(ids: Sequence[Any], claims: Sequence[Any]) -> Statement[Rows]:
    """Rows of (id, status, whether the claim is still ours)."""
    return Statement(QUERIES["standing"], {"ids": list(ids), "claims": list(claims)}, _rows)


def forget_claims(claims: Sequence[Any]) -> Statement[None]:
    """Deletes claims that are settled as a whole."""
    return Statement(QUERIES["forget_claims"], {"claims": list(claims)}, _nothing)


def begin_suspects(ids: Sequence[Any], claims: Sequence[Any]) -> Statement[set[Any]]:
    """Says that suspects begin; returns those whose rows could be written."""
    return Statement(
        QUERIES["begin_suspects"], {"ids": list(ids), "claims": list(claims)}, lambda rows: set(_column(rows))
    )


def release(claims: Sequence[Any], ids: Sequence[Any]) -> Statement[Recorded]:
    """Gives jobs back to their old places; nobody waits for that."""
    params = {"claims": list(claims), "ids": list(ids)}
    return Statement(QUERIES["release"], params, lambda rows: Recorded(_column(rows), []))


# -- workers


def register(
    worker: UUID,
    *,
    supervisor: UUID,
    name: str,
    host: str,
    pid: int,
    process: str,
    queues: Sequence[str],
    slots: int,
) -> Statement[None]:
    """Makes a worker known."""
    params = {
        "id": worker,
        "supervisor": supervisor,
        "name": name,
        "host": host,
        "pid": pid,
        "process": process,
        "queues": list(queues),
        "slots": slots,
    }
    return Statement(QUERIES["register"], params, _nothing)


def beat(workers: Sequence[UUID]) -> Statement[set[UUID]]:
    """Says that workers live; returns those that count as alive."""
    return Statement(QUERIES["beat"], {"workers": list(workers)}, lambda rows: {row[0] for row in rows})


def stopping(worker: UUID) -> Statement[None]:
    """Says that a worker claims no more."""
    return Statement(QUERIES["stopping"], {"worker": worker}, _nothing)


def retire(worker: UUID) -> Statement[None]:
    """Takes a worker's leave."""
    return Statement(QUERIES["retire"], {"worker": worker}, _nothing)


def declare_dead(workers: Sequence[UUID]) -> Statement[list[UUID]]:
    """Marks workers dead; returns those that were not yet."""
    return Statement(QUERIES["declare_dead"], {"workers": list(workers)}, _column)


def reconcile(worker: UUID) -> Statement[Rows]:
    """Rows of (claim id, job ids) that a worker holds in the database's eyes."""
    return Statement(QUERIES["reconcile"], {"worker": worker}, _rows)


def neighbours(boot: str, pids: str) -> Statement[Rows]:
    """Rows of (worker id, name, process id, what it said of itself) of one boot of one machine."""
    return Statement(QUERIES["neighbours"], {"boot": boot, "pids": pids}, _rows)


def alive(worker: UUID) -> Statement[tuple[bool, int]]:
    """Whether a worker counts as alive, and how many do."""
    return Statement(QUERIES["alive"], {"worker": worker}, lambda rows: (rows[0][0], rows[0][1]))


# -- maintain


@dataclass(frozen=True, slots=True)
class Duty:
    """A duty just taken; interrupted says that nobody ran it for a while, or not since the server's start."""

    name: str
    ran_at: datetime | None
    state: Any
    interrupted: bool


def take_duty(names: Sequence[str], worker: UUID) -> Statement[Duty | None]:
    """Takes the most overdue of the duties, for this transaction."""
    return Statement(
        QUERIES["take_duty"],
        {"names": list(names), "worker": worker},
        lambda rows: Duty(*rows[0]) if rows else None,
    )


def leave_duty(name: str, state: str | None, *, again: bool) -> Statement[None]:
    """Stores what the duty wants to remember; again asks for another run at once."""
    return Statement(QUERIES["leave_duty"], {"name": name, "state": state, "again": again}, _nothing)


def promote(back_s: float | None = None) -> Statement[int]:
    """Queues up to 1,000 jobs that are due, for back_s at most if given; returns how many."""
    return Statement(QUERIES["promote"], {"back": back_s}, _scalar)


def next_due(back_s: float | None = None) -> Statement[float | None]:
    """Seconds until the next scheduled job is due, of those that have been due for back_s at most if given."""
    return Statement(QUERIES["next_due"], {"back": back_s}, _scalar)


def mark_silent(*, interrupted: bool) -> Statement[list[tuple[UUID, str]]]:
    """Counts misses; returns (id, name) of the workers that are dead now."""
    return Statement(
        QUERIES["mark_silent"],
        {"interrupted": interrupted},
        lambda rows: [(row[0], row[1]) for row in rows if row[2]],
    )


def reap(
    workers: Sequence[UUID] | None, begun: Sequence[UUID] | None, max_crashes: int, how: str
) -> Statement[list[tuple[UUID, str]]]:
    """Requeues jobs of dead workers, of the given ones or of all; returns (id, status) of at most 1,000."""
    params = {
        "workers": None if workers is None else list(workers),
        "begun": None if begun is None else list(begun),
        "max_crashes": max_crashes,
        "how": how,
    }
    return Statement(QUERIES["reap"], params, lambda rows: [(row[0], row[1]) for row in rows])


def forget_dead_claims() -> Statement[list[UUID]]:
    """Deletes claims of dead workers under which nothing runs."""
    return Statement(QUERIES["forget_dead_claims"], {}, _column)


def expire(since: Any) -> Statement[int]:
    """Ends waiting jobs whose ttl passed after since; returns how many, 1,000 at most."""
    return Statement(QUERIES["expire"], {"since": since}, _scalar)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one step of pruning did."""

    reached: UUID | None
    more: bool
    count: int


def prune(after: UUID, age_s: float, result_ttl_s: float, failed_ttl_s: float) -> Statement[Pruned]:
    """Deletes ended jobs past their retention among the next 1,000 ids after a cursor that are older than age."""
    params = {"after": after, "age": age_s, "result_ttl": result_ttl_s, "failed_ttl": failed_ttl_s}
    return Statement(QUERIES["prune"], params, lambda rows: Pruned(*rows[0]))


def roll_up() -> Statement[None]:
    """Merges the rollup rows of the last minutes."""
    return Statement(QUERIES["roll_up"], {}, _nothing)


def tidy() -> Statement[None]:
    """Forgets workers, flags and waiters that are long gone."""
    return Statement(QUERIES["tidy"], {}, _nothing)


def time_out(workers: Sequence[UUID] | None, ids: Sequence[UUID] | None) -> Statement[list[tuple[UUID, str]]]:
    """Ends overdue attempts: of the given jobs of the given workers, or all that are far over; returns (id, status)."""
    params = {"workers": None if workers is None else list(workers), "ids": None if ids is None else list(ids)}
    return Statement(QUERIES["time_out"], params, lambda rows: [(row[0], row[1]) for row in rows])


# -- control


def cancel(ids: Sequence[UUID], reason: str) -> Statement[dict[UUID, str]]:
    """Cancels jobs; returns the statuses of those that were not over: cancelled, or running until they have stopped."""
    params = {"ids": [str(job_id) for job_id in ids], "reason": reason}
    return Statement(QUERIES["cancel"], params, lambda rows: {row[0]: row[1] for row in rows})


def retry(ids: Sequence[UUID]) -> Statement[list[UUID]]:
    """Queues ended jobs again; returns those that had ended."""
    return Statement(QUERIES["retry"], {"ids": [str(job_id) for job_id in ids]}, _column)


def delete(ids: Sequence[UUID]) -> Statement[list[UUID]]:
    """Deletes jobs; returns those that were there."""
    return Statement(QUERIES["delete"], {"ids": [str(job_id) for job_id in ids]}, _column)


def to_be_stopped(ids: Sequence[UUID], claims: Sequence[UUID]) -> Statement[set[UUID]]:
    """Of running jobs, those whose runs shall end: cancelled, deleted, or another claim's."""
    params = {"ids": list(ids), "claims": list(claims)}
    return Statement(QUERIES["to_be_stopped"], params, lambda rows: {row[0] for row in rows})


# -- keys


def sealed_jobs(after: UUID, limit: int) -> Statement[list[tuple[UUID, str | None, str | None]]]:
    """The next jobs after an id that are stored encrypted: (id, token of args, token of result)."""
    params = {"after": str(after), "limit": limit}
    return Statement(QUERIES["sealed_jobs"], params, lambda rows: [(row[0], row[1], row[2]) for row in rows])


class Resealed(NamedTuple):
    """Tokens that stand in a job, and those that shall; None for what stays."""

    id: UUID
    old_args: str | None
    new_args: str | None
    old_result: str | None
    new_result: str | None


def reseal(jobs: Sequence[Resealed]) -> Statement[list[UUID]]:
    """Puts new tokens in the place of old ones; returns the jobs that were free."""
    params = {
        "ids": [str(job.id) for job in jobs],
        "old_args": [job.old_args for job in jobs],
        "new_args": [job.new_args for job in jobs],
        "old_results": [job.old_result for job in jobs],
        "new_results": [job.new_result for job in jobs],
    }
    return Statement(QUERIES["reseal"], params, _column)


# -- wait


def wait_on(channel: str) -> Statement[None]:
    """Says that somebody listens on a channel for ends of jobs."""
    return Statement(QUERIES["wait_on"], {"channel": channel}, _nothing)


def wait_no_more(channel: str) -> Statement[None]:
    """Says that nobody does any more."""
    return Statement(QUERIES["wait_no_more"], {"channel": channel}, _nothing)


def tell(channels: Sequence[str], payloads: Sequence[str]) -> Statement[None]:
    """Sends each payload, ids in hex with spaces between, to each channel."""
    return Statement(QUERIES["tell"], {"channels": list(channels), "payloads": list(payloads)}, _nothing)


# -- inspect


_JOB_COLUMNS: Final = tuple(field.name for field in fields(JobRow))


def _job_row(row: Row) -> JobRow:
    values: dict[str, Any] = dict(zip(_JOB_COLUMNS, row, strict=True))
    values["status"] = Status(values["status"])
    return JobRow(**values)


def job(job_id: UUID) -> Statement[JobRow | None]:
    """One job as it stands."""
    return Statement(QUERIES["job"], {"id": str(job_id)}, lambda rows: _job_row(rows[0]) if rows else None)


def jobs_by_id(ids: Sequence[UUID]) -> Statement[dict[UUID, JobRow]]:
    """Some jobs as they stand."""
    params = {"ids": [str(job_id) for job_id in ids]}
    return Statement(QUERIES["jobs_by_id"], params, lambda rows: {row[0]: _job_row(row) for row in rows})


def statuses(ids: Sequence[UUID]) -> Statement[dict[UUID, Status]]:
    """How some jobs stand."""
    params = {"ids": [str(job_id) for job_id in ids]}
    return Statement(QUERIES["statuses"], params, lambda rows: {row[0]: Status(row[1]) for row in rows})


def jobs(status: str | None, queue: str | None, task: str | None, limit: int) -> Statement[list[JobRow]]:
    """The latest jobs, newest first."""
    params = {"status": status, "queue": queue, "task": task, "limit": limit}
    return Statement(QUERIES["jobs"], params, lambda rows: [_job_row(row) for row in rows])


@dataclass(frozen=True, slots=True)
class Selection:
    """Jobs by what they have in common; None for any. age_s: enqueued at least so many seconds ago."""

    statuses: list[str]
    queue: str | None
    task: str | None
    age_s: float | None

    def params(self) -> dict[str, Any]:
        """As the queries take it."""
        return {"statuses": self.statuses, "queue": self.queue, "task": self.task, "age": self.age_s}


def count_jobs(chosen: Selection) -> Statement[dict[str, int]]:
    """How many there are of each status."""
    return Statement(QUERIES["count_jobs"], chosen.params(), lambda rows: {row[0]: row[1] for row in rows})


def select_jobs(chosen: Selection, after: UUID, limit: int) -> Statement[list[UUID]]:
    """The next ids after one, in order."""
    return Statement(QUERIES["select_jobs"], chosen.params() | {"after": str(after), "limit": limit}, _column)


def unrunnable() -> Statement[list[tuple[str, str, int]]]:
    """Rows of (task, reason, jobs) that no worker can run as things are."""
    return Statement(QUERIES["unrunnable"], {}, lambda rows: [(row[0], row[1], row[2]) for row in rows])


def failures(job_id: UUID) -> Statement[list[FailureRow]]:
    """The failed attempts of one job, first to last."""
    return Statement(QUERIES["failures"], {"id": str(job_id)}, lambda rows: [FailureRow(*row) for row in rows])


def queue_stats() -> Statement[Rows]:
    """How every queue stands."""
    return Statement(QUERIES["queue_stats"], {}, _rows)


def workers() -> Statement[Rows]:
    """The workers that count as alive."""
    return Statement(QUERIES["workers"], {}, _rows)


def throughput(minutes: int) -> Statement[dict[str, int]]:
    """What was handled in the last minutes, by status."""
    return Statement(QUERIES["throughput"], {"minutes": minutes}, lambda rows: {row[0]: row[1] for row in rows})


def schema_revision() -> Statement[tuple[str, str]]:
    """The revision that the tables are at, and the oldest one whose release works on them; empty where none is."""
    return Statement(QUERIES["schema_revision"], {}, lambda rows: (rows[0][0], rows[0][1]) if rows else ("", ""))
