"""Which small requests may run in the middle of what runs, and how much of the time they may take."""

import pytest

from sglang_core.engine.interleaving import Interleaving
from sglang_core.engine.request_scheduler import QueueEntry, RequestScheduler

VIDEO, IMAGE = 400.0, 4.0


def entry(entry_id, cost=IMAGE, **values):
    return QueueEntry(id=entry_id, cost=cost, **values)


def running(*entries, now=0.0):
    interleaving = Interleaving()
    interleaving.begin(entries or [entry("video", VIDEO)], now)
    return interleaving


def test_nothing_is_interrupted_where_nothing_runs():
    interleaving = Interleaving()
    assert interleaving.room(entry("image")) == 0

    interleaving.begin([entry("video", VIDEO)], 0.0)
    interleaving.end()

    assert interleaving.room(entry("image")) == 0


def test_a_quarter_of_what_is_left_may_interrupt():
    interleaving = running()

    assert interleaving.room(entry("large", 101.0)) == 0
    assert interleaving.room(entry("small", 100.0)) == 1
    assert interleaving.room(entry("image", 25.0)) == 4
    interleaving.advance("video", 0.75)
    assert interleaving.room(entry("image", 25.0)) == 1
    assert interleaving.room(entry("image", 26.0)) == 0
    interleaving.advance("video", 0.5)  # progress never falls
    assert interleaving.room(entry("image", 26.0)) == 0


def test_of_a_batch_all_that_is_left_counts():
    interleaving = running(entry("a", 40.0), entry("b", 40.0))

    assert interleaving.room(entry("image", 20.0)) == 1
    interleaving.advance("a", 0.5)
    interleaving.advance("nobody", 1.0)
    assert interleaving.room(entry("image", 20.0)) == 0
    assert interleaving.room(entry("image", 15.0)) == 1


@pytest.mark.parametrize(
    "values",
    [{"runs_alone": True}, {"priority": -1}, {"state_key": "an adapter"}, {"cost": 0.0}],
    ids=["it must be alone", "lower priority", "another state of the pipeline", "of unknown size"],
)
def test_what_may_not_interrupt(values):
    assert running().room(entry("image", **{"cost": IMAGE, **values})) == 0


def test_nothing_interrupts_what_is_to_run_alone():
    assert running(entry("video", VIDEO, runs_alone=True)).room(entry("image")) == 0


def test_what_runs_has_as_long_for_itself_as_an_interruption_took():
    interleaving = running(now=10.0)

    assert interleaving.pause_s(10.0) == 0.0
    interleaving.interrupted(20.0, 23.0)
    assert interleaving.pause_s(24.0) == 2.0
    assert interleaving.pause_s(26.0) == 0.0


def test_a_stream_of_small_ones_takes_at_most_half_of_the_time():
    interleaving = running(entry("video", 10_000.0))
    now, own_s = 0.0, 0.0
    for _ in range(1000):
        assert interleaving.room(entry("image", 10.0))
        pause_s = interleaving.pause_s(now)
        own_s += pause_s
        began = now + pause_s
        now = began + 10.0
        interleaving.interrupted(began, now)

    assert own_s >= 0.499 * now


def waiting(*entries):
    scheduler = RequestScheduler(100)
    for each in entries:
        scheduler.add(each)
    return scheduler


def ids(entries):
    return [each.id for each in entries]


def test_the_first_small_one_passes_those_that_are_too_large_to_run_now():
    scheduler = waiting(
        entry("second video", VIDEO), entry("image", created_at=10_000.0), entry("later", created_at=2e4)
    )
    interleaving = running()

    assert scheduler.position("second video") == 0
    assert ids(scheduler.pop(0.0, 1, interleaving.room)) == ["image"]
    assert ids(scheduler.pop(0.0, 1, interleaving.room)) == ["later"]
    assert scheduler.pop(0.0, 1, interleaving.room) == []
    assert ids(scheduler.pop(0.0)) == ["second video"]


def test_none_passes_one_of_a_higher_priority():
    scheduler = waiting(entry("urgent video", VIDEO, priority=1), entry("image"), entry("urgent image", priority=1))

    assert ids(scheduler.pop(0.0, 1, running().room)) == ["urgent image"]
    assert scheduler.pop(0.0, 1, running().room) == []


def test_small_ones_keep_their_order_between_owners():
    scheduler = waiting(*(entry(f"{owner}{i}", owner=owner) for owner in ("a", "b") for i in range(2)))
    room = running().room

    order = [ids(scheduler.pop(0.0, 1, room))[0] for _ in range(4)]

    assert sorted(name[0] for name in order[:2]) == ["a", "b"]
    assert sorted(name[0] for name in order[2:]) == ["a", "b"]


def test_interruptions_are_charged_like_other_runs():
    scheduler = waiting(*(entry(f"a{i}", 100.0, owner="a") for i in range(3)), entry("b", VIDEO, owner="b"))
    scheduler.pop(0.0, 1, running().room)
    scheduler.pop(0.0, 1, running().room)

    assert ids(scheduler.pop(0.0)) == ["b"]  # who was passed over comes first when the work is over


def test_as_many_run_together_as_there_is_room_for():
    images = [entry(f"image {i}", 30.0, batch_key="k", created_at=float(i)) for i in range(5)]
    alone = entry("alone", 30.0, batch_key="k", runs_alone=True)
    scheduler = waiting(alone, *images)

    assert ids(scheduler.pop(0.0, 8, running().room)) == ["image 0", "image 1", "image 2"]
    assert len(scheduler) == 3


def test_holding_for_company_is_about_the_one_that_would_interrupt():
    scheduler = waiting(entry("video", VIDEO), entry("image", batch_key="k", created_at=10.0))

    assert scheduler.hold_s(10.5, 4, 2.0, running().room) == 1.5
    assert scheduler.hold_s(10.5, 4, 2.0, Interleaving().room) == 0.0


def test_who_may_interrupt_is_told_a_short_wait():
    scheduler = waiting(entry("video", VIDEO), entry("first", created_at=1e4), entry("second", created_at=2e4))
    scheduler.finished(entry("probe", 1.0), 1.0)
    room = running().room

    assert scheduler.wait_s("first", 0.0, room) == 0.0
    assert scheduler.wait_s("second", 0.0, room) == 2 * IMAGE
    assert scheduler.wait_s("video", 0.0, room) == scheduler.wait_s("video", 0.0)
    assert scheduler.wait_s("second", 0.0, Interleaving().room) > VIDEO
