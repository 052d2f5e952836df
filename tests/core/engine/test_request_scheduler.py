import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglang_core.engine.request_scheduler import QueueEntry, QueueFullError, RequestScheduler

IDS = [f"{a}{b}" for a in string.ascii_lowercase for b in string.ascii_lowercase]
VIDEO, IMAGE = 400.0, 4.0  # seconds, once one unit of cost is one second


def learned(scheduler):
    """Return the scheduler having learned that one unit of cost takes one second."""
    probe = QueueEntry(id="probe", owner="probe")
    scheduler.finished(probe, 1.0)
    return scheduler


def entry(entry_id, cost=1.0, *, at=0.0, **values):
    return QueueEntry(id=entry_id, cost=cost, created_at=at, **values)


def drain(scheduler, now=0.0):
    """Pop and finish everything; return the ids in their order."""
    order = []
    while popped := scheduler.pop(now):
        (one,) = popped
        order.append(one.id)
        scheduler.finished(one)
    return order


FIELDS = ("owner", "cost", "priority", "created_at", "batch_key")
entries = st.lists(
    st.tuples(
        st.sampled_from([None, "a", "b", "c"]),
        st.integers(0, 1000),
        st.integers(-2, 2),
        st.integers(0, 500),
        st.sampled_from([None, "x", "y"]),
    ),
    max_size=20,
).map(lambda rows: [QueueEntry(id=IDS[i], **dict(zip(FIELDS, row, strict=True))) for i, row in enumerate(rows)])


@given(entries, st.integers(1, 5), st.lists(st.sampled_from(["add", "pop", 0.0, 3.0, None]), max_size=40))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_entry_comes_out_exactly_once(waiting, max_batch, steps):
    scheduler = RequestScheduler(100)
    seen, running, left = [], [], list(waiting)
    for now, step in enumerate([*steps, *["add"] * len(waiting), *["pop"] * len(waiting)]):
        if step == "add" and left:
            scheduler.add(left.pop())
        elif step == "pop":
            batch = scheduler.pop(float(now), max_batch)
            assert len(batch) <= max_batch
            assert len(batch) < 2 or (batch[0].batch_key is not None and len({one.batch_key for one in batch}) == 1)
            seen += [one.id for one in batch]
            running += batch
        elif running and step != "add":
            scheduler.finished(running.pop(), step)
    for one in running:
        scheduler.finished(one)

    assert sorted(seen) == sorted(one.id for one in waiting)
    assert scheduler.num_running == 0


@given(entries)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_positions_are_the_order_in_which_entries_are_popped(waiting):
    scheduler = learned(RequestScheduler(100))
    for one in waiting:
        scheduler.add(one)
    positions = {one.id: scheduler.position(one.id) for one in waiting}
    waits = {one.id: scheduler.wait_s(one.id, 0.0) for one in waiting}

    order = drain(scheduler)

    assert [positions[entry_id] for entry_id in order] == list(range(len(waiting)))
    assert [waits[entry_id] for entry_id in order] == sorted(waits.values())
    assert scheduler.position("gone") is None
    assert scheduler.wait_s("gone", 0.0) is None


