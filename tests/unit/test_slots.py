"""A claimed job waits, runs or is finished: in one place at a time, and no more run than there are slots."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgjobs.job import new_id
from pgjobs.running.outcome import Outcome, released
from pgjobs.running.run import Claim, Run
from pgjobs.worker.board import Board
from pgjobs.worker.claiming import slots as module
from pgjobs.worker.claiming.slots import BREATH_S, BUFFER_S, FLUSH_S, MAX_BUFFER, STALE_S, Slots
from tests.unit.clock import Clock, set_by_hand

KINDS = st.sampled_from(["thread", "async"])


class Executor:
    """Starts nothing, and says what it was asked to."""

    def __init__(self) -> None:
        self.started: list[Run] = []

    def start(self, run: Run) -> None:
        self.started.append(run)

    def cancel(self, run: Run) -> None:
        run.cancelled = True


def a_run(received: float, kind: str = "thread", timeout_s: float | None = None) -> Run:
    row: tuple[Any, ...] = (
        new_id(),
        "t",
        "default",
        0,
        1,
        5,
        0,
        timeout_s,
        datetime(2027, 1, 31, tzinfo=UTC),
        {},
        None,
        None,
    )
    run = Run(row, Claim(new_id(), 1), received, "pgjobs")
    run.executor = kind
    return run


def succeeded(run: Run) -> Outcome:
    return Outcome(run, "succeeded", 0.1)


class Life(RuleBasedStateMachine):
    """What a worker does to its slots, beside a list for each place that a run can be in."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.patch = mock.patch.object(module, "time", self.clock)
        self.patch.start()
        self.executors = {"thread": Executor(), "async": Executor()}
        self.waiting: deque[Run] = deque()
        self.running: list[Run] = []
        self.finished: list[Outcome] = []
        self.taken: list[Outcome] = []

    def teardown(self) -> None:
        self.patch.stop()

    @initialize(count=st.integers(1, 4))
    def open(self, count: int) -> None:
        self.slots = Slots(count, lambda: None)
        self.slots.serve(self.executors)

    def seat(self) -> None:
        """Takes what was started, which must be what stands first."""
        while len(self.running) < self.slots.count and self.waiting:
            run = self.waiting.popleft()
            assert self.executors[run.executor].started.pop(0) is run
            self.running.append(run)
        assert not any(executor.started for executor in self.executors.values())

    @rule(kinds=st.lists(KINDS, max_size=4))
    def add(self, kinds: list[str]) -> None:
        runs = [a_run(self.clock.now, kind) for kind in kinds]
        self.waiting.extend(runs)
        self.slots.add(runs)
        self.seat()

    @rule(kinds=st.lists(KINDS, max_size=4), late=st.sampled_from([0.0, STALE_S]))
    def add_first(self, kinds: list[str], late: float) -> None:
        runs = [a_run(self.clock.now - late, kind) for kind in kinds]
        for run in runs:
            run.ready = self.clock.now
        self.waiting.extendleft(reversed(runs))
        self.slots.add_first(runs)
        self.seat()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.running))
        outcome = succeeded(run)
        following = self.slots.finish(outcome, run.executor)
        self.running.remove(run)
        self.finished.append(outcome)
        if self.waiting and self.waiting[0].executor == run.executor:
            assert following is self.waiting.popleft()
            self.running.append(following)
        else:
            assert following is None
        self.seat()

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def finish_again(self, data: st.DataObject) -> None:
        late = data.draw(st.sampled_from(self.taken))
        assert self.slots.finish(late, late.run.executor) is None

    @rule()
    def take_finished(self) -> None:
        assert self.slots.take_finished() == self.finished
        self.taken += self.finished
        self.finished = []

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        returned = self.taken[data.draw(st.integers(0, len(self.taken) - 1)) :]
        del self.taken[-len(returned) :]
        self.slots.put_back(returned)
        self.finished = returned + self.finished

    @rule()
    def take_stale(self) -> None:
        is_stale = bool(self.waiting) and self.clock.now - self.waiting[0].ready >= STALE_S
        stale = self.slots.take_stale()
        assert stale == (list(self.waiting) if is_stale else [])
        back = [released(run) for run in stale]
        self.slots.put_back(back)
        self.finished = back + self.finished
        if is_stale:
            self.waiting.clear()

    @rule()
    def take_waiting(self) -> None:
        assert self.slots.take_waiting() == list(self.waiting)
        self.waiting.clear()

    @rule(later=st.sampled_from([0.0, 0.001, 0.1, STALE_S]))
    def wait(self, later: float) -> None:
        self.clock.now += later

    @invariant()
    def every_run_is_where_it_belongs(self) -> None:
        assert self.slots.waiting == len(self.waiting)
        assert set(self.slots.running) == set(self.running)
        assert self.slots.empty == (not (self.waiting or self.running or self.finished))

    @invariant()
    def every_running_job_has_a_slot_of_its_own(self) -> None:
        held = [run.slot for run in self.slots.running]
        assert len(held) == len(set(held)) <= self.slots.count
        assert set(held) <= set(range(self.slots.count))

    @invariant()
    def no_slot_is_free_while_a_job_waits(self) -> None:
        assert not self.slots.waiting or len(self.slots.running) == self.slots.count

    @invariant()
    def no_more_is_claimed_than_slots_and_buffer_hold(self) -> None:
        held = len(self.waiting) + len(self.running)
        assert 0 <= self.slots.buffer <= MAX_BUFFER
        assert 0 <= self.slots.room() <= max(0, self.slots.count + self.slots.buffer - held)

    @invariant()
    def outcomes_are_recorded_within_a_moment(self) -> None:
        rest = self.slots.flush_in_s()
        assert (rest is None) == (not self.finished)
        assert rest is None or 0 <= rest <= FLUSH_S


