import pytest

from sglang_core.server.rates import Rate, TokenBuckets, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [("60/minute", Rate(60, 60)), ("2/s", Rate(2, 1)), (" 5 / Hour ", Rate(5, 3600)), ("1/day", Rate(1, 86400))],
)
def test_rate_is_read(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "60", "0/s", "-1/s", "1/week", "1.5/s", "x/s", "1/ms", "9999999999/s"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(ValueError, match="60/minute"):
        parse_rate(text)


def test_bucket_empties_and_fills_up_again():
    now = 0.0
    buckets = TokenBuckets(lambda: now)
    rate = Rate(2, 10)

    assert [buckets.take("a", rate) for _ in range(3)] == [0, 0, 5.0]
    assert buckets.take("b", rate) == 0
    now = 5.0
    assert [buckets.take("a", rate) for _ in range(2)] == [0, 5.0]
    now = 1000.0
    assert [buckets.take("a", rate) for _ in range(3)] == [0, 0, 5.0]


def test_clients_without_end_take_no_memory_without_end():
    buckets = TokenBuckets(lambda: 0.0)
    for number in range(20_000):
        buckets.take(str(number), Rate(1, 1))

    assert len(buckets._buckets) == 10_000
