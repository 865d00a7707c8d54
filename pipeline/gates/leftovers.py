# ruff: noqa: E501 - one pattern a line
"""An answer in the model's own words -> a placeholder that nobody has filled in, or the next turn of a dialogue.

A transcription may hold both: forms have fields, and screens show chats. What the answer quotes does not count.
"""

import re

from pipeline.gates.quotations import without_quotations

_CONTENT = r"(?:answer|caption|description|image|picture|photo|text|response)s?"
_THING = (
    r"(?:adjective|noun|verb|action|activity|object|item|animal|person|subject|name|place|location|city|country|setting"
    r"|background|colou?r|material|shape|size|number|date|year|time|brand|emotion|style)s?"
)
_SLOT = rf"\[{_THING}[ _]?\d{{0,2}}\](?!\()"
_PLACEHOLDERS = (
    rf"[\[<{{](?:insert|add|enter|write|put)[ _](?:[^\W_]+[ _]){{0,4}}(?:{_CONTENT}|{_THING}|here)\b[^\[\]<>{{}}\n]{{0,40}}[\]>}}]",
    rf"[\[<{{](?:your[ _]|the[ _])?{_CONTENT}[ _](?:goes[ _])?(?:here|(?:from|of)[ _][^\[\]<>{{}}\n]{{1,40}})[\]>}}]",
    rf"\A\W*[\[<{{](?:your[ _]|the[ _])?(?:{_CONTENT}[ _])?{_CONTENT}[\]>}}]\W*\Z",
    rf"\A\W*(?:todo|fixme)\b\W*(?:write|add|insert|fill|provide|complete)\b[^\n]{{0,40}}\b{_CONTENT}\b",
    rf"{_SLOT}[^\n]{{0,200}}{_SLOT}",
)
_PLACEHOLDER = re.compile("|".join(f"(?:{one})" for one in _PLACEHOLDERS), re.IGNORECASE)

_USER, _MODEL = r"(?:User|Human|USER|HUMAN)[ \t]*:", r"(?:Assistant|ASSISTANT|Bot|AI|Model)[ \t]*:"
_TURN = re.compile(rf"\n[ \t]*{_USER}(?:[^\n]*\n{{1,3}}[ \t]*{_MODEL}|\s*\Z)")
_BEGINS_WITH_TURN = re.compile(rf"\s*{_USER}")


def find_placeholder(text: str) -> str | None:
    found = _PLACEHOLDER.search(without_quotations(text))
    return " ".join(found[0].split())[:60] if found else None


def find_turn(text: str) -> str | None:
    """A turn of the user after the answer. Where a turn stands first, the text may be an account of a dialogue."""
    found = None if _BEGINS_WITH_TURN.match(text) else _TURN.search(text)
    return " ".join(found[0].split())[:60] if found else None
