"""Which texts of a dataset came before: as a set of Python would say, in 8 bytes a text."""

import random
from collections import Counter

import numpy as np

from pipeline.seen_texts import RepeatedText, SeenTexts, digest_of_text


def fed(texts: list[str], batch: int, seen: SeenTexts | None = None) -> tuple[SeenTexts, list[bool]]:
    seen = seen or SeenTexts()
    repeats: list[bool] = []
    for start in range(0, len(texts), batch):
        some = texts[start : start + batch]
        repeats += seen.add(np.array([digest_of_text(text) for text in some], dtype=np.uint64), some).tolist()
    return seen, repeats


def test_first_of_its_kind_keeps_its_place_and_later_ones_repeat_it():
    for batch in (1, 2, 100):
        assert fed(["a dog", "a cat", "a dog", "a dog", "a cow"], batch)[1] == [False, False, True, True, False]


def test_texts_that_differ_in_case_spaces_and_punctuation_are_the_same():
    assert digest_of_text("A red  bus.") == digest_of_text("a red bus") != digest_of_text("a red car")


def test_question_is_part_of_the_text_and_not_run_together_with_it():
    assert digest_of_text("How many?", "Three.") != digest_of_text("How old?", "Three.")
    assert digest_of_text("a b", "c") != digest_of_text("a", "b c")


def test_texts_of_punctuation_alone_are_told_apart():
    assert digest_of_text("???") != digest_of_text("---")


def test_random_texts_are_found_as_a_set_finds_them():
    draw = random.Random(3)
    texts = [f"text {draw.randrange(3000)}" for _ in range(8000)]
    known: set[str] = set()
    expected = [text in known or known.add(text) is not None for text in texts]
    for batch in (7, 512, 8000):
        assert fed(texts, batch)[1] == expected


def test_a_million_different_texts_take_eight_bytes_each_and_few_runs():
    seen, draw = SeenTexts(), np.random.default_rng(5)
    for _ in range(100):
        digests = draw.integers(0, 2**64, 10_000, dtype=np.uint64)
        assert not seen.add(digests, [""] * 10_000).any()
    assert seen.num_bytes == 8_000_000
    assert len(seen._runs) <= 8


def test_most_repeated_texts_come_with_all_their_counts():
    texts = [f"text {n}" for n in range(40) for _ in range(n + 1)]
    random.Random(1).shuffle(texts)
    seen, _ = fed(texts, 50)
    assert seen.most_repeated(2) == (RepeatedText(text="text 39", count=40), RepeatedText(text="text 38", count=39))
    assert seen.num_repeated == len(texts) - 40


def test_frequent_text_is_found_among_more_repeated_ones_than_are_counted():
    """5000 different texts twice each, and three that come hundreds of times between them."""
    texts = [f"text {n}" for n in range(5000)] * 2 + ["loud"] * 900 + ["louder"] * 1200 + ["loudest"] * 1500
    random.Random(2).shuffle(texts)
    seen, _ = fed(texts, 300)
    found, counts = seen.most_repeated(3), Counter(texts)
    assert [one.text for one in found] == ["loudest", "louder", "loud"]
    assert all(counts[one.text] - 20 <= one.count <= counts[one.text] for one in found)
    assert len(seen._counts) <= 1024
