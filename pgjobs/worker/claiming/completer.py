"""Turns outcomes into statements, and finds out what became of those that did not come back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg

from pgjobs import statements
from pgjobs.connections import arrays
from pgjobs.connections.link import Link
from pgjobs.events import ClaimLost, Event, RaisedAfterCompletion, Recorded, Released, Trouble
from pgjobs.report import Child, Desk, Said
from pgjobs.running.outcome import ROLLED_BACK, Outcome, unstorable
from pgjobs.running.run import Claim
from pgjobs.statements import Recorded as RecordedIds
from pgjobs.statements import Statement

TOLD_AT_ONCE: Final = 200
"""Ids in one notification, whose payload is 8,000 bytes at most."""

UNSTORABLE = ("22", "23", "54")
"""Classes of SQLSTATE that say that a value cannot be stored: data exception, constraint violation, limit exceeded."""


class Completer:
    """Records outcomes through its claimer's link.

    An outcome is confirmed when its id comes back, or when a plain read shows that the job is no longer running under
    the claim. One whose row somebody holds is kept for the next cycle. A claim is forgotten, a cycle later, when all of
    its jobs are confirmed.
    """

    def __init__(self, emit: Callable[[Event], None], desk: Desk | None = None) -> None:
        self._emit = emit
        self._desk = desk or Desk()
        self._said: list[Said] = []
        self.followed: set[tuple[str, int]] = set()
        self._settled: list[Claim] = []

    def statements(self, outcomes: Sequence[Outcome]) -> list[Statement[Any]]:
        """What records the outcomes: one statement a kind, however many there are; before them what runs have said,
        after them what tells of them by webhook.

        What was said and not confirmed since, because the transaction failed, is said again.
        """
        recorded: list[Statement[Any]] = []
        if self._said:
            self._desk.put_back(self._said)
        self._said = [] if self._desk.is_empty else self._desk.take([outcome.run for outcome in outcomes])
        if self._said:
            recorded.append(statements.report(self._said))
        if good := [outcome for outcome in outcomes if outcome.ending == "succeeded"]:
            recorded.append(statements.complete(_success_columns(good)))
        if self._desk.parents and (children := _children(good)):
            recorded.append(statements.enqueue_children(children))
            self.followed = {(child.queue, child.priority) for _, child in children}
        if other := [outcome for outcome in outcomes if outcome.ending not in ("succeeded", "released")]:
            recorded.append(statements.settle(_settle_columns(other)))
        back = [outcome for outcome in outcomes if outcome.ending == "released"]
        for away_s in {outcome.delay_s for outcome in back}:
            runs = [outcome.run for outcome in back if outcome.delay_s == away_s]
            recorded.append(statements.release([run.claim.id for run in runs], [run.id for run in runs], away_s))
        if accounts := [(o.run.id, o.run.claim.id, *_account(o)) for o in other if o.account]:
            recorded.append(statements.account(accounts))
        if announcing := [run.id for run in (outcome.run for outcome in outcomes) if run.options and run.announces]:
            recorded.append(statements.announce(announcing))
        return recorded

    def forget(self) -> list[Statement[None]]:
        """What deletes the claims that are settled as a whole, if there are any."""
        claims = self.settled_claims()
        return [statements.forget_claims(claims)] if claims else []

    def settled_claims(self) -> list[UUID]:
        """Hands over the ids of the claims that are settled as a whole."""
        claims, self._settled = self._settled, []
        return [claim.id for claim in claims]

    def confirm(self, outcomes: Sequence[Outcome], results: Sequence[Any], link: Link) -> list[Outcome]:
        """Takes what came back; returns the outcomes that must be sent again."""
        if self._said:
            self._confirm_said(results[0])
        recorded = [result for result in results if isinstance(result, RecordedIds)]
        ids = {job_id for each in recorded for job_id in each.ids}
        if len(ids) == len(outcomes):
            missing: list[Outcome] = []
            back = list(outcomes)
        else:
            # An id does not say which of two runs of one job it is of: the one whose claim is lost, or the new one.
            runs = Counter(outcome.run.id for outcome in outcomes)
            back = [o for o in outcomes if o.run.id in ids and runs[o.run.id] == 1]
            missing = [o for o in outcomes if o.run.id not in ids or runs[o.run.id] > 1]
        kept, done_before = self._look_up(missing, link) if missing else ([], [])
        for outcome in back:
            self._settle(outcome)
        self._report(back, done_before)
        if channels := {channel for each in recorded for channel in each.channels}:
            _tell(channels, [*back, *done_before], link)
        return kept

    def _confirm_said(self, written: set[Any]) -> None:
        """Keeps what was to change a row that somebody holds; the lines are there."""
        said, self._said = self._said, []
        for each in said:
            each.lines.clear()
        self._desk.put_back(
            each for each in said if each.run.id not in written and (each.progress or each.meta or each.timeout_s)
        )

    def drop_unstorable(self, error: Exception) -> None:
        """Forgets what was said in a batch that cannot be stored: it may be to blame, and must not hold up the rest."""
        if self._said and is_unstorable(error):
            self._said = []

    def _look_up(self, missing: list[Outcome], link: Link) -> tuple[list[Outcome], list[Outcome]]:
        """Sorts outcomes that did not come back: kept (somebody holds the row), recorded before, or lost."""
        asked = statements.standing([o.run.id for o in missing], [o.run.claim.id for o in missing])
        rows = {row[:2]: row[2:] for row in link.one(asked)}
        kept: list[Outcome] = []
        before: list[Outcome] = []
        for outcome in missing:
            status, ours = rows.get((outcome.run.id, outcome.run.claim.id), (None, False))
            if ours and status == "running":
                kept.append(outcome)
                continue
            self._settle(outcome)
            if ours:
                before.append(_as_recorded(outcome, status))
                if status == "succeeded" and outcome.failure is not None and outcome.failure.exception != ROLLED_BACK:
                    self._emit(RaisedAfterCompletion(outcome.run, outcome.failure.traceback))
            elif outcome.ending != "released":
                self._emit(ClaimLost(outcome.run))
        return kept, before

    def _settle(self, outcome: Outcome) -> None:
        claim = outcome.run.claim
        outcome.run.settled = True
        if outcome.run.report is not None:
            claim.desk.close(outcome.run)
        claim.left -= 1
        if claim.left == 0:
            self._settled.append(claim)

    def _report(self, back: list[Outcome], before: list[Outcome]) -> None:
        released = Counter(outcome.delay_s is not None for outcome in back if outcome.ending == "released")
        for is_away, jobs in released.items():
            self._emit(Released(jobs, "they wait to run apart" if is_away else "stopped or not started"))
        done = [outcome for outcome in (*back, *before) if outcome.ending != "released"]
        if done:
            self._emit(Recorded(done))

    def record_apart(self, outcomes: Sequence[Outcome], link: Link) -> list[Outcome]:
        """Records a batch that failed as a whole: by halves, each in its own transaction, down to the one bad outcome.

        That one becomes a failure with the reason ``unstorable result``. Returns the outcomes that must be sent again.
        """
        try:
            recorded = link.batch(*self.statements(outcomes))
        except (psycopg.Error, UnicodeError) as error:
            if not is_unstorable(error):
                raise
            self.drop_unstorable(error)
            if len(outcomes) > 1:
                half = len(outcomes) // 2
                return [*self.record_apart(outcomes[:half], link), *self.record_apart(outcomes[half:], link)]
            bad = outcomes[0]
            if bad.reason == "unstorable result":
                self._emit(Trouble("claimer", error))
                return [bad]
            return self.record_apart([unstorable(bad.run, error, bad.seconds)], link)
        return self.confirm(outcomes, recorded, link)


def _children(outcomes: Sequence[Outcome]) -> list[tuple[tuple[UUID, UUID] | None, Child]]:
    return [
        (outcome.run.key, child) for outcome in outcomes if outcome.run.report for child in outcome.run.report.children
    ]


def _account(outcome: Outcome) -> tuple[str | None, str | None]:
    """What an attempt has used, as JSON, and written."""
    if (account := outcome.account) is None:
        return None, None
    return None if account.usage is None else json.dumps(account.usage), account.output


def _tell(channels: Iterable[str], outcomes: Sequence[Outcome], link: Link) -> None:
    """Tells those who wait which jobs have ended; after the commit, since NOTIFY holds others up until its own."""
    ended = [outcome.run.id.hex for outcome in outcomes if outcome.ending not in ("scheduled", "released")]
    payloads = [" ".join(ended[start : start + TOLD_AT_ONCE]) for start in range(0, len(ended), TOLD_AT_ONCE)]
    if payloads:
        link.peek(statements.tell(list(channels), payloads))


def is_unstorable(error: Exception) -> bool:
    """Whether a value is to blame, so that the other outcomes of the batch can be recorded without it."""
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        return error.sqlstate[:2] in UNSTORABLE
    return isinstance(error, psycopg.DataError | psycopg.ProgrammingError | UnicodeError)


def _as_recorded(outcome: Outcome, status: str) -> Outcome:
    """The outcome that the table shows, where it is another than ours: complete(session) recorded it."""
    if status == "succeeded" and outcome.ending != "succeeded":
        return Outcome(outcome.run, "succeeded", outcome.seconds)
    return outcome


def _success_columns(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    usages, outputs = None, None
    if any(outcome.account for outcome in outcomes):
        usages, outputs = map(arrays.texts, zip(*map(_account, outcomes), strict=True))
    return {
        "ids": arrays.uuids([outcome.run.id for outcome in outcomes]),
        "claims": arrays.uuids([outcome.run.claim.id for outcome in outcomes]),
        "results": arrays.texts([outcome.result for outcome in outcomes]),
        "waits": arrays.floats([outcome.wait_s for outcome in outcomes]),
        "seconds": arrays.floats([outcome.seconds for outcome in outcomes]),
        "usages": usages,
        "outputs": outputs,
    }


def _settle_columns(outcomes: Sequence[Outcome]) -> dict[str, list[Any]]:
    failures = [outcome.failure for outcome in outcomes]
    return {
        "ids": [outcome.run.id for outcome in outcomes],
        "claims": [outcome.run.claim.id for outcome in outcomes],
        "statuses": [outcome.ending for outcome in outcomes],
        "reasons": [outcome.reason for outcome in outcomes],
        "delays": [outcome.delay_s for outcome in outcomes],
        "refunds": [outcome.refund for outcome in outcomes],
        "crashes": [outcome.crash for outcome in outcomes],
        "waits": [outcome.wait_s for outcome in outcomes],
        "seconds": [outcome.seconds for outcome in outcomes],
        "exceptions": [failure and failure.exception for failure in failures],
        "messages": [failure and failure.message for failure in failures],
        "tracebacks": [failure and failure.traceback for failure in failures],
        "fingerprints": [failure and failure.fingerprint for failure in failures],
    }