@given(entries, st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_removing_an_entry_leaves_the_order_of_one_owner_as_it_was(waiting, data):
    scheduler = RequestScheduler(100)
    own = [one for one in waiting if one.owner == "a"]
    for one in own:
        scheduler.add(one)
    before = sorted((one.id for one in own), key=scheduler.position)
    if own:
        gone = data.draw(st.sampled_from(before))
        assert scheduler.remove(gone).id == gone
        assert scheduler.remove(gone) is None
        before.remove(gone)

    assert drain(scheduler) == before


def test_small_goes_before_large_of_the_same_owner():
    scheduler = learned(RequestScheduler(10))
    for i in range(3):
        scheduler.add(entry(f"video{i}", VIDEO, at=i))
    scheduler.add(entry("image", IMAGE, at=60.0))

    assert drain(scheduler) == ["image", "video0", "video1", "video2"]


def test_large_is_overtaken_only_for_as_long_as_its_patience():
    scheduler = learned(RequestScheduler(10, max_patience_s=100.0))
    scheduler.add(entry("video", VIDEO, at=0.0))
    popped, now, number = [], 0.0, 0
    while "video" not in popped:
        scheduler.add(entry(f"image{number}", IMAGE, at=now))  # always another small one
        number, now = number + 1, now + IMAGE
        (one,) = scheduler.pop(now)
        popped.append(one.id)
        scheduler.finished(one, one.cost)

    assert now <= 100.0 + 2 * IMAGE


@given(st.lists(st.tuples(st.floats(0.5, 30), st.floats(0.5, 30)), min_size=10, max_size=20))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_owners_who_always_wait_get_equal_shares(costs):
    scheduler = learned(RequestScheduler(10_000))
    for i, (ours, theirs) in enumerate(costs):
        scheduler.add(entry(f"a{i}", ours, owner="a", at=0.0))
        scheduler.add(entry(f"b{i}", theirs, owner="b", at=1e6))  # late, and yet no less
    served = {"a": 0.0, "b": 0.0}
    left = {"a": len(costs), "b": len(costs)}
    while all(left.values()):
        (one,) = scheduler.pop(0.0)
        served[one.owner] += one.cost
        left[one.owner] -= 1
        if all(left.values()):
            assert abs(served["a"] - served["b"]) <= 2 * 30
        scheduler.finished(one)


def test_shares_follow_the_weights():
    scheduler = learned(RequestScheduler(1000, weights={"a": 3.0}))
    for i in range(60):
        for owner in "ab":
            scheduler.add(entry(f"{owner}{i}", 2.0, owner=owner))

    first = drain(scheduler)[:40]

    assert sum(one.startswith("a") for one in first) == pytest.approx(30, abs=1)


def test_newcomer_goes_first_before_an_owner_with_a_long_queue_but_gains_nothing_by_pausing():
    scheduler = learned(RequestScheduler(1000))
    for i in range(50):
        scheduler.add(entry(f"a{i:02}", 10.0, owner="a", at=0.0))
    for _ in range(20):
        (one,) = scheduler.pop(0.0)
        scheduler.finished(one)
    for i in range(20):
        scheduler.add(entry(f"b{i:02}", 10.0, owner="b", at=200.0))

    order = drain(scheduler)[:20]

    assert order[0] == "b00" or order[1] == "b00"
    assert sum(one.startswith("b") for one in order) == 10


@given(st.integers(1, 20))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_owner_waits_longer_than_one_turn_of_every_other(num_others):
    scheduler = learned(RequestScheduler(10_000))
    for other in range(num_others):
        for i in range(30):
            scheduler.add(entry(f"o{other}-{i}", 5.0, owner=f"o{other}"))
    for _ in range(3):
        scheduler.finished(scheduler.pop(0.0)[0])
    scheduler.add(entry("mine", 5.0, owner="me", at=1e9))

    assert scheduler.position("mine") <= num_others


def test_priority_is_a_head_start_and_starves_nobody():
    scheduler = learned(RequestScheduler(1000, priority_s=60.0))
    scheduler.add(entry("plain", 10.0, owner="a"))
    for i in range(30):
        scheduler.add(entry(f"urgent{i:02}", 10.0, owner="b", priority=1))

    order = drain(scheduler)

    assert order[0] == "urgent00"
    assert 5 <= order.index("plain") <= 7


def test_compatible_entries_come_together_up_to_the_limit():
    scheduler = RequestScheduler(10)
    for i, key in enumerate(["x", "y", "x", None, "x", "x"]):
        scheduler.add(entry(f"e{i}", batch_key=key, at=i))

    assert [one.id for one in scheduler.pop(9.0, 3)] == ["e0", "e2", "e4"]
    assert [one.id for one in scheduler.pop(9.0, 3)] == ["e1"]
    assert [one.id for one in scheduler.pop(9.0, 3)] == ["e3"]
    assert [one.id for one in scheduler.pop(9.0, 3)] == ["e5"]
    assert scheduler.pop(9.0, 3) == []
    assert scheduler.num_running == 6


def test_batch_is_held_back_only_while_company_may_come():
    scheduler = RequestScheduler(10)
    assert scheduler.hold_s(0.0, 4, 1.0) == 0
    scheduler.add(entry("e0", batch_key="x", at=10.0))

    assert scheduler.hold_s(10.25, 4, 1.0) == pytest.approx(0.75)
    assert scheduler.hold_s(11.5, 4, 1.0) == 0
    assert scheduler.hold_s(10.25, 1, 1.0) == 0
    scheduler.add(entry("e1", batch_key="x", at=10.3))
    assert scheduler.hold_s(10.3, 2, 1.0) == 0
    alone = RequestScheduler(10)
    alone.add(entry("e0", at=10.0))
    assert alone.hold_s(10.0, 4, 1.0) == 0


def test_full_queue_says_when_to_come_back():
    scheduler = learned(RequestScheduler(2))
    scheduler.add(entry("a", 30.0))
    scheduler.pop(100.0)
    scheduler.add(entry("b", 30.0, at=101))
    scheduler.add(entry("c", 30.0, at=102))

    with pytest.raises(QueueFullError, match="2 requests are waiting") as full:
        scheduler.add(entry("d", 30.0, at=110.0))

    assert full.value.retry_after_s == 20
    assert full.value.remedy == "ask again later"
    assert len(scheduler) == 2
    with pytest.raises(QueueFullError) as late:
        scheduler.add(entry("d", 30.0), now=500.0)
    assert late.value.retry_after_s == 30


def test_one_key_cannot_fill_the_queue_of_all():
    scheduler = RequestScheduler(10, max_queue_per_owner=2)
    for i in range(2):
        scheduler.add(entry(f"a{i}", owner="a"))

    with pytest.raises(QueueFullError, match="2 requests of this API key are waiting") as full:
        scheduler.add(entry("a2", owner="a"))

    assert 1 <= full.value.retry_after_s <= 600
    scheduler.add(entry("b0", owner="b"))


def test_waiting_time_counts_what_runs_and_learns_from_what_ran():
    scheduler = RequestScheduler(10)
    running = entry("r", 10.0)
    scheduler.add(running)
    scheduler.finished(entry("old", 10.0), 20.0)  # two seconds a unit
    scheduler.pop(100.0)
    scheduler.add(entry("a", 10.0, at=101.0))
    scheduler.add(entry("b", 10.0, at=102.0))

    assert scheduler.wait_s("a", 105.0) == pytest.approx(15.0)
    assert scheduler.wait_s("b", 105.0) == pytest.approx(35.0)
    assert scheduler.wait_s("a", 500.0) == 0.0
    scheduler.finished(running, 60.0)
    assert scheduler.expected_s(10.0) > 20.0
    assert scheduler.wait_s("a", 105.0) == 0.0


def test_entry_that_comes_back_keeps_its_place():
    scheduler = learned(RequestScheduler(10))
    lost = entry("lost", 5.0, at=1.0)
    scheduler.add(lost)
    scheduler.pop(2.0)
    scheduler.add(entry("later", 5.0, at=3.0))
    with pytest.raises(ValueError, match="queued already"):
        scheduler.add(lost)
    scheduler.finished(lost)
    scheduler.add(lost)

    assert drain(scheduler) == ["lost", "later"]


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf")])
def test_cost_that_is_no_size_is_refused(cost):
    with pytest.raises(ValueError, match=r"finite|must be >= 0"):
        entry("a", cost)
