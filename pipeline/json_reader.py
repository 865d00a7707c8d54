"""A file of JSON samples -> one sample after another, none of them lost: what cannot be read is given with its reason.

Two forms: lines of one sample each, and JSON values that stand in one array or one after another. Holds one sample and
one piece of the file, however long it is. Does not know what a sample says.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_SAMPLE_BYTES = 8 << 20
"""A sample of more is not read: parsed, it can take twenty times its bytes."""
_PIECE_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_DECODER = json.JSONDecoder()
_BETWEEN_VALUES = re.compile(r"[ \t\r\n,]*")
_STRUCTURE = re.compile(r'["{}\[\]]')
_END_OF_SCALAR = re.compile(r'[ \t\r\n,"{}\[\]]')
_IN_STRING = re.compile(r'["\\]')


@dataclass(frozen=True, kw_only=True)
class RawSample:
    """One sample of a file."""

    number: int
    """Of its line, from 1; of its place in an array, from 0."""
    digest: str
    """Of its text, without the white space around it: 32 hex digits."""
    value: Any = None
    error: str = ""
    """Why there is no value; "" where there is one."""


def read_lines(file: BinaryIO) -> Iterator[RawSample]:
    """Of a file with one sample on each line; blank lines are none. Raises what reading the file raises."""
    number = 0
    while line := file.readline(MAX_SAMPLE_BYTES + 1):
        number += 1
        is_too_long = len(line) > MAX_SAMPLE_BYTES
        if is_too_long:
            _skip_line(file, line)
        line = line.removeprefix(_BOM if number == 1 else b"").strip(b" \t\r\n")
        if line:
            yield _too_long(number, line) if is_too_long else _sample(number, line)


def read_values(file: BinaryIO) -> Iterator[RawSample]:
    """Of a file with one array of samples, or with samples one after another. Raises what reading the file raises."""
    pieces = _Pieces(file)
    number = 0
    is_array = pieces.next_character() == "["
    if is_array:
        pieces.drop(1)
    while character := pieces.next_character():
        if is_array and character == "]":
            pieces.drop(1)
            if pieces.next_character():
                yield _bad(number, b"", "there is text after the end of the array, which is not read")
            return
        yield pieces.next_sample(number)
        number += 1
    if is_array and not pieces.is_cut_off:
        yield _bad(number, b"", "the file ends before its array does: it is cut off")


def parse_sample(encoded: bytes) -> RawSample:
    """Of a text that holds this one sample."""
    return _sample(0, encoded.removeprefix(_BOM))


class _Pieces:
    """The text of a file from a place on, a piece at a time. Bytes that are not UTF-8 are lone surrogates in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self._text, self._at = "", 0
        self._is_last = False
        self.is_cut_off = False
        """Whether the last sample goes on to the end of the file."""

    def next_character(self) -> str:
        """The first of the next value, or a bracket that closes the array; "" at the end of the file."""
        while True:
            found = _BETWEEN_VALUES.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def drop(self, num_characters: int) -> None:
        self._at += num_characters

    def next_sample(self, number: int) -> RawSample:
        if self._text[self._at] not in '{["':  # a number may go on in the next piece
            return self._sample_by_its_end(number)
        try:
            value, end = _DECODER.raw_decode(self._text, self._at)
        except (ValueError, RecursionError):
            return self._sample_by_its_end(number)
        raw, self._at = _encoded(self._text[self._at : end]), end
        return _checked(number, raw, value)

    def _sample_by_its_end(self, number: int) -> RawSample:
        """Finds where a value ends before it parses it, so that one that is wrong takes no other along."""
        end = _ValueEnd()
        start = position = self._at
        head = b""
        while not end.is_found:
            position = end.advance(self._text, position)
            if end.is_found:
                break
            if position - start > MAX_SAMPLE_BYTES:
                head, start = head or _encoded(self._text[start:position]), position
            self._at, num_behind = start, position - start
            is_more = self._read()
            start, position = self._at, self._at + num_behind
            if not is_more:
                break
        raw, self._at = _encoded(self._text[start:position]), position
        if head or len(raw) > MAX_SAMPLE_BYTES:
            return _too_long(number, head or raw)
        if not end.is_found and not end.is_scalar:
            self.is_cut_off = True
            return _bad(number, raw, "the file ends before this sample does, or a bracket or quotation mark is missing")
        if not raw:  # a bracket that closes nothing
            self._at += 1
            return _bad(number, raw, "is not JSON: a bracket is closed that was not opened")
        return _sample(number, raw)

    def _read(self) -> bool:
        """Adds a piece, and forgets what lies before the place; False at the end of the file."""
        self._text, self._at = self._text[self._at :], 0
        while not self._is_last:
            piece = self._file.read(_PIECE_BYTES)
            self._is_last = not piece
            decoded = self._decode(piece, self._is_last)
            self._text += decoded
            if decoded:
                return True
        return False


