"""Text -> token ids and back, with control tokens only where trusted text puts them.

Control tokens (turn marks, end of sentence, `<image>`, `<|ref|>` ...) are cut out of template text here, by us; what
is left goes to the tokenizer with its own recognition of special tokens switched off. Text from an image, a caption
or a question therefore never becomes one, whatever it spells. Knows nothing of turns or images.
"""

import functools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders

USER, ASSISTANT = "<|User|>", "<|Assistant|>"
REF, REF_END, DET, DET_END, GROUNDING = "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>"

_CONTROL_SPELLING = re.compile(r"<[|｜].+[|｜]>")
"""Tokenizers of this vocabulary hold turn and tool marks (`<｜User｜>`) that are not flagged as special."""


@dataclass(frozen=True)
class Text:
    """A piece of a prompt. `trusted` text may hold control tokens; other text is data, and they are letters in it."""

    text: str
    trusted: bool


class ChatTokenizer:
    """A checkpoint's `tokenizer.json` with the family's control tokens."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        image_token: str,
        bos_token_id: int,
        eos_token_id: int,
        stop_token_ids: Collection[int] = (),
    ) -> None:
        """Takes the tokenizer over. Raises ValueError if one of the ids is not in the vocabulary.

        `eos_token_id` closes the assistant's turns and ends generation; so do the `stop_token_ids`.
        """
        self._tokenizer = tokenizer
        self.bos_token_id, self.eos_token_id = bos_token_id, eos_token_id
        self.stop_token_ids = frozenset([eos_token_id, *stop_token_ids])
        added = tokenizer.get_added_tokens_decoder().values()
        control = [token.content for token in added if token.special or _CONTROL_SPELLING.fullmatch(token.content)]
        ids = [("bos_token_id", bos_token_id), *(("eos_token_id", index) for index in sorted(self.stop_token_ids))]
        for name, index in ids:
            token = tokenizer.id_to_token(index)
            if token is None:
                raise ValueError(f"config.json: {name} is {index}, but the tokenizer has {self.vocab_size} tokens")
            control.append(token)
        control += [image_token, REF, REF_END, DET, DET_END, GROUNDING, USER, ASSISTANT]
        # As in the reference: what tokenizer.json lacks is appended, what it has as plain becomes special.
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()  # both may stand in the file, left there by whoever saved it
        tokenizer.no_padding()
        decoder = tokenizer.get_added_tokens_decoder()
        self._control_ids = {token.content: index for index, token in decoder.items() if token.special}
        self.image_token_id = self._control_ids[image_token]
        # Longest first: where one control token begins another, the longer one is meant.
        alternatives = sorted(self._control_ids, key=len, reverse=True)
        self._control_pattern = re.compile("(" + "|".join(map(re.escape, alternatives)) + ")")

    @classmethod
    def from_checkpoint(
        cls, folder: Path, *, image_token: str, bos_token_id: int | None, eos_token_id: int | None
    ) -> "ChatTokenizer":
        """Reads `tokenizer.json`; `tokenizer_config.json`, where there is one, says which tokens begin and end a text.

        The ids given are config.json's, or None where it leaves them out. They serve where the tokenizer names none;
        where both name an end of sentence, prompts have the tokenizer's, as in the reference, and either one stops.
        """
        path = folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: a checkpoint folder in the Hugging Face layout has one") from None
        except Exception as error:  # noqa: BLE001 - tokenizers raises bare Exception for any defect of the file
            raise ValueError(f"{path} is not a tokenizer ({error}): the download may be incomplete") from None
        named = _named_tokens(folder / "tokenizer_config.json")
        bos, eos = (_own_token_id(tokenizer, folder, named, name) for name in ("bos_token", "eos_token"))
        bos, eos = bos_token_id if bos is None else bos, eos_token_id if eos is None else eos
        if bos is None or eos is None:
            raise ValueError(f"{folder}: neither config.json nor tokenizer_config.json says how a text begins and ends")
        stop = [] if eos_token_id is None else [eos_token_id]
        return cls(tokenizer, image_token=image_token, bos_token_id=bos, eos_token_id=eos, stop_token_ids=stop)

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def largest_id(self) -> int:
        """A vocabulary may have gaps, so this says nothing of `vocab_size`."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def control_token_id(self, token: str) -> int:
        return self._control_ids[token]

    def encode(self, pieces: Sequence[Text]) -> list[int]:
        """Token ids of the pieces read as one text.

        Data next to template text is tokenised together with it (merges cross that boundary, as they would in the
        joined string); nothing merges across a control token.
        """
        ids: list[int] = []
        plain = ""
        for piece in pieces:
            # re.split with one group alternates plain text and control tokens, beginning with plain text
            for index, part in enumerate(self._control_pattern.split(piece.text) if piece.trusted else [piece.text]):
                if index % 2 == 0:
                    plain += part
                else:
                    ids += self._encode_plain(plain)
                    ids.append(self._control_ids[part])
                    plain = ""
        return ids + self._encode_plain(plain)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the ids, control tokens spelled out; ids past the vocabulary are left out."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=False)

    def token_bytes(self) -> dict[int, bytes]:
        """The UTF-8 bytes that each ordinary token adds to a text, by id; a token may hold part of a character.

        Control tokens are absent: whatever they are spelled like, they are no text. Raises ValueError for a tokenizer
        that is not byte-level, as its tokens may read differently from place to place.
        """
        self.require_byte_level()
        control_ids = set(self._control_ids.values())
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        return {index: _spelled_bytes(token) for token, index in vocabulary.items() if index not in control_ids}

    def bytes_of(self, token_id: int) -> bytes:
        """What one token adds to a decoded text, control tokens spelled out; b"" for an id past the vocabulary. Of a
        byte-level tokenizer, see `require_byte_level`."""
        token = self._tokenizer.id_to_token(token_id)
        return b"" if token is None else _spelled_bytes(token)

    def require_byte_level(self) -> None:
        """Raises ValueError for a tokenizer whose texts are not the bytes of its tokens one after another."""
        if not isinstance(self._tokenizer.decoder, decoders.ByteLevel):
            raise ValueError(f"the tokenizer's decoder is {self._tokenizer.decoder}, but must be ByteLevel")

    def _encode_plain(self, text: str) -> list[int]:
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids if text else []
        except TypeError:  # what tokenizers raises for a lone surrogate, which JSON can spell
            raise ValueError(f"text is no valid Unicode: {text[:80]!r}") from None


def _spelled_bytes(token: str) -> bytes:
    """As the byte-level decoder reads it: an added token may hold other characters, and stands for itself then."""
    byte_of = _byte_of_character()
    try:
        return bytes([byte_of[character] for character in token])
    except KeyError:
        return token.encode()


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """Byte-level vocabularies write printable Latin-1 bytes as themselves, the others in order from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


def _own_token_id(tokenizer: Tokenizer, folder: Path, named: Mapping[str, str], name: str) -> int | None:
    if name not in named:
        return None
    index = tokenizer.token_to_id(named[name])
    if index is None:
        raise ValueError(f"{folder / 'tokenizer_config.json'}: {name} {named[name]!r} is not in tokenizer.json")
    return index


def _named_tokens(path: Path) -> dict[str, str]:
    """`bos_token` and `eos_token` of a tokenizer_config.json, which spells them as text or as {"content": text}."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}): the download may be incomplete") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} holds {type(raw).__name__}, not an object")
    tokens = {name: raw.get(name) for name in ("bos_token", "eos_token")}
    contents = {name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()}
    return {name: content for name, content in contents.items() if isinstance(content, str)}
