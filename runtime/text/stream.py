"""Token ids to text as they come, never half a character.

Works on the bytes behind the tokens, for which the tokenizer must be a byte-level one: all of the family are.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection
from functools import lru_cache
from typing import Optional

import tokenizers

from motedge.errors import BundleError


class TextStream:
    """Decodes one reply. Bytes that are no UTF-8 become U+FFFD, as in the tokenizer's own decoding."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, *, shown: Collection[str] = ()) -> None:
        """Starts an empty text.

        Args:
            tokenizer: a byte-level one.
            shown: special tokens that stay in the text; all others are left out.

        Raises:
            BundleError: not a byte-level tokenizer.
        """
        if not isinstance(tokenizer.decoder, tokenizers.decoders.ByteLevel):
            raise BundleError(
                "the tokenizer can't be streamed",
                expected="a byte-level decoder",
                got=type(tokenizer.decoder).__name__,
                fix="take the checkpoint's tokenizer.json",
            )
        self._tokenizer = tokenizer
        self._hidden = {
            index
            for index, token in tokenizer.get_added_tokens_decoder().items()
            if token.special and token.content not in shown
        }
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that a token completes; "" while a character is still incomplete."""
        if token_id in self._hidden:
            return ""
        token: Optional[str] = self._tokenizer.id_to_token(token_id)
        # Embedding tables are padded: ids without a token say nothing
        return "" if token is None else self._decoder.decode(_token_bytes(token))

    def finish(self) -> str:
        """What was held back: U+FFFD if the reply ended within a character."""
        return self._decoder.decode(b"", final=True)


def _token_bytes(token: str) -> bytes:
    alphabet = _byte_of_character()
    try:
        return bytes(alphabet[character] for character in token)
    except KeyError:
        # An added token is written as it is
        return token.encode("utf-8")


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """The byte-level alphabet (GPT-2): printable Latin-1 stands for itself, other bytes for U+0100 onwards."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [byte for byte in range(256) if byte not in plain]
    characters = {chr(byte): byte for byte in plain}
    characters.update({chr(0x100 + number): byte for number, byte in enumerate(other)})
    return characters
