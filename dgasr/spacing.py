"""Which characters are written without spaces between words, and how words become a text again."""

from collections.abc import Iterable

UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20"
)
"""Thai, Lao, Tibetan, Myanmar, Khmer, Kana, Han, and the punctuation of these; for a class of a regular expression."""

_RANGES = [(first, last) for first, last in zip(UNSPACED[::3], UNSPACED[2::3], strict=True)]


def join_words(texts: Iterable[str]) -> str:
    """Join words or longer pieces of text, with spaces where their writing has them.

    Args:
        texts: pieces in order; empty ones are left out.
    """
    joined = ""
    for text in texts:
        if text:
            joined += text if not joined or is_unspaced(joined[-1]) or is_unspaced(text[0]) else f" {text}"
    return joined


def is_unspaced(character: str) -> bool:
    """Say whether a character belongs to a writing without spaces between words."""
    return any(first <= character <= last for first, last in _RANGES)
