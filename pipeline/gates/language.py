"""An answer and what was asked -> the language of the answer, where it is the wrong one and that is beyond doubt.

The script decides first; among languages of one script a detector, whose model is part of its package. Names, numbers,
quotations and code say nothing of a language, and what is short or mixed gets no verdict. Simplified and traditional
Chinese are one language here, and so are others that short texts do not tell apart.
"""

import functools
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.gates import LanguageGate

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_CANDIDATES = (
    "af ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu he hi hr hu hy id is it ja ka kk km kn ko "
    "la lo lt lv mk ml mn mr ms nb ne nl nn no pa pl ps pt ro ru si sk sl sq sr sv sw ta te th tl tr uk ur vi zh"
)
_ONE_LANGUAGE = {
    **dict.fromkeys(("nb", "nn", "no", "da"), "no"),
    **dict.fromkeys(("hr", "bs", "sr"), "hr"),
    **dict.fromkeys(("id", "ms"), "id"),
    **dict.fromkeys(("cs", "sk"), "cs"),
    **dict.fromkeys(("es", "gl", "ca"), "es"),
    **dict.fromkeys(("hi", "mr", "ne"), "hi"),
    **dict.fromkeys(("fa", "ps"), "fa"),
    **dict.fromkeys(("nl", "af"), "nl"),
    **dict.fromkeys(("ru", "be", "uk", "bg", "mk"), "ru"),
    "zh-cn": "zh",
    "zh-tw": "zh",
    "wuu": "zh",
    "yue": "zh",
}
_SCRIPTS = {
    "kana": "\u3040-\u30ff\u31f0-\u31ff",
    "han": "\u3400-\u4dbf\u4e00-\u9fff",
    "hangul": "\uac00-\ud7a3\u1100-\u11ff",
    "cyrillic": "\u0400-\u052f",
    "arabic": "\u0620-\u064a\u066e-\u06d3\u0750-\u077f",
    "hebrew": "\u05d0-\u05ea",
    "greek": "\u0370-\u03ff",
    "devanagari": "\u0900-\u097f",
    "bengali": "\u0980-\u09ff",
    "tamil": "\u0b80-\u0bff",
    "telugu": "\u0c00-\u0c7f",
    "thai": "\u0e00-\u0e7f",
    "georgian": "\u10a0-\u10ff",
    "armenian": "\u0530-\u058f",
    "latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
}
_ONLY_ONE = {
    "kana": "ja",
    "hangul": "ko",
    "hebrew": "he",
    "greek": "el",
    "thai": "th",
    "georgian": "ka",
    "armenian": "hy",
}
_ONLY_ONE |= {"bengali": "bn", "tamil": "ta", "telugu": "te"}
_DENSE = frozenset({"han", "kana", "hangul"})
_LETTERS = {name: re.compile(f"[{span}]") for name, span in _SCRIPTS.items()}
_SCRIPT_OF = {"zh": "han", "ja": "kana", "ko": "hangul", **{language: script for script, language in _ONLY_ONE.items()}}
_SCRIPT_OF |= dict.fromkeys(("ru", "mn", "kk"), "cyrillic") | dict.fromkeys(("ar", "fa", "ur"), "arabic")
_SCRIPT_OF |= {"hi": "devanagari"}

_NO_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|(?<!\S)[^\s@]+@\S+|<[^<>\n]{1,200}>|\$[^$\n]*\$|\\[a-zA-Z]+"
    r"|\"[^\"\n]{1,300}\"|“[^”\n]{1,300}”|„[^“”\n]{1,300}[“”]|«[^»\n]{1,300}»|「[^」\n]{1,300}」|『[^』\n]{1,300}』|《[^》\n]{1,100}》"
    r"|(?<!\w)'[^'\n]{2,300}'(?!\w)|[（(][^()（）\n]{1,200}[)）]",
    re.DOTALL,
)
_NAME = re.compile(r"(?<=[^.!?\s\n] )(?:[A-ZÀ-Þ][\w'’-]*\s?)+|\b[A-Z0-9][A-Z0-9&'’-]+\b")
"""Words with a capital in the midst of a sentence, and words in capitals."""
_PIECE = re.compile(r"[^.!?。！？؟\n]+[.!?。！？؟\n]*")
_OTHER_LANGUAGE_ASKED = re.compile(
    r"translat|transcri|english|chinese|mandarin|japanese|korean|french|german|spanish|portuguese|italian|russian|arabic|hindi|turkish"
    r"|language|翻译|翻譯|英文|英语|英語|中文|日文|日语|日本語|法语|德语|西班牙语|俄语|韩语|语言|語言|訳|フランス語|ドイツ語|韓国語|中国語|번역|영어|중국어|일본어|한국어|언어"
    r"|traduc|traduz|traduis|tradui|inglés|inglês|español|espanhol|anglais|français|allemand|langue|idioma|übersetz|englisch|deutsch|französisch|sprache"
    r"|перевед|перевод|английск|русск|китайск|язык|ترجم|الإنجليزية|العربية|الصينية|لغة|inglese|italiano|traduci|lingua",
    re.IGNORECASE,
)
_READING_ASKED = re.compile(
    r"\b(?:say|says|said|written|writing|read|reads|text|word|words|spell|spelled|title|titled|called|name|named|caption|label|slogan|brand|sign|quote|headline|lyrics)\b"
    r"|写|寫|文字|字样|内容|标题|名称|名字|叫什么|牌子|書|読|テキスト|タイトル|名前|문구|글|텍스트|제목|이름|적혀|쓰여"
    r"|\b(?:dice|escrito|escrita|texto|palabras?|palavras?|título|nombre|nome|llama|diz|lê|écrit|texte|mots?|titre|nom|appelle|dit|steht|geschrieben|titel|name|heißt|wörter|scritto|testo|parole|titolo|chiama|dice)\b"
    r"|написан|текст|слов|назван|имя|зовут|надпис|مكتوب|النص|كلمات|عنوان|اسم",
    re.IGNORECASE,
)