class _ValueEnd:
    """Where a JSON value ends, told from its brackets and quotation marks alone; its text may come in parts."""

    def __init__(self) -> None:
        self.is_found = False
        self._depth = 0
        self._is_in_string = self._is_escaped = self._is_begun = False

    @property
    def is_scalar(self) -> bool:
        """Neither in brackets nor in quotation marks: then the end of the file is its end as well."""
        return self._depth == 0 and not self._is_in_string

    def advance(self, text: str, position: int) -> int:
        """Reads on from a position, to the end of the value or of the text; gives the position after it."""
        while position < len(text) and not self.is_found:
            if self._is_escaped:
                self._is_escaped = False
                position += 1
            elif self._is_in_string:
                position = self._advance_in_string(text, position)
            else:
                position = self._advance_outside(text, position)
        return position

    def _advance_in_string(self, text: str, position: int) -> int:
        found = _IN_STRING.search(text, position)
        if found is None:
            return len(text)
        self._is_escaped = found.group() == "\\"
        self._is_in_string = self._is_escaped
        self.is_found = not self._is_in_string and self._depth == 0
        return found.end()

    def _advance_outside(self, text: str, position: int) -> int:
        found = (_STRUCTURE if self._depth else _END_OF_SCALAR).search(text, position)
        if found is None:
            self._is_begun = True
            return len(text)
        character = found.group()
        if self._depth == 0 and (found.start() > position or self._is_begun or character not in '"{['):
            self.is_found = True  # a scalar, which ends before what follows it
            return found.start()
        self._is_begun = True
        if character == '"':
            self._is_in_string = True
        else:
            self._depth += 1 if character in "{[" else -1
            self.is_found = self._depth == 0
        return found.end()


def _sample(number: int, raw: bytes) -> RawSample:
    try:
        value = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return _bad(number, raw, f"is not UTF-8, at its byte {error.start + 1}")
    except json.JSONDecodeError as error:
        return _bad(number, raw, f"is not JSON: {error.msg}, at its character {error.pos + 1}")
    except RecursionError:
        return _bad(number, raw, "is nested too deeply")
    except ValueError as error:  # a number of thousands of digits
        return _bad(number, raw, f"is not JSON: {str(error).partition(';')[0]}")
    return _checked(number, raw, value)


def _checked(number: int, raw: bytes, value: Any) -> RawSample:
    """Arrow and the tokenizer take no halves of a character, which JSON can spell."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return _bad(number, raw, f"is not UTF-8, at its byte {error.start + 1}")
    if b"\\ud" in raw or b"\\uD" in raw:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return _bad(number, raw, "holds half of a surrogate pair (\\ud800 to \\udfff), which is no character")
        except RecursionError:
            return _bad(number, raw, "is nested too deeply")
    return RawSample(number=number, digest=_digest(raw), value=value)


def _too_long(number: int, raw: bytes) -> RawSample:
    return _bad(number, raw, f"is longer than {MAX_SAMPLE_BYTES} bytes, the most that one sample may have")


def _bad(number: int, raw: bytes, error: str) -> RawSample:
    return RawSample(number=number, digest=_digest(raw), error=error)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:32]


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _skip_line(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(_PIECE_BYTES)
