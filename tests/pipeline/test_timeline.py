"""The course of a run in few points."""

from pipeline.timeline import MAX_POINTS, Timeline


def test_course_of_a_long_run_has_few_points_and_keeps_its_ends():
    timeline = Timeline(["num_images"])
    for second in range(1, 100_001):
        timeline.add(float(second), {"num_images": 2 * second})
    found = timeline.as_dict()
    times = found["elapsed_s"]
    assert len(times) <= MAX_POINTS
    assert (times[0], times[-1], found["num_images"][-1]) == (0.0, 100_000.0, 200_000.0)
    assert times == sorted(times)
    assert all(images == 2 * second for second, images in zip(times, found["num_images"], strict=True))


def test_receipts_of_one_second_are_one_point():
    timeline = Timeline(["num_images"])
    for tenth in range(1, 31):
        timeline.add(tenth / 10, {"num_images": tenth})
    assert len(timeline.as_dict()["elapsed_s"]) <= 6
    assert timeline.as_dict()["num_images"][-1] == 30


def test_run_that_has_labelled_nothing_has_no_course():
    assert Timeline(["num_images"]).as_dict() == {}
