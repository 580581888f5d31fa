"""Which lanes are claimed from, in which order, and when their bounds may rise."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pgjobs.errors import OptionError
from pgjobs.statements import LOWEST, NO_BOUND, Range
from pgjobs.worker.claiming import lanes as module
from pgjobs.worker.claiming.lanes import FORGET_S, KEPT, NOTED, PATIENCE_S, REFRESH_S, SETTLE_S, Bound, Lanes
from pgjobs.worker.subscription import Subscription
from tests.unit.clock import Clock, set_by_hand

NAMES = st.from_regex(r"[a-z_*?][a-z0-9_.*?-]{0,9}", fullmatch=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_by_hand(module, monkeypatch)


def serving(queues: str) -> Lanes:
    return Lanes(Subscription.parse(queues))


def reading(lane: tuple[str, int], lowest: int | None, *, last: int | None = None, xmin: int = 1, xmax: int = 1) -> Any:
    """A row of the query; what lives was drawn, unless last says otherwise."""
    return (*lane, lowest, max(lowest or 0, 0) if last is None else last, xmin, xmax)


# -- subscriptions


@pytest.mark.parametrize(
    ("text", "patterns", "weights"),
    [
        ("mail", ("mail",), None),
        (" mail , default ,", ("mail", "default"), None),
        (["mail", "default"], ("mail", "default"), None),
        ("mail:3,default:1", ("mail", "default"), (3.0, 1.0)),
        ("mail:0.5, *:.5", ("mail", "*"), (0.5, 0.5)),
        ("a:b,c", ("a:b", "c"), None),
        ("a:b:2,c:1", ("a:b", "c"), (2.0, 1.0)),
        ("mail.*,bill?", ("mail.*", "bill?"), None),
    ],
)
def test_a_subscription_is_names_patterns_and_weights(text: Any, patterns: Any, weights: Any) -> None:
    subscription = Subscription.parse(text)
    assert (subscription.patterns, subscription.weights) == (patterns, weights)


@pytest.mark.parametrize(
    "text", ["", " , ", [], "a b", ":3", ".x", "a:3,b", "a,b:1", "a:0", "a:0.0,b:1", "a:-1", "a:+1", "a:1e3", "x" * 101]
)
def test_what_names_no_queues_is_refused(text: Any) -> None:
    with pytest.raises(OptionError):
        Subscription.parse(text)


@settings(deadline=None)
@given(
    st.lists(NAMES, min_size=1, max_size=4)
    | st.lists(st.tuples(NAMES, st.integers(1, 999)).map(lambda pair: f"{pair[0]}:{pair[1]}"), min_size=1, max_size=4)
)
def test_a_subscription_is_shown_as_it_is_written(parts: list[str]) -> None:
    assert str(Subscription.parse(parts)) == ",".join(parts)


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("mail,default", {"mail": 0, "default": 1, "other": None, "Mail": None, "mail.eu": None}),
        ("mail.*,*", {"mail.eu": 0, "mail": 1, "other": 1}),
        ("bill?", {"bills": 0, "bill": None, "billing": None}),
        ("*,mail", {"mail": 0}),
        ("Mail*", {"Mails": 0, "mails": None}),
    ],
)
def test_the_first_pattern_that_fits_ranks_a_queue(text: str, ranks: dict[str, int | None]) -> None:
    subscription = Subscription.parse(text)
    assert {queue: subscription.rank(queue) for queue in ranks} == ranks
    assert {queue: serving(text).serves(queue) for queue in ranks} == {q: rank is not None for q, rank in ranks.items()}


@pytest.mark.parametrize(
    ("text", "names", "flags"),
    [("a,b", ["a", "b"], ["a", "b"]), ("a,b*", ["a"], ["*"]), ("*", [], ["*"]), ("a?:1,c:2", ["c"], ["*"])],
)
def test_who_follows_a_pattern_is_told_of_every_queue(text: str, names: list[str], flags: list[str]) -> None:
    subscription = Subscription.parse(text)
    assert (subscription.names, subscription.flags) == (names, flags)


def test_without_weights_the_order_is_as_written() -> None:
    assert {tuple(Subscription.parse("b,a,c").order()) for _ in range(50)} == {(0, 1, 2)}


def test_weights_say_how_often_a_queue_comes_first() -> None:
    subscription = Subscription.parse("mail:3,default:1")
    firsts = Counter(subscription.order()[0] for _ in range(4000))
    assert 2800 < firsts[0] < 3200
    assert sorted(subscription.order()) == [0, 1]


# -- one bound


@pytest.mark.parametrize(
    ("age_s", "xmin", "low"),
    [
        (SETTLE_S * 0.9, 100, LOWEST),  # too young
        (SETTLE_S, 99, LOWEST),  # a transaction of its moment goes on
        (SETTLE_S, 100, 7),
        (PATIENCE_S, 99, LOWEST),
        (PATIENCE_S * 1.01, 99, 7),  # for all that is known it goes on for ever
    ],
)
def test_a_candidate_ripens_with_its_transactions_or_with_patience(age_s: float, xmin: int, low: int) -> None:
    bound = Bound(0.0)
    bound.note(0.0, 7, drawn=0, xmin=90, xmax=100)
    assert bound.low == LOWEST
    bound.note(age_s, 9, drawn=0, xmin=xmin, xmax=120)
    assert bound.low == low


def test_a_ripe_candidate_yields_to_a_lower_live_position() -> None:
    bound = Bound(0.0)
    bound.note(0.0, 7, drawn=0, xmin=90, xmax=100)
    bound.note(SETTLE_S, 5, drawn=0, xmin=100, xmax=120)
    assert bound.low == 5


def test_an_empty_lane_is_bounded_by_a_drawn_position() -> None:
    bound = Bound(0.0)
    bound.note(0.0, None, drawn=7, xmin=90, xmax=100)
    bound.note(SETTLE_S, None, drawn=9, xmin=100, xmax=120)
    assert (bound.low, bound.lowest) == (7, None)


def test_what_a_patient_bound_passed_over_is_late_once_the_transactions_of_that_moment_are_over() -> None:
    bound = Bound(0.0)
    bound.note(0.0, 50, drawn=0, xmin=90, xmax=100)  # 90 is open, and has drawn a position below 50
    bound.note(0.5, 60, drawn=0, xmin=90, xmax=110)
    assert (bound.low, bound.late) == (LOWEST, None)
    bound.note(PATIENCE_S * 1.1, 70, drawn=0, xmin=90, xmax=120)
    assert (bound.low, bound.late) == (50, None), "passed over, and not to be seen yet"
    bound.note(PATIENCE_S * 1.6, 80, drawn=0, xmin=90, xmax=130)
    assert (bound.low, bound.late) == (60, None)
    bound.note(PATIENCE_S * 1.7, 90, drawn=0, xmin=130, xmax=130)
    assert (bound.low, bound.late) == (80, LOWEST), "90 is over: whatever it has left is there now"


def test_what_lies_late_is_given_once(clock: Clock) -> None:
    lanes, lane = serving("default"), ("default", 0)
    lanes.refresh([reading(lane, 50, xmin=90, xmax=100)])
    clock.now += PATIENCE_S * 1.1
    lanes.refresh([reading(lane, 70, xmin=90, xmax=110)])
    assert lanes.late() == []
    lanes.refresh([reading(lane, 70, xmin=110, xmax=110)])
    assert lanes.late() == [Range(lane, LOWEST, 50)]
    clock.now += PATIENCE_S
    lanes.refresh([reading(lane, 90, xmin=120, xmax=120)])
    assert lanes.late() == []


def test_where_all_transactions_are_short_nothing_is_late() -> None:
    bound = Bound(0.0)
    for i in range(100):
        bound.note(i * REFRESH_S, 10 * i, drawn=0, xmin=10 * i, xmax=10 * i)
    assert bound.low > 900
    assert bound.late is None


READINGS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.01, 0.05, 0.099, 0.1, 0.3, 1.0, 1.1]),
        st.none() | st.integers(0, 50),
        st.integers(0, 50),
        st.integers(0, 20),
        st.integers(0, 20),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=300)
@given(READINGS)
def test_a_bound_rises_only_by_the_rules(readings: list[tuple[float, int | None, int, int, int]]) -> None:
    bound, now = Bound(0.0), 0.0
    candidates: list[tuple[float, int, int]] = []
    for later, lowest, drawn, xmin, running in readings:
        now, before = now + later, bound.low
        bound.note(now, lowest, drawn, xmin, xmin + running)
        assert bound.low >= before, "it fell"
        if bound.low > before:
            assert lowest is None or bound.low <= lowest, "it rose over a live position"
            assert any(
                bound.low <= position and ((now - noted >= SETTLE_S and xmin >= xmax) or now - noted > PATIENCE_S)
                for noted, xmax, position in candidates
            ), "nothing was ripe"
        candidates.append((now, xmin + running, drawn if lowest is None else lowest))


class World(RuleBasedStateMachine):
    """Transactions that draw positions now and commit later, none of them longer than a worker's patience."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.patch = mock.patch.object(module, "time", self.clock)
        self.patch.start()
        self.lanes = serving("default")
        self.last_position, self.next_xid, self.highest_low = 0, 1, LOWEST
        self.live: set[int] = set()
        self.open: dict[int, tuple[float, list[int]]] = {}

    def teardown(self) -> None:
        self.patch.stop()

    @property
    def low(self) -> int:
        return self.lanes.low(("default", 0))

    @rule(count=st.integers(1, 3))
    def enqueue(self, count: int) -> None:
        drawn = list(range(self.last_position + 1, self.last_position + count + 1))
        self.open[self.next_xid] = (self.clock.now, drawn)
        self.last_position += count
        self.next_xid += 1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        self.live.update(self.open.pop(data.draw(st.sampled_from(sorted(self.open))))[1])

    @rule(ahead=st.sampled_from([1, 1_000, NO_BOUND - 1_000_000]))
    def make_up(self, ahead: int) -> None:
        self.live.add(self.last_position + ahead)

    @precondition(lambda self: self.live)
    @rule(count=st.integers(1, 4))
    def claim(self, count: int) -> None:
        self.live -= set(sorted(position for position in self.live if position >= self.low)[:count])

    @rule(later=st.sampled_from([0.01, REFRESH_S, SETTLE_S, 0.3]))
    def refresh(self, later: float) -> None:
        self.clock.now += later
        for xid, (begun, _) in list(self.open.items()):
            if self.clock.now - begun > PATIENCE_S - 0.1:
                self.live.update(self.open.pop(xid)[1])
        lowest = min((position for position in self.live if position >= self.low), default=None)
        xmin = min(self.open, default=self.next_xid)
        row = reading(("default", 0), lowest, last=self.last_position, xmin=xmin, xmax=self.next_xid)
        self.lanes.refresh([row])

    @invariant()
    def no_live_position_is_below_the_bound(self) -> None:
        assert all(position >= self.low for position in self.live)

    @invariant()
    def the_bound_is_no_higher_than_what_was_drawn(self) -> None:
        assert self.low <= self.last_position

    @invariant()
    def the_bound_never_falls(self) -> None:
        assert self.low >= self.highest_low
        self.highest_low = self.low


