"""The lease: the executor's always ends first, a new leader gives a full one, and who was given up stays given up."""

from hypothesis import given
from hypothesis import strategies as st

from raftd.scheduler.lease import LeaseBook, LeasePolicy, executor_deadline_ms

POLICY = LeasePolicy(lease_ms=6_000, drift_permille=10, margin_ms=500)
N1, N2 = ("n1", 1), ("n2", 1)


def test_the_leader_waits_for_lease_drift_and_margin() -> None:
    assert POLICY.leader_lease_ms == 6_000 + 60 + 500
    assert LeasePolicy(lease_ms=6_001, drift_permille=1, margin_ms=0).leader_lease_ms == 6_008
    assert POLICY.heartbeat_ms == 2_000


@given(
    sent_ms=st.integers(0, 10**9),
    travel_ms=st.integers(0, 10**6),
    lease_ms=st.integers(1, 10**6),
    drift_permille=st.integers(0, 50),
)
def test_the_executor_stops_before_its_lease_can_be_given_away(
    sent_ms: int, travel_ms: int, lease_ms: int, drift_permille: int
) -> None:
    """In real time, with the executor's clock slow and the leader's fast by half of the allowed drift each."""
    policy = LeasePolicy(lease_ms, drift_permille, margin_ms=0)
    # An interval that the executor measures as lease_ms may really last lease_ms * (1 + drift) of the leader's clock.
    ended_at = (executor_deadline_ms(sent_ms, lease_ms) - sent_ms) * (1000 + drift_permille) / 1000
    given_away_at = travel_ms + policy.leader_lease_ms
    assert ended_at <= given_away_at


def test_a_new_leader_gives_every_node_its_full_lease() -> None:
    book = LeaseBook(POLICY, [N1, N2], now_ms=100_000)
    assert book.expired(100_000 + POLICY.leader_lease_ms) == ()
    assert book.expired(100_000 + POLICY.leader_lease_ms + 1) == (N1, N2)


def test_a_lease_counts_from_when_the_heartbeat_was_received_not_from_when_the_quorum_answered() -> None:
    book = LeaseBook(POLICY, [N1], now_ms=0)
    assert book.renew(N1, received_ms=1_000)
    assert book.deadline_ms(N1) == 1_000 + POLICY.leader_lease_ms


def test_a_heartbeat_that_was_overtaken_shortens_nothing() -> None:
    book = LeaseBook(POLICY, [N1], now_ms=0)
    book.renew(N1, received_ms=2_000)
    book.renew(N1, received_ms=1_000)
    assert book.deadline_ms(N1) == 2_000 + POLICY.leader_lease_ms


def test_a_stall_of_the_leaders_loop_lengthens_every_lease() -> None:
    book = LeaseBook(POLICY, [N1, N2], now_ms=0)
    book.stalled(3_000)
    assert book.expired(POLICY.leader_lease_ms + 3_000) == ()
    assert book.expired(POLICY.leader_lease_ms + 3_001) == (N1, N2)
    book.renew(N1, received_ms=10_000)
    assert book.deadline_ms(N1) == 10_000 + POLICY.leader_lease_ms


def test_a_node_that_was_given_up_is_never_renewed() -> None:
    book = LeaseBook(POLICY, [N1], now_ms=0)
    book.give_up(N1)
    assert not book.renew(N1, received_ms=1)
    book.grant(N1, now_ms=1)
    assert book.deadline_ms(N1) == POLICY.leader_lease_ms
    again = ("n1", 2)
    book.grant(again, now_ms=50)
    assert book.renew(again, received_ms=60)


def test_a_node_without_a_lease_is_not_renewed_and_a_forgotten_one_does_not_expire() -> None:
    book = LeaseBook(POLICY, [N1], now_ms=0)
    assert not book.renew(N2, received_ms=1)
    book.forget(N1)
    assert book.deadline_ms(N1) is None
    assert book.expired(10**9) == ()


def test_a_lease_that_was_granted_after_an_early_look_still_expires() -> None:
    book = LeaseBook(POLICY, [], now_ms=0)
    assert book.expired(10**6) == ()
    book.grant(N1, now_ms=10**6)
    assert book.expired(10**6 + POLICY.leader_lease_ms + 1) == (N1,)


@given(st.lists(st.tuples(st.sampled_from((N1, N2)), st.integers(0, 5_000)), max_size=30))
def test_looking_early_and_often_finds_the_same_as_looking_once(
    beats: list[tuple[tuple[str, int], int]],
) -> None:
    often = LeaseBook(POLICY, [N1, N2], now_ms=0)
    once = LeaseBook(POLICY, [N1, N2], now_ms=0)
    now_ms = 0
    for node, pause_ms in beats:
        now_ms += pause_ms
        late = often.expired(now_ms)
        deadlines = [(other, once.deadline_ms(other)) for other in (N1, N2)]
        assert late == tuple(other for other, end_ms in deadlines if end_ms is not None and end_ms < now_ms)
        often.renew(node, now_ms)
        once.renew(node, now_ms)
