import pytest

from pipeline.throughput import Throughput


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def after(*arrivals: tuple[float, int], until: float) -> tuple[Throughput, Clock]:
    """With so many images at these seconds, seen at another."""
    clock = Clock()
    throughput = Throughput(clock=clock)
    for second, num_images in arrivals:
        clock.now_s = 1000 + second
        throughput.add({"num_images": num_images})
    clock.now_s = 1000 + until
    return throughput, clock


def test_before_anything_came_there_is_no_speed_and_no_eta():
    throughput, _ = after(until=0)
    assert throughput.per_s("num_images") == throughput.per_s_since_start("num_images") == 0
    assert throughput.eta_s("num_images", 10) is None


def test_first_minute_is_counted_from_the_start():
    throughput, _ = after((10, 4), (20, 6), until=20)
    assert throughput.per_s("num_images") == throughput.per_s_since_start("num_images") == 10 / 20


def test_later_only_the_last_minute_counts():
    throughput, _ = after((10, 600), (70, 30), (100, 30), until=120)
    assert throughput.per_s("num_images") == 60 / 60
    assert throughput.per_s_since_start("num_images") == 660 / 120
    assert throughput.of_window() == {"num_images": 60}


def test_speed_of_a_run_in_which_nothing_arrives_any_more_is_zero():
    throughput, _ = after((10, 5), until=71)
    assert throughput.per_s("num_images") == 0


def test_eta_is_what_is_left_at_the_speed_of_the_last_minute():
    throughput, _ = after((10, 600), (90, 30), until=120)
    assert throughput.eta_s("num_images", 45) == pytest.approx(90)
    assert throughput.eta_s("num_images", 0) == 0


def test_eta_of_a_minute_without_images_is_at_the_speed_since_the_start():
    throughput, _ = after((10, 100), until=200)
    assert throughput.eta_s("num_images", 50) == pytest.approx(100)


def test_memory_does_not_grow_with_what_arrives():
    throughput, _ = after(*((tenth / 10, 1) for tenth in range(5000)), until=500)
    assert len(throughput._history) <= 63
    assert throughput.per_s("num_images") == pytest.approx(10, abs=0.2)
    assert throughput.sums["num_images"] == 5000
