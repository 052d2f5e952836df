"""The thread of a job store: calls in order, errors to who asked, and no call lost."""

import asyncio
import threading

import pytest

from sglang_core.jobs.threads import SerialThread


def test_calls_come_one_after_the_other_in_order():
    async def scenario():
        thread, found, idents = SerialThread("store"), [], set()

        def note(index):
            idents.add(threading.get_ident())
            found.append(index)
            return index

        results = await asyncio.gather(*(thread.run(lambda index=index: note(index)) for index in range(50)))
        assert results == found == list(range(50))
        assert len(idents) == 1
        assert threading.get_ident() not in idents
        thread.close()

    asyncio.run(scenario())


def test_an_error_is_raised_to_who_asked_and_the_next_call_works():
    async def scenario():
        thread = SerialThread("store")

        def fail():
            raise OSError("the disk is full")

        with pytest.raises(OSError, match="the disk is full"):
            await thread.run(fail)
        assert await thread.run(lambda: "works") == "works"
        thread.close()

    asyncio.run(scenario())


def test_a_call_whose_caller_was_cancelled_is_made_all_the_same():
    async def scenario():
        thread, may_go_on, found = SerialThread("store"), threading.Event(), []
        first = thread.run(may_go_on.wait)
        second = thread.run(lambda: found.append("second"))
        second.cancel()
        may_go_on.set()
        assert await first
        await thread.run(lambda: None)
        assert found == ["second"]
        thread.close()

    asyncio.run(scenario())


def test_it_ends_when_it_is_closed_after_what_was_asked_before():
    async def scenario():
        thread, started = SerialThread("store of a test"), threading.Event()
        done = thread.run(started.wait)
        thread.close()
        started.set()
        assert await done
        for _ in range(100):
            if not any(each.name == "store of a test" for each in threading.enumerate()):
                return
            await asyncio.sleep(0.05)
        pytest.fail("the thread goes on")

    asyncio.run(scenario())


def test_it_works_after_it_was_closed_unused():
    async def scenario():
        thread = SerialThread("store")
        thread.close()
        assert await thread.run(lambda: "works") == "works"
        thread.close()

    asyncio.run(asyncio.wait_for(scenario(), 10))
