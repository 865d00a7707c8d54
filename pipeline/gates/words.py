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
_SIGNS = frozenset("!?#&@%*/\\+-−=<>~^|:;§¶†！？＃＆＠：；")
"""Each can be all that was asked for. Quotes, brackets, commas and full stops are rather what is left of an answer."""
_MORSE = re.compile(r"(?=[^-–—−]*[-–—−])(?=[^.·•]*[.·•])[.·•\-–—−/|\s]{3,}")


def words_of(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def num_words(text: str) -> float:
    """Two characters of a script without spaces count as one word."""
    words = WORD.findall(text)
    num_unspaced = sum(1 for word in words if UNSPACED.match(word))
    return len(words) - num_unspaced / 2


def says_nothing(text: str, *, is_asked: bool = False) -> bool:
    """Whether there is no letter, digit, symbol or picture in it: white space, punctuation and marks alone. A sign of
    arithmetic alone can be an answer; to a question (`is_asked`), one sign of another kind or Morse code too."""
    rest = CONTROL_MARK.sub("", text)
    if is_asked and (rest.strip() in _SIGNS or _MORSE.fullmatch(rest.strip())):
        return False
    if rest.strip() in _MARKS:
        return rest.strip() not in {"+", "=", "<", ">"}
    return all(char in _MARKS or unicodedata.category(char)[0] in "PZCM" for char in rest)