Life.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
TestEveryRunIsInOnePlace = Life.TestCase


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_by_hand(module, monkeypatch)


def opened(count: int, board: Board | None = None) -> tuple[Slots, Executor, list[int]]:
    """Slots, their executor, and a list that grows by one whenever the claimer is called."""
    calls: list[int] = []
    slots, executor = Slots(count, lambda: calls.append(1), board), Executor()
    slots.serve({"thread": executor, "async": executor})
    return slots, executor, calls


def work_fast(slots: Slots, clock: Clock) -> None:
    """Does a job a millisecond, so that the slots learn to claim ahead and to record many outcomes together."""
    for _ in range(5):
        slots.add([a_run(clock.now)])
        slots.take_finished()
        clock.now += 0.001
        slots.finish(succeeded(slots.running[0]), "thread")
    slots.take_finished()


def test_a_worker_without_work_has_room_for_its_slots(clock: Clock) -> None:
    slots, _, _ = opened(3)
    assert slots.room() == 3
    slots.add([a_run(clock.now)])
    assert slots.room() == 2
    slots.add([a_run(clock.now) for _ in range(4)])
    assert slots.room() == 0


def test_a_worker_that_is_fast_claims_ahead_and_one_with_stale_jobs_no_longer(clock: Clock) -> None:
    slots, _, _ = opened(1)
    work_fast(slots, clock)
    slots.add([a_run(clock.now)])
    assert 80 <= slots.buffer <= 100, "a job takes a millisecond, and 100 ms are claimed ahead"
    assert slots.room() == 1 + slots.buffer // 2, "one half runs while the other one is claimed"
    slots.add([a_run(clock.now)])
    clock.now += STALE_S
    assert len(slots.take_stale()) == 1
    assert slots.buffer == 0


def test_the_claimer_is_called_for_the_first_outcome_and_when_nothing_runs_any_more(clock: Clock) -> None:
    slots, _, calls = opened(3)
    work_fast(slots, clock)
    calls.clear()
    runs = [a_run(clock.now) for _ in range(3)]
    slots.add(runs)
    assert not calls
    told = []
    for run in runs:
        slots.finish(succeeded(run), "thread")
        told.append(len(calls))
    assert told == [1, 1, 2]


def test_outcomes_wait_for_others_only_while_something_runs(clock: Clock) -> None:
    slots, _, _ = opened(2)
    work_fast(slots, clock)
    runs = [a_run(clock.now) for _ in range(2)]
    slots.add(runs)
    assert slots.flush_in_s() is None
    slots.finish(succeeded(runs[0]), "thread")
    clock.now += FLUSH_S / 4
    assert slots.flush_in_s() == pytest.approx(FLUSH_S * 3 / 4)
    slots.finish(succeeded(runs[1]), "thread")
    assert slots.flush_in_s() == 0


def test_a_job_for_another_executor_is_started_there(clock: Clock) -> None:
    slots, executor, _ = opened(1)
    first, second, third = a_run(clock.now), a_run(clock.now, "async"), a_run(clock.now)
    slots.add([first, second, third])
    assert slots.finish(succeeded(first), "thread") is None
    assert executor.started == [first, second]
    assert slots.finish(succeeded(second), "async") is None
    assert executor.started == [first, second, third]


