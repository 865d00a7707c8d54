"""An answer -> where it goes round in circles, or None. Linear in the length of the text.

Five looks: runs of one character; a piece that comes again and again in a row, whatever its length; numbers that count
on and on; sentences and phrases that make up most of the text, numbers in them left aside; and, for what none of these
sees, how far zlib gets. What tables, leaders, refrains and laughter repeat is within all thresholds.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.gates.counting import find_counting
from pipeline.gates.quotations import without_quotations
from pipeline.gates.words import TOKEN, UNSPACED
from schemas.gates import RepetitionGate

_CHAR_RUN = re.compile(r"(\S)\1{23,}")
_LEADERS = frozenset(".-_=*~#─━═·•…+—–‥・。")
"""They draw lines, and lead from a title to its page."""
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_SENTENCE_END = ".!?。！？؟। "
_SENTENCE = re.compile(r"[^.!?。！？؟।\n]+")
_CODE_MARK = re.compile(r"[{}\[\]()=;|<>\\&$^_]")
_WORD_RUN = re.compile(r"\b([^\W\d_]{3,}+)(?: +\1\b)++")
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
_PHRASE_WORDS, _PHRASE_CHARS = 4, 8
_MIN_PHRASES = 12
_MAX_PERIODS = 8
_COMPRESSED_FROM_CHARS = 1000


def find_repetition(text: str, gate: RepetitionGate) -> str | None:
    found = (
        _character_run(text, gate)
        or _short_period(text, gate)
        or (gate.own_words and _word_run(text, gate))
        or _loop(text, gate)
        or find_counting(text)
        or (_is_prose(text) and (_repeated_sentences(text, gate) or _repeated_phrases(text, gate)))
        or _compresses(text, gate)
    )
    return found or None


def _is_prose(text: str) -> bool:
    """What is code or a table may have one form all over."""
    return len(_CODE_MARK.findall(text)) <= 0.04 * len(text)


def _character_run(text: str, gate: RepetitionGate) -> str | None:
    end = len(text.rstrip())
    for run in _CHAR_RUN.finditer(text):
        length = run.end() - run.start()
        factor = (2.5 if run.end() == end else 4) if run[1] in _LEADERS else 1
        if length > factor * gate.max_run_chars:
            return f"{run[1]!r} {length} times in a row"
        if length > gate.max_run_chars / 2 and run[1] not in _LEADERS and length > 0.5 * end:
            return f"{run[1]!r} {length} times in a row"
    return None


def _short_period(text: str, gate: RepetitionGate) -> str | None:
    """Pieces of 2 to 16 characters, in which there may be no words."""
    if len(text) < 160:
        return None
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    for period in range(2, 17):
        for start, length in _runs(codes, period, min_length=max(160, 40 * period)):
            piece = text[start : start + period]
            if set(piece.strip()) - _LEADERS:
                return f"{piece!r} {length // period} times in a row"
    return None


def _word_run(text: str, gate: RepetitionGate) -> str | None:
    """One word with nothing but spaces between, in one spelling. Laughter, which has two letters, is not meant, nor is
    what the answer quotes."""
    least = gate.min_repeats + 2
    for run in _WORD_RUN.finditer(without_quotations(text)):
        count = len(run[0].split())
        if count >= least:
            return f"{run[1]!r} {count} times in a row"
    return None


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """Words, marks and ends of lines, with numbers made equal in `plain`."""

    words: Sequence[str]
    starts: np.ndarray
    exact: np.ndarray
    plain: np.ndarray

    def chars(self, first: int, count: int) -> int:
        return int(self.starts[first + count] - self.starts[first])


def _tokens(text: str) -> _Tokens:
    found = list(TOKEN.finditer(text.casefold()))
    words = [one[0] for one in found]
    ids: dict[str, int] = {}
    exact = np.array([ids.setdefault(word, len(ids)) for word in words], dtype=np.int64)
    plain = np.array([ids.setdefault(_DIGITS.sub("0", word), len(ids)) for word in words], dtype=np.int64)
    starts = np.array([*(one.start() for one in found), len(text)], dtype=np.int64)
    return _Tokens(words=words, starts=starts, exact=exact, plain=plain)


def _loop(text: str, gate: RepetitionGate) -> str | None:
    tokens = _tokens(text)
    for ids, is_exact in ((tokens.exact, True), (tokens.plain, False)):
        for period in _likely_periods(ids):
            for start, length in _runs(ids, period, min_length=2 * period):
                if _is_loop(tokens, start, length, period, is_exact=is_exact, gate=gate):
                    first = int(tokens.starts[start])
                    piece = text[first : first + tokens.chars(start, period)]
                    return f"{piece.strip()[:60]!r} {length // period} times in a row"
    return None


def _is_loop(tokens: _Tokens, start: int, length: int, period: int, *, is_exact: bool, gate: RepetitionGate) -> bool:
    piece = tokens.words[start : start + period]
    if _LEADERS.issuperset(piece):
        return False
    words = {word for word in piece if word[0].isalnum()}
    letters = {word for word in words if not word[0].isdigit()}
    num_unspaced = sum(1 for word in letters if UNSPACED.match(word))
    weight = len(letters) - num_unspaced / 2
    num_repeats, extra_chars = length / period, tokens.chars(start, length) - tokens.chars(start, period)
    total = int(tokens.starts[-1])
    at_end = start + length >= len(tokens.words) - 3
    if extra_chars < 40 or not (at_end or extra_chars >= 0.3 * total or num_repeats >= 2 * gate.min_repeats):
        return False
    in_table = "|" in piece or "<" in piece
    if not is_exact:  # entries of a list, a log or a timetable differ in their numbers alone
        least = gate.min_repeats + 2 if weight >= 5 else 8 * gate.min_repeats
        return weight >= 0.5 and num_repeats >= (4 if in_table else 1) * least
    is_all = gate.own_words and extra_chars >= 80 and tokens.chars(start, length) >= 0.8 * total
    if (weight >= 8 or (is_all and weight >= 5)) and not in_table and "\n" not in piece:
        least = (gate.min_repeats + 1) // 2
    elif weight >= 2.5 or len(words) >= 4:
        least = gate.min_repeats + (2 if "\n" in piece else 0)
    elif gate.own_words and len(letters) >= 2:
        least = gate.min_repeats + 2
    elif words:
        least = (3 if len(words) == 1 else 2) * gate.min_repeats
    else:
        least = 8 * gate.min_repeats
    return num_repeats >= (4 if in_table else 1) * least and extra_chars >= 60


def _likely_periods(ids: np.ndarray) -> list[int]:
    """How far back, most often, the same three tokens stood before."""
    if len(ids) < 6:
        return []
    keys: dict[tuple[int, int, int], int] = {}
    distances: Counter[int] = Counter()
    listed = ids.tolist()
    for place, key in enumerate(zip(listed, listed[1:], listed[2:], strict=False)):
        if key in keys:
            distances[place - keys[key]] += 1
        keys[key] = place
    return [period for period, _ in distances.most_common(_MAX_PERIODS)]


def _runs(ids: np.ndarray, period: int, *, min_length: int) -> Iterator[tuple[int, int]]:
    """(start, length) of the stretches of at least `min_length` that have this period."""
    if len(ids) < max(min_length, period + 1):
        return
    same = np.concatenate([[False], ids[period:] == ids[:-period], [False]])
    edges = np.flatnonzero(same[1:] != same[:-1])
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if end - begin + period >= min_length:
            yield begin, end - begin + period


def _repeated_sentences(text: str, gate: RepetitionGate) -> str | None:
    plain = _DIGITS.sub("0", _TAG.sub("\n", text)).casefold()
    counts: Counter[str] = Counter()
    for sentence in _SENTENCE.findall(plain):
        words = TOKEN.findall(sentence)
        spaced = [word for word in words if word[0].isalpha() and not UNSPACED.match(word)]
        unspaced = sum(1 for word in words if UNSPACED.match(word))
        if len(spaced) + unspaced / 2 >= 4:
            counts[" ".join(sentence.split())] += 1
    total = len("".join(plain.split()))
    extra = sum(len(sentence.replace(" ", "")) * (count - 1) for sentence, count in counts.items())
    if not counts or extra <= gate.max_repeated_share * total:
        return None
    sentence, count = counts.most_common(1)[0]
    least = max(3, gate.min_repeats * 2 // 3)
    if not gate.own_words and sum(1 for times in counts.values() if times > 1) == 1 and _is_line(sentence, plain):
        least = gate.min_repeats + 1  # somebody wrote it down so often
    return f"{sentence[:60]!r} {count} times" if count >= least else None


def _is_line(sentence: str, text: str) -> bool:
    lines = {" ".join(line.split()).rstrip(_SENTENCE_END) for line in text.splitlines()}
    return sentence in lines


def _repeated_phrases(text: str, gate: RepetitionGate) -> str | None:
    plain = _TAG.sub(" ", text)
    words = [word for word in TOKEN.findall(plain.casefold()) if word[0].isalpha()]
    num_unspaced = sum(1 for word in words if UNSPACED.match(word))
    size = _PHRASE_CHARS if num_unspaced > len(words) / 2 else _PHRASE_WORDS
    if len(words) < 20 * size:
        return None
    phrases = list(zip(*(words[shift:] for shift in range(size)), strict=False))
    counts = Counter(phrases)
    covered = np.zeros(len(words), dtype=bool)
    for place, phrase in enumerate(phrases):
        if counts[phrase] >= _MIN_PHRASES:
            covered[place : place + size] = True
    if covered.mean() <= gate.max_repeated_share:
        return None
    phrase, count = counts.most_common(1)[0]
    if not gate.own_words and _is_refrain(plain, count, gate):
        return None
    return f"{('' if size == _PHRASE_CHARS else ' ').join(phrase)!r} {count} times"


def _is_refrain(text: str, count: int, gate: RepetitionGate) -> bool:
    """Whether no two lines are alike, numbers left aside, and what they share comes once in each."""
    lines = [" ".join(_DIGITS.sub("0", line).casefold().split()) for line in text.splitlines() if line.strip()]
    return len(set(lines)) == len(lines) and count <= min(len(lines), 4 * gate.min_repeats)


def _compresses(text: str, gate: RepetitionGate) -> str | None:
    drawn = re.sub(r"([.\-_=*~#─━═·•…+\s])\1+", r"\1", text)
    if len(drawn) < _COMPRESSED_FROM_CHARS:
        return None
    encoded = drawn.encode("utf-8", "surrogatepass")
    ratio = len(encoded) / len(zlib.compress(encoded, 6))
    return f"compresses to one part in {ratio:.0f}" if ratio > gate.max_compression else None
