"""Ends of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from pgjobs.statements.query import QUERIES, Rows, Statement, column, nothing, rows


class Recorded(NamedTuple):
    """The jobs whose outcomes were recorded, and the channels of those who wait for results."""

    ids: list[Any]
    channels: list[str]


def _recorded(rows: Rows) -> Recorded:
    ids = [row[0] for row in rows if row[1] is None]
    return Recorded(ids, [row[1] for row in rows[len(ids) :]] if len(ids) < len(rows) else [])


def complete(columns: Mapping[str, Any]) -> Statement[Recorded]:
    """Records successes (ids, claims, results, waits, seconds; usages and outputs, or None where no job has any)."""
    return Statement(QUERIES["complete"], {"usages": None, "outputs": None, **columns}, _recorded, keeps_plan=True)


def settle(columns: Mapping[str, Sequence[Any]]) -> Statement[Recorded]:
    """Records every other end of an attempt."""
    return Statement(QUERIES["settle"], columns, _recorded, keeps_plan=True)


def account(accounts: Sequence[tuple[UUID, UUID, str | None, str | None]]) -> Statement[Recorded]:
    """Keeps what attempts that did not succeed have used and written: rows of (id, claim, usage as JSON, output)."""
    columns = zip(*accounts, strict=True)
    params = {name: list(column) for name, column in zip(("ids", "claims", "usages", "outputs"), columns, strict=True)}
    return Statement(QUERIES["account"], params, lambda rows: Recorded([], []), keeps_plan=True)


def complete_within(job_id: UUID, claim_id: UUID, result: str | None, duration_s: float) -> Statement[bool]:
    """Records a success in the caller's transaction; returns whether the claim still held."""
    params = {"id": str(job_id), "claim": str(claim_id), "result": result, "seconds": duration_s}
    return Statement(QUERIES["complete_within"], params, bool)


def standing(ids: Sequence[Any], claims: Sequence[Any]) -> Statement[Rows]:
    """Rows of (id, claim, status, whether the job is still under that claim)."""
    return Statement(QUERIES["standing"], {"ids": list(ids), "claims": list(claims)}, rows)


def forget_claims(claims: Sequence[Any]) -> Statement[None]:
    """Deletes claims that are settled as a whole."""
    return Statement(QUERIES["forget_claims"], {"claims": list(claims)}, nothing, keeps_plan=True)


def begin_suspects(ids: Sequence[Any], claims: Sequence[Any]) -> Statement[set[tuple[UUID, UUID]]]:
    """Says that suspects begin; returns job and claim of those whose rows could be written."""
    params = {"ids": list(ids), "claims": list(claims)}
    return Statement(QUERIES["begin_suspects"], params, lambda rows: {(row[0], row[1]) for row in rows})


def release(claims: Sequence[Any], ids: Sequence[Any], away_s: float | None = None) -> Statement[Recorded]:
    """Gives jobs back to their old places, in away_s seconds if given; nobody waits for that."""
    runs = [f"{claim} {job_id}" for claim, job_id in zip(claims, ids, strict=True)]
    params = {"claims": list(claims), "runs": runs, "away": away_s}
    return Statement(QUERIES["release"], params, lambda rows: Recorded(column(rows), []))
