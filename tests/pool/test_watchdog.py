"""When a worker counts as stuck, and how long a model that failed is left alone."""

import pytest

from emberd.pool.watchdog import Backoff, Patience, Watchdog

PATIENCE = Patience(pulse_s=1.0, max_backoff_s=60.0, max_failures=5)


class Processor:
    """Says how much processor time was used, and counts how often it is asked."""

    def __init__(self) -> None:
        self.used_s = 0.0
        self.asked = 0

    def __call__(self) -> float:
        """Return the processor time used so far."""
        self.asked += 1
        return self.used_s


def test_a_worker_without_frames_and_without_processor_time_stands_still() -> None:
    watchdog, processor = Watchdog(PATIENCE, 100.0), Processor()

    assert watchdog.still_s(100.5, None, processor) == 0.5
    assert watchdog.still_s(102.0, None, processor) == 2.0
    assert watchdog.still_s(130.0, None, processor) == 30.0


def test_whatever_is_new_shows_that_a_worker_is_alive() -> None:
    watchdog, processor = Watchdog(PATIENCE, 0.0), Processor()

    assert watchdog.still_s(10.0, "downloading 1 %", processor) == 0
    assert watchdog.still_s(10.5, "downloading 1 %", processor) == 0.5
    assert watchdog.still_s(11.0, "downloading 2 %", processor) == 0


def test_used_processor_time_shows_that_a_silent_worker_is_alive() -> None:
    watchdog, processor = Watchdog(PATIENCE, 0.0), Processor()

    for second in range(2, 40, 2):
        processor.used_s += 0.5
        assert watchdog.still_s(float(second), 7, processor) == 0


def test_less_than_a_tenth_of_a_second_is_what_a_hanging_process_uses_too() -> None:
    watchdog, processor = Watchdog(PATIENCE, 0.0), Processor()
    processor.used_s = 0.04

    assert watchdog.still_s(5.0, None, processor) == 5.0


def test_the_system_is_asked_once_per_pulse_however_many_frames_come() -> None:
    watchdog, processor = Watchdog(PATIENCE, 0.0), Processor()

    for frame in range(1000):
        watchdog.still_s(frame / 1000, frame, processor)
        watchdog.still_s(frame / 1000, frame, processor)
    assert processor.asked == 0
    for look in range(100):
        watchdog.still_s(2.5 + look / 1000, 999, processor)
    assert processor.asked == 1


def test_the_first_death_costs_nothing_and_each_further_one_twice_as_much() -> None:
    backoff = Backoff(PATIENCE)
    delays = []
    for _ in range(4):
        backoff.died()
        delays.append(backoff.restart_delay_s)

    assert delays == pytest.approx([0.0, 0.4, 0.8, 1.6])


def test_the_last_death_of_too_many_is_one_too_many() -> None:
    backoff = Backoff(PATIENCE)

    assert [backoff.died() for _ in range(5)] == [False, False, False, False, True]


def test_an_answer_ends_the_row_of_failures() -> None:
    backoff = Backoff(PATIENCE)
    for _ in range(4):
        backoff.died()
    backoff.worked()

    assert not backoff.died()
    assert backoff.restart_delay_s == 0


def test_a_model_that_failed_is_left_alone_for_longer_each_time_but_never_too_long() -> None:
    backoff = Backoff(PATIENCE)
    left_s = []
    for _ in range(8):
        backoff.gave_up(1000.0)
        left_s.append(backoff.left_s(1000.0))

    assert left_s == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.left_s(1059.0) == 1
    assert backoff.left_s(1061.0) < 0
