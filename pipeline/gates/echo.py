"""An answer and what was asked -> the question that the answer repeats instead of answering it, if it does."""

import re
from collections.abc import Iterable

from pipeline.gates.words import WORD, num_words, words_of
from schemas.gates import EchoGate

_SPEAKER = re.compile(
    r"(?:question|instruction|prompt|user|human|q|问题|問題|提问|用户|質問|질문|frage|pregunta|pergunta|вопрос|سؤال)\s*[:：]\s*",
    re.IGNORECASE,
)
_QUESTION_MARKS = "?？؟"
_OPENING = " \t\n\r\"'“”‘’«»「」『』*#>_-`"


def what_is_echoed(text: str, asked: Iterable[str], gate: EchoGate) -> str | None:
    """The first of the texts that the answer opens with. Case, spaces and punctuation may differ, but a question that
    comes back as a statement is an answer: "¿Es azul?" - "Es azul."."""
    answer = text.lstrip(_OPENING)
    answer = _SPEAKER.sub("", answer, count=1) if _SPEAKER.match(answer) else answer
    for one in asked:
        if one.strip() and num_words(one) >= gate.min_words and _opens_with(answer, one):
            return one.strip()
    return None


def _opens_with(answer: str, asked: str) -> bool:
    wanted = words_of(asked)
    end = _end_of_words(answer, len(wanted))
    if end is None or words_of(answer[:end]) != wanted:
        return False
    if not asked.rstrip(" \n\t\"'”»」*_").endswith(tuple(_QUESTION_MARKS)):
        return True
    following = answer[end:].lstrip(" \"'”»」*_")
    return not following or following[0] in f"{_QUESTION_MARKS}:：\n"


def _end_of_words(text: str, count: int) -> int | None:
    """Where the first so many words end."""
    for number, word in enumerate(WORD.finditer(text), start=1):
        if number == count:
            return word.end()
    return None
