"""Text -> the words and letters that detectors count, in scripts with and without spaces between words."""

import re
import unicodedata

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, kana, Han: every character is a word of its own."""

UNSPACED = re.compile(f"[{_UNSPACED}]")
WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’][^\W{_UNSPACED}]+)*")
TOKEN = re.compile(rf"{WORD.pattern}|[^\w\s]|_|\n")
"""A word, a mark, or the end of a line."""

CONTROL_MARK = re.compile(r"<[|｜][^|｜<>\n]{0,40}[|｜]>|</?s>")
_MARKS = frozenset("|<>=~`^+")


def words_of(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def num_words(text: str) -> float:
    """Two characters of a script without spaces count as one word."""
    words = WORD.findall(text)
    num_unspaced = sum(1 for word in words if UNSPACED.match(word))
    return len(words) - num_unspaced / 2


def says_nothing(text: str) -> bool:
    """Whether there is no letter, digit, symbol or picture in it: white space, punctuation and marks alone. A sign of
    arithmetic alone can be an answer."""
    rest = CONTROL_MARK.sub("", text)
    if rest.strip() in _MARKS:
        return rest.strip() not in {"+", "=", "<", ">"}
    return all(char in _MARKS or unicodedata.category(char)[0] in "PZCM" for char in rest)
