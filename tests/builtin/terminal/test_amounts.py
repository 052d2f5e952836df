import pytest

from sglang_plugins_builtin.terminal.amounts import amount_text, bytes_text, count_text, seconds_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 s"), (3.24, "3.2 s"), (59.94, "59.9 s"), (59.96, "1:00"), (65.4, "1:05"), (3723, "1:02:03")],
)
def test_seconds_become_a_clock_after_a_minute(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (1.5e9, "1.5 GB"), (2e15, "2000.0 TB")],
)
def test_bytes_have_a_decimal_unit(num_bytes: float, text: str) -> None:
    assert bytes_text(num_bytes) == text


@pytest.mark.parametrize(
    ("unit", "done", "total", "text"),
    [
        ("step", 3, 20, "3/20 steps"),
        ("step", 1, 1, "1/1 step"),
        ("file", 2, None, "2 files"),
        ("component", 1, 5, "1/5 components"),
        ("byte", 1_000_000, 4_000_000, "1.0 MB/4.0 MB"),
        ("byte", 1_000_000, None, "1.0 MB"),
    ],
)
def test_count_says_how_far_a_stage_is(unit: str, done: int, total: int | None, text: str) -> None:
    assert count_text(unit, done, total) == text


def test_amount_counts_one_in_the_singular() -> None:
    assert [amount_text("file", number) for number in (1, 2)] == ["1 file", "2 files"]