World.TestCase.settings = settings(deadline=None, max_examples=100, stateful_step_count=40)
TestNoCommitIsMissed = World.TestCase


# -- all lanes


def test_an_empty_lane_rises_to_what_an_earlier_reading_saw_drawn(clock: Clock) -> None:
    lanes, lane = serving("default"), ("default", 0)
    lows = []
    for last in (10, 20, 30, 40):
        lanes.refresh([reading(lane, None, last=last)])
        clock.now += SETTLE_S * 1.01
        lows.append(lanes.low(lane))
    assert lows == [LOWEST, 0, 10, 20]


def test_a_position_that_was_never_drawn_raises_no_bound(clock: Clock) -> None:
    lanes, lane = serving("default"), ("default", 0)
    lows = []
    for last in (1, 10, 20, 30):
        lanes.refresh([reading(lane, NO_BOUND, last=last)])
        clock.now += SETTLE_S * 1.01
        lows.append(lanes.low(lane))
    assert lows == [LOWEST, 0, 1, 10]


def test_named_queues_are_asked_from_the_start(clock: Clock) -> None:
    assert serving("mail,bills*,default").preferred() == [("mail", 0), ("default", 0)]
    assert serving("*").preferred() == []


def test_lanes_that_have_jobs_are_met_once_and_only_if_served(clock: Clock) -> None:
    lanes = serving("mail.*")
    assert lanes.meet([("mail.eu", 5), ("other", 0)])
    assert not lanes.meet([("mail.eu", 5), ("other", 0)])
    assert lanes.meet([("mail.eu", 5), ("mail.us", 5)])
    assert lanes.preferred() == [("mail.eu", 5), ("mail.us", 5)]
    assert [lanes.low(lane) for lane in lanes.known] == [LOWEST, LOWEST]