def test_what_was_abandoned_can_no_longer_finish(clock: Clock) -> None:
    slots, _, calls = opened(2)
    deaf, other = a_run(clock.now), a_run(clock.now)
    slots.add([deaf, other])
    assert set(slots.abandon()) == {deaf, other}
    assert slots.finish(succeeded(deaf), "thread") is None
    assert slots.take_finished() == []
    assert slots.empty
    assert not calls
    slots.add([a_run(clock.now), a_run(clock.now)])
    assert {run.slot for run in slots.running} == {0, 1}


def test_all_that_is_held_can_be_dropped(clock: Clock) -> None:
    slots, _, _ = opened(1)
    runs = [a_run(clock.now) for _ in range(3)]
    slots.add(runs)
    slots.finish(succeeded(runs[0]), "thread")
    slots.drop()
    assert (slots.empty, slots.room(), slots.flush_in_s()) == (True, 1, None)
    slots.add([runs[2]])
    assert slots.running == [runs[2]]


def test_released_jobs_do_not_count_as_done(clock: Clock) -> None:
    slots, _, _ = opened(2)
    runs = [a_run(clock.now) for _ in range(2)]
    slots.add(runs)
    slots.finish(succeeded(runs[0]), "thread")
    slots.finish(released(runs[1]), "thread")
    assert len(slots.take_finished()) == 2
    assert slots.done == 1


def test_the_board_shows_who_holds_a_slot(clock: Clock) -> None:
    board = Board(2)
    slots, _, _ = opened(2, board)
    first, second, third = a_run(clock.now, timeout_s=5), a_run(clock.now), a_run(clock.now)
    slots.add([first, second, third])
    assert board.begun() == [], "a slot does not make a beginning"
    for run in (first, second, third):
        slots.began(run)
    assert set(board.begun()) == {first.id, second.id}
    assert slots.finish(succeeded(first), "thread") is third
    assert board.begun() == [second.id]
    slots.began(third)
    assert set(board.begun()) == {third.id, second.id}
    slots.finish(succeeded(third), "thread")
    assert board.begun() == [second.id]
    slots.abandon()
    assert board.begun() == []
    board.close()


def test_a_batch_that_has_ended_before_anybody_looks_is_measured_too(clock: Clock) -> None:
    """Else a worker whose jobs are tiny claims no more than its slots hold, again and again."""
    slots, _, _ = opened(16)
    clock.now += 100  # idle time does not count
    for _ in range(3):
        runs = [a_run(clock.now) for _ in range(16)]
        slots.add(runs)
        clock.now += 0.001
        for run in runs:
            slots.finish(succeeded(run), "thread")
        slots.take_finished()
        clock.now += 5
    assert slots.buffer == pytest.approx(16_000 * BUFFER_S, rel=0.05)


class Failing(Executor):
    """Cannot start anything."""

    def start(self, run: Run) -> None:
        raise RuntimeError("can't start new thread")


def test_a_job_that_cannot_be_started_goes_back_and_leaves_its_slot_to_others(clock: Clock) -> None:
    slots, executor, calls = opened(1)
    slots.serve({"thread": Failing(), "async": executor})
    slots.add([a_run(clock.now), good := a_run(clock.now, "async")])
    assert executor.started == [good]
    (outcome,) = slots.take_finished()
    assert (outcome.ending, outcome.reason, outcome.delay_s, outcome.refund) == (
        ("scheduled", "cannot be started: can't start new thread", None, 1)
    )
    assert calls
    assert slots.finish(succeeded(good), "async") is None
    assert slots.room() == 0, "it leaves the next ones to other workers for a moment"
    clock.now += BREATH_S
    assert slots.room() > 0


def test_the_claimer_is_called_where_a_job_cannot_be_started_after_another_one(clock: Clock) -> None:
    slots, executor, calls = opened(2)
    work_fast(slots, clock)
    slots.serve({"thread": Failing(), "async": executor})
    first, second = a_run(clock.now, "async"), a_run(clock.now, "async")
    slots.add([first, second, a_run(clock.now)])
    calls.clear()
    slots.finish(succeeded(first), "async")
    assert calls
    assert [outcome.ending for outcome in slots.take_finished()] == ["succeeded", "scheduled"]