_SURE_OF_QUESTION = 0.8
_DETECTED_CHARS = 1000
"""More of a text makes the detector slower, and no surer."""


@dataclass(frozen=True, kw_only=True)
class ForeignLanguage:
    """Codes of languages, such as "de"; of the wanted one the script, such as "latin", where no more is known."""

    found: str
    wanted: str


def foreign_language(
    text: str, *, asked: str, wanted: str | None, ocr_text: str, gate: LanguageGate
) -> ForeignLanguage | None:
    """None where the language is the wanted one, or no verdict is possible.

    Args:
        wanted: a language's code; None: the language that `asked` is written in.
        ocr_text: what can be read in the image; an answer that is part of it may be in any language.
    """
    if wanted is None:
        if _OTHER_LANGUAGE_ASKED.search(asked):
            return None
        wanted = _language_of_question(_NO_PROSE.sub(" ", asked))
    if wanted is None:
        return None
    wanted = wanted if wanted in _SCRIPTS else _one(wanted.casefold())
    if _reads_out(text, asked, ocr_text):
        return None
    prose = _NO_PROSE.sub(" ", text)
    for piece in (prose, *_pieces(prose)):
        found = _foreign(piece, wanted, gate)
        if found:
            return ForeignLanguage(found=found, wanted=wanted)
    return None


def _reads_out(text: str, asked: str, ocr_text: str) -> bool:
    if _READING_ASKED.search(asked) and len(text) < 200:
        return True
    bare = "".join(text.split()).casefold()
    return bool(ocr_text) and bare in "".join(ocr_text.split()).casefold()


def _pieces(text: str) -> list[str]:
    """Halves and long runs of sentences: an answer may change its language on the way."""
    sentences = _PIECE.findall(text)
    if len(sentences) < 2:
        return []
    middle = len(sentences) // 2
    return ["".join(sentences[middle:]), "".join(sentences[-max(1, len(sentences) // 4) :]), *_long(sentences)]


def _long(sentences: list[str]) -> list[str]:
    """A few of them; a detector costs 70 microseconds a text."""
    long = [one for one in sentences if len(one) >= 40]
    return long[:: max(1, len(long) // 8)][:8]


def _counts(text: str) -> Counter[str]:
    """Letters by script; those of Chinese, Japanese and Korean count for three."""
    counts = Counter({name: len(letters.findall(text)) for name, letters in _LETTERS.items()})
    for name in _DENSE:
        counts[name] *= 3
    return +counts


def _main_script(text: str, min_letters: int, min_share: float) -> str | None:
    counts = _counts(text)
    total = counts.total()
    if total < min_letters:
        return None
    kana = counts["kana"]
    if kana and kana >= 0.15 * (kana + counts["han"]):
        counts["kana"] += counts.pop("han", 0)
    name, count = counts.most_common(1)[0]
    return name if count >= min_share * total else None


def _language_of_question(text: str) -> str | None:
    """Its code, or the name of its script, where no more is certain."""
    script = _main_script(text, min_letters=8, min_share=0.6)
    if script is None:
        return None
    if script == "han":
        return "zh"
    if script in _ONLY_ONE:
        return _ONLY_ONE[script]
    language, confidence = _detect(text)
    return language if confidence >= _SURE_OF_QUESTION else script


def _foreign(text: str, wanted: str, gate: LanguageGate) -> str | None:
    nameless = _NAME.sub(" ", text)
    if _counts(nameless).total() >= gate.min_letters and _is_prose(nameless):
        text = nameless  # unless nothing is left: German has capitals in the midst of every sentence
    script = _main_script(text, gate.min_letters // 2, min_share=0.75)
    if script is None or (script == "han" and wanted == "ja"):
        return None  # a short Japanese text may have no kana
    if script != (wanted if wanted in _SCRIPTS else _SCRIPT_OF.get(wanted, "latin")):
        found = {**_ONLY_ONE, "han": "zh"}.get(script)
        return found or (_detect(text)[0] if _is_prose(text) else None)
    if wanted in _SCRIPTS or script in _ONLY_ONE or script == "han" or _counts(text).total() < gate.min_letters:
        return None
    language, confidence = _detect(text)
    return language if language != wanted and confidence >= gate.min_confidence and _is_prose(text) else None


def _is_prose(text: str) -> bool:
    """Enough words in lower case: a list of names or of parts has no language."""
    return sum(1 for word in re.findall(r"[^\W\d_]+", text) if not word[0].isupper()) >= 3


def _detect(text: str) -> tuple[str, float]:
    """The likeliest language and its probability, related ones together."""
    probabilities: Counter[str] = Counter()
    for language, probability in _detector().rank(" ".join(text[:_DETECTED_CHARS].split())):
        probabilities[_one(language)] += float(probability)  # type: ignore[assignment]
    return probabilities.most_common(1)[0]


def _one(language: str) -> str:
    base = language.replace("_", "-")
    return _ONE_LANGUAGE.get(base) or _ONE_LANGUAGE.get(base.partition("-")[0]) or base.partition("-")[0]


@functools.cache
def _detector() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # 120 MB, for those who ask for the gate alone

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    detector.set_languages([language for language in _CANDIDATES.split() if language in detector.labels])
    return detector