def test_rank_goes_before_priority_and_priority_before_age(clock: Clock) -> None:
    lanes = serving("mail,*")
    positions = {("mail", 0): 50, ("a", 9): 40, ("b", 0): 20, ("c", 0): 10, ("d", 0): None, ("e", -1): 1}
    lanes.meet(positions)
    lanes.refresh([reading(lane, lowest) for lane, lowest in positions.items()])
    assert lanes.preferred() == [("mail", 0), ("a", 9), ("c", 0), ("b", 0), ("d", 0), ("e", -1)]


def test_weights_change_the_order_of_lanes(clock: Clock) -> None:
    lanes = serving("a:1,b:1")
    assert {tuple(lanes.preferred()) for _ in range(100)} == {
        (("a", 0), ("b", 0)),
        (("b", 0), ("a", 0)),
    }


@pytest.mark.parametrize("how", ["read", "met"])
def test_one_of_many_lanes_is_forgotten_when_it_has_long_been_empty(
    how: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    lanes, busy, idle = serving("default,*"), ("a", 0), ("b", 0)
    lanes.meet([busy, idle, ("default", 5)])
    clock.now += FORGET_S * 0.9
    if how == "met":
        lanes.meet([busy])
    lanes.refresh([reading(busy, 1 if how == "read" else None), reading(idle, None)])
    assert idle in lanes.preferred()
    clock.now += FORGET_S * 0.2
    lanes.refresh([reading(busy, None), reading(idle, None)])
    assert sorted(lanes.preferred()) == [busy, ("default", 0)]
    assert lanes.meet([idle])


def test_bounds_are_read_again_after_a_while(clock: Clock) -> None:
    lanes = serving("default")
    assert lanes.to_refresh(lanes.preferred()) == [Range(("default", 0))]
    lanes.refresh([])
    clock.now += REFRESH_S * 0.9
    assert not lanes.to_refresh(lanes.preferred())
    clock.now += REFRESH_S * 0.2
    assert lanes.to_refresh(lanes.preferred())


def test_of_many_lanes_the_first_and_in_turn_all_others_are_read(clock: Clock) -> None:
    lanes = serving("*")
    lanes.meet((f"queue{i}", 0) for i in range(10 * KEPT))
    preferred, read = lanes.preferred(), set()
    for _ in range(10):
        ranges = lanes.to_refresh(preferred)
        assert len(ranges) <= 2 * KEPT
        assert {lane for lane, _, _ in ranges} >= set(preferred[:KEPT])
        read |= {lane for lane, _, _ in ranges}
    assert read == set(preferred)


def test_a_reading_of_an_unknown_lane_is_ignored(clock: Clock) -> None:
    lanes = serving("default")
    lanes.refresh([reading(("gone", 0), 5)])
    assert lanes.preferred() == [("default", 0)]


def test_after_a_reset_every_lane_begins_anew(clock: Clock) -> None:
    lanes, known = serving("default,*"), [("default", 0), ("a", 3)]
    lanes.meet(known)
    for _ in range(3):
        lanes.refresh([reading(lane, 500, last=900) for lane in known])
        clock.now += SETTLE_S * 1.01
    assert [lanes.low(lane) for lane in known] == [500, 500]
    lanes.reset()
    assert [lanes.low(lane) for lane in known] == [LOWEST, LOWEST]
    for _ in range(3):
        lanes.refresh([reading(lane, None, last=7) for lane in known])
        clock.now += SETTLE_S * 1.01
    assert [lanes.low(lane) for lane in known] == [7, 7], "a position of the old server was kept"


# -- what lies below


def test_the_sweep_goes_down_in_steps_and_begins_again(clock: Clock) -> None:
    lanes, lane = serving("default"), ("default", 0)
    assert lanes.passed_over(100) == []
    lanes.adopt([Range(lane, 250)])
    steps = [lanes.passed_over(100) for _ in range(4)]
    first = Range(lane, LOWEST, 0)
    assert steps == [
        [Range(lane, 150, 250)],
        [Range(lane, 50, 150)],
        [Range(lane, 0, 50), first],
        [Range(lane, 150, 250)],
    ]
    assert lanes.passed_over(NO_BOUND) == [Range(lane, 0, 150), first]


def test_noted_bounds_are_adopted_where_they_are_higher_and_served(clock: Clock) -> None:
    lanes = serving("default,mail")
    lanes.adopt([Range(("default", 0), 70), Range(("mail", 5), 30), Range(("other", 0), 9)])
    lanes.adopt([Range(("default", 0), 50)])
    assert {lane: lanes.low(lane) for lane in lanes.known} == {("default", 0): 70, ("mail", 0): LOWEST, ("mail", 5): 30}


def test_a_bound_is_noted_when_it_has_risen_enough(clock: Clock) -> None:
    lanes, lane = serving("default"), ("default", 0)
    lanes.adopt([Range(lane, 5_000)])
    assert lanes.to_note() == [], "it is known from there"
    for lowest in (5_000 + NOTED - 1, 5_000 + NOTED):
        lanes.refresh([reading(lane, lowest)])
        clock.now += SETTLE_S * 1.1
        lanes.refresh([reading(lane, lowest)])
    assert lanes.to_note() == [Range(lane, 5_000 + NOTED)]
    assert lanes.to_note() == []
