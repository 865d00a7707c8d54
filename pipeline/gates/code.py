"""Code of an answer and the language it is in -> why it cannot be read, or None. Nothing of it is ever run."""

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable

_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr")
)
_TABLE_PARTS = ("tr", "td", "th", "thead", "tbody", "tfoot", "colgroup", "caption")
_MAY_STAY_OPEN = frozenset(
    ("html", "head", "body", "p", "li", "dt", "dd", "option", "optgroup", "rt", "rp", *_TABLE_PARTS)
)
_RAW_TEXT = {tag: re.compile(f"</{tag}", re.IGNORECASE) for tag in ("script", "style", "textarea", "title")}
_HTML_PIECE = re.compile(
    r"<!--.*?(?:-->|\Z)|<[!?][^>]*+>?"
    r"|<(?P<slash>/?)(?P<name>[a-zA-Z][^\s/<>]*+)(?P<attributes>(?:[^\"'<>]|\"[^\"]*+\"|'[^']*+')*+)(?P<close>>?)",
    re.DOTALL,
)
_LATEX_SPACE = re.compile(r"\\q?quad\b|\\[hv]space\*?\s*\{[^{}]*\}|\\[,;:!> \\]|[\s~&{}]")
_LATEX_SIGN = re.compile(r"[\\^_=+<>{}|/*]|\d")
_PLAIN_WORDS = re.compile(r"(?:[A-Za-z]{2,}[ ,.]+){3,}[A-Za-z]{2,}")
_LATEX_PIECE = re.compile(r"\\begin\s*\{(?P<begin>[^{}]*)\}|\\end\s*\{(?P<end>[^{}]*)\}|\\.|%[^\n]*|[{}]", re.DOTALL)


def why_code_is_broken(code: str, language: str) -> str | None:
    """None also where the language is one that is not looked at."""
    check = _CHECKS.get(language.strip().casefold())
    return check(code) if check else None


def _python(code: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd, but lawful escapes
            tree = ast.parse(code)
    except SyntaxError as error:
        return f"Python does not parse: {error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"Python does not parse: {error or type(error).__name__}"
    return None if tree.body else "there is no statement in it"


def _json(code: str) -> str | None:
    try:
        json.loads(code)
    except (ValueError, RecursionError) as error:
        return f"JSON does not parse: {error}"
    return None


class _Elements:
    """Those that are open, and the first that ends wrongly."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self._num_open: Counter[str] = Counter()
        self.num_tags = 0
        self.num_cells = 0
        self.num_tables = 0
        self.problem: str | None = None

    def begin(self, tag: str) -> None:
        self.num_tags += 1
        self.num_tables += tag == "table"
        self.num_cells += tag in ("td", "th")
        if tag not in _VOID:
            self.open.append(tag)
            self._num_open[tag] += 1

    def end(self, tag: str) -> None:
        if tag in _VOID or tag == "p":  # a lone </p> is lawful
            return
        if not self._num_open[tag]:
            self.problem = self.problem or f"</{tag}> ends what was not begun"
            return
        while (last := self._pop()) != tag:
            if last not in _MAY_STAY_OPEN:
                self.problem = self.problem or f"<{last}> is still open at </{tag}>"

    def _pop(self) -> str:
        tag = self.open.pop()
        self._num_open[tag] -= 1
        return tag


def _html(code: str) -> str | None:
    """Whether its elements are balanced. The standard library's parser takes quadratic time where tags do not end, and
    so do those of a model's output that loops."""
    elements, place = _Elements(), 0
    while piece := _HTML_PIECE.search(code, place):
        place, tag = piece.end(), (piece["name"] or "").casefold()
        if not tag:
            continue  # a comment or a declaration
        if not piece["close"]:
            return f"{piece[0][:40]!r} does not end"
        if piece["slash"]:
            elements.end(tag)
        elif piece["attributes"].rstrip().endswith("/"):
            elements.num_tags += 1
        else:
            elements.begin(tag)
            if tag in _RAW_TEXT:
                raw_end = _RAW_TEXT[tag].search(code, place)
                place = raw_end.start() if raw_end else len(code)
    if elements.problem:
        return elements.problem
    left = [tag for tag in elements.open if tag not in _MAY_STAY_OPEN]
    if left:
        return f"<{left[-1]}> does not end"
    if elements.num_tables and not elements.num_cells:
        return "there is no cell in its table"
    return None if elements.num_tags else "there is no tag in it"


def _latex(code: str) -> str | None:
    if not _LATEX_SPACE.sub("", code):
        return "there is nothing in it but space"
    if _PLAIN_WORDS.search(code) and not _LATEX_SIGN.search(code):
        return "it is a sentence, and no formula"
    stack: list[str] = []
    for piece in _LATEX_PIECE.finditer(code):
        if piece["begin"] is not None or piece[0] == "{":
            stack.append(piece["begin"] if piece["begin"] is not None else "{")
        elif piece["end"] is not None or piece[0] == "}":
            wanted = "{" if piece["end"] is None else piece["end"]
            if not stack or stack.pop() != wanted:
                return f"{piece[0]} ends what was not begun"
    return f"{stack[-1]} does not end" if stack else None


_CHECKS: dict[str, Callable[[str], str | None]] = {
    "python": _python,
    "py": _python,
    "json": _json,
    "html": _html,
    "latex": _latex,
    "tex": _latex,
}
