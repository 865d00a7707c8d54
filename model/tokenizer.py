"""Text -> token ids and back, with control tokens only where trusted text puts them.

Control tokens (turn marks, end of sentence, `<image>`, `<|ref|>` ...) are cut out of template text here, by us; what
is left goes to the tokenizer with its own recognition of special tokens switched off. Text from an image, a caption
or a question therefore never becomes one, whatever it spells. Knows nothing of turns or images.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

USER, ASSISTANT = "<|User|>", "<|Assistant|>"
REF, REF_END, DET, DET_END, GROUNDING = "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>"


@dataclass(frozen=True)
class Text:
    """A piece of a prompt. `trusted` text may hold control tokens; other text is data, and they are letters in it."""

    text: str
    trusted: bool


class ChatTokenizer:
    """A checkpoint's `tokenizer.json` with the family's control tokens."""

    def __init__(self, tokenizer: Tokenizer, *, image_token: str, bos_token_id: int, eos_token_id: int) -> None:
        """Raises ValueError if the ids of the configuration are not in the vocabulary."""
        named = [image_token, REF, REF_END, DET, DET_END, GROUNDING, USER, ASSISTANT]
        # As in the reference: what tokenizer.json lacks is appended, what it has as plain becomes special.
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in named])
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._control_ids = {token.content: index for index, token in added.items() if token.special}
        self.bos_token_id, self.eos_token_id = bos_token_id, eos_token_id
        for name, index in (("bos_token_id", bos_token_id), ("eos_token_id", eos_token_id)):
            token = tokenizer.id_to_token(index)
            if token is None:
                raise ValueError(f"config.json: {name} is {index}, but the tokenizer has {self.vocab_size} tokens")
            self._control_ids.setdefault(token, index)
        self.image_token_id = self._control_ids[image_token]
        # Longest first: where one control token begins another, the longer one is meant.
        alternatives = sorted(self._control_ids, key=len, reverse=True)
        self._control_pattern = re.compile("(" + "|".join(map(re.escape, alternatives)) + ")")

    @classmethod
    def from_checkpoint(
        cls, folder: Path, *, image_token: str, bos_token_id: int, eos_token_id: int
    ) -> "ChatTokenizer":
        path = folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: a checkpoint folder in the Hugging Face layout has one") from None
        except Exception as error:  # noqa: BLE001 - tokenizers raises bare Exception for any defect of the file
            raise ValueError(f"{path} is not a tokenizer ({error}): the download may be incomplete") from None
        return cls(tokenizer, image_token=image_token, bos_token_id=bos_token_id, eos_token_id=eos_token_id)

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

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

    def _encode_plain(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids if text else []
