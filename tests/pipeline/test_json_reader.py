import io
import json
import random

import pytest

from pipeline import json_reader
from pipeline.json_reader import MAX_SAMPLE_BYTES, RawSample, read_lines, read_values


def values(samples) -> list:
    """What was read, or the reason why not."""
    return [sample.error or sample.value for sample in samples]


@pytest.fixture(params=[1, 2, 7, 1 << 20])
def piece_bytes(request, monkeypatch):
    """However the file is cut into pieces."""
    monkeypatch.setattr(json_reader, "_PIECE_BYTES", request.param)
    return request.param


def of_file(encoded: bytes) -> list:
    return values(read_values(io.BytesIO(encoded)))


def of_lines(encoded: bytes) -> list:
    return values(read_lines(io.BytesIO(encoded)))


GOOD = {"a": 1}
NO_END = "the file ends before this sample does, or a bracket or quotation mark is missing"
TOO_MANY_DIGITS = "is not JSON: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits"


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        pytest.param(b"", [], id="empty file"),
        pytest.param(b" \r\n[ ]\n", [], id="empty array"),
        pytest.param(b'[{"a":1},{"a":1}]', [GOOD, GOOD], id="array"),
        pytest.param(b'{"a":1}\n{"a":1}\n', [GOOD, GOOD], id="one after another"),
        pytest.param(b'{\n "a": 1\n}', [GOOD], id="one alone"),
        pytest.param(b'[{"a":1},]', [GOOD], id="trailing comma"),
        pytest.param(b'\xef\xbb\xbf[{"a":1}]', [GOOD], id="byte order mark"),
        pytest.param(b'[{"a":1},\r\n\t{"a":1}\r\n]\r\n', [GOOD, GOOD], id="CRLF"),
        pytest.param('[{"ü":"😀"}]'.encode(), [{"ü": "😀"}], id="characters of several bytes"),
        pytest.param(b'[{"a":"]}\\"[{\\\\"},12.5e3,null]', [{"a": ']}"[{\\'}, 12500.0, None], id="brackets in a text"),
        pytest.param(b"12 345", [12, 345], id="numbers"),
    ],
)
def test_values_of_a_file(encoded, expected, piece_bytes):
    assert of_file(encoded) == expected


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        pytest.param(b'[{"a" 1},{"a":1}]', ["is not JSON: Expecting ':' delimiter, at its character 6", GOOD]),
        pytest.param(b'[{"a":"\0"},{"a":1}]', ["is not JSON: Invalid control character at, at its character 7", GOOD]),
        pytest.param(b'[{"a":"\xff"},{"a":1}]', ["is not UTF-8, at its byte 7", GOOD], id="no UTF-8"),
        pytest.param(b'[{"a":1}},{"a":1}]', [GOOD, "is not JSON: a bracket is closed that was not opened", GOOD]),
        pytest.param(b'[{"a":1},{"a', [GOOD, NO_END]),
        pytest.param(b'[{"a":1}', [GOOD, "the file ends before its array does: it is cut off"], id="cut off"),
        pytest.param(b'[{"a":1}] x', [GOOD, "there is text after the end of the array, which is not read"]),
        pytest.param(
            b'[{"a":"\\ud800"},"\\ud83d\\ude00"]',
            ["holds half of a surrogate pair (\\ud800 to \\udfff), which is no character", "😀"],
            id="half of a character",
        ),
        pytest.param(b"[" + b'{"a":' * 30_000 + b"1" + b"}" * 30_000 + b',{"a":1}]', ["is nested too deeply", GOOD]),
        pytest.param(b"[" + b"9" * 5000 + b',{"a":1}]', [TOO_MANY_DIGITS, GOOD]),
    ],
)  # fmt: skip
def test_value_that_is_wrong_takes_no_other_along(encoded, expected, piece_bytes):
    if piece_bytes < 7 and len(encoded) > 10_000:
        pytest.skip("as many pieces as that take their time")
    assert of_file(encoded) == expected


def test_whatever_is_written_is_read(piece_bytes):
    rng = random.Random(0)

    def anything(depth=0):
        leaves = [rng.randrange(-100, 10**6), rng.random(), None, True, "", 'a"b\\', "{[}]", "<image>\n", "ü😀"]
        if depth > 3 or rng.random() < 0.5:
            return rng.choice(leaves)
        children = [anything(depth + 1) for _ in range(rng.randrange(4))]
        return children if rng.random() < 0.5 else {str(number): child for number, child in enumerate(children)}

    for _ in range(50):
        written = [anything() for _ in range(rng.randrange(6))]
        text = json.dumps(written, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 2]))
        assert [sample.value for sample in read_values(io.BytesIO(text.encode()))] == written


def test_lines_are_numbered_as_an_editor_does_and_blank_ones_are_no_samples():
    samples = list(read_lines(io.BytesIO(b'\xef\xbb\xbf{"a":1}\r\n\r\n  \n{"a":1}')))
    assert [(sample.number, sample.value) for sample in samples] == [(1, GOOD), (4, GOOD)]
    assert samples[0].digest == samples[1].digest, "white space and line ends are no part of a sample"


def test_line_that_is_wrong_takes_no_other_along():
    encoded = b'{"a":1},\n{"a":"\0"}\n\xff\n[1\n' + b"[" * 30_000 + b'\n{"a":1}\n'
    *wrong, last = of_lines(encoded)
    assert last == GOOD
    assert wrong == [
        "is not JSON: Extra data, at its character 8",
        "is not JSON: Invalid control character at, at its character 7",
        "is not UTF-8, at its byte 1",
        "is not JSON: Expecting ',' delimiter, at its character 3",
        "is nested too deeply",
    ]


class Endless(io.RawIOBase):
    """A hundred megabytes of one text, made as they are read; then another sample."""

    def __init__(self, start: bytes, end: bytes) -> None:
        self._parts = iter([start, *[b"x" * (1 << 20)] * 100, end])
        self._left = b""
        self.largest_request = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self.largest_request = max(self.largest_request, len(buffer))
        self._left = self._left or next(self._parts, b"")
        piece, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("read", [read_lines, read_values])
def test_sample_of_a_hundred_megabytes_is_passed_over_without_being_held(read):
    file = Endless(b'{"a":"', b'"}\n{"a":1}\n')
    first, second = read(io.BufferedReader(file))
    assert first.error == f"is longer than {MAX_SAMPLE_BYTES} bytes, the most that one sample may have"
    assert second.value == GOOD
    assert file.largest_request <= MAX_SAMPLE_BYTES + 1


def test_sample_is_told_by_its_text():
    def digest(line: bytes) -> str:
        (sample,) = read_lines(io.BytesIO(line))
        assert isinstance(sample, RawSample)
        return sample.digest

    assert digest(b'{"a":1}\n') == digest(b'  {"a":1}') != digest(b'{"a": 1}')
