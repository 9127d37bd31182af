"""Text to the words that are compared: Whisper's way and the leaderboard's, for published figures, and a plain one.

Whisper's way rewrites numbers and joins spoken digits ("one two" becomes "12"), and takes Devanagari's vowel signs out.
The Open ASR leaderboard's way is that with ellipses gone and letters with dots joined (`u.s.` is `us`), and leaves out
utterances whose reference is empty then. Its merging of compounds in languages other than English is not done here.
The plain way (`basic`) keeps words as they were said and marks where they stand; `none` changes nothing, so that
capitals and punctuation count.
"""

import json
import logging
import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Literal, get_args

from dgasr.errors import ConfigError

logger = logging.getLogger(__name__)

Normalizer = Literal["whisper", "basic", "leaderboard", "none"]

SPELLED_LETTERS = re.compile(r"\b[a-z](?:\.[a-z])+\b\.?|\b(?:[a-z]\.\s)+[a-z]\.")
"""`u.s.` and `a. b. c.`, which the leaderboard reads as one word each."""

UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""What nobody sees beside format characters (Cf): fillers, and what chooses a variant of the character before it.

Source: Unicode 15, Default_Ignorable_Code_Point.
"""

LANGUAGES_WITHOUT_SPACES = frozenset({"zh", "cmn", "yue", "ja", "th", "lo", "my"})
"""Languages whose words are not separated: characters are compared instead. Source: Radford et al. 2022, appendix C."""


@lru_cache(maxsize=100_000)  # a report needs every text several times, and Whisper's way is slow
def normalise(text: str, language: str, normalizer: str) -> tuple[str, ...]:
    """Split text into the words that are compared; into characters in languages without spaces.

    The code of a language, `en` or `en-us`, decides how Whisper's way works and whether characters are words.

    Raises:
        ConfigError: an unknown normaliser.
    """
    if normalizer not in get_args(Normalizer):
        raise ConfigError(f"normalizer {normalizer!r} is not known. Choose one of {', '.join(get_args(Normalizer))}.")
    # marks of direction, of joining and of variants say nothing
    shown = "".join(c for c in UNSEEN.sub("", text) if unicodedata.category(c) != "Cf")
    if normalizer == "leaderboard":
        shown = SPELLED_LETTERS.sub(
            lambda letters: re.sub(r"[.\s]", "", letters[0]), re.sub(r"\.{3,}|…", " ", shown.lower())
        )
    ways: dict[str, Callable[[str], str]] = {"basic": basic, "none": str}
    words = (ways.get(normalizer) or _whisper(base_language(language)))(shown).split()
    return tuple("".join(words) if has_no_spaces(language) else words)


def has_no_spaces(language: str) -> bool:
    """Tell whether a language is written without spaces between words."""
    return base_language(language) in LANGUAGES_WITHOUT_SPACES


def loses_marks(text: str, language: str) -> bool:
    """Tell whether Whisper's way takes vowel signs and other marks out of this text, which changes words."""
    return base_language(language) != "en" and any(
        unicodedata.category(c)[0] == "M" for c in unicodedata.normalize("NFKC", text)
    )


def basic(text: str) -> str:
    """Lower the case and turn punctuation and symbols into spaces; marks and apostrophes inside words stay."""
    composed = unicodedata.normalize("NFKC", text).lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    kept = (" " if unicodedata.category(c)[0] in "PSZC" and c != "'" else c for c in composed)
    return " ".join(word for word in (word.strip("'") for word in "".join(kept).split()) if word)


def base_language(language: str) -> str:
    """Take region and script off a language code: `en` for `en-US`."""
    return re.split(r"[-_]", language.lower(), maxsplit=1)[0]


@cache
def _whisper(language: str) -> Callable[[str], str]:
    # Imported here: transformers takes a second to load, and the plain way does not need it.
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer(spelling_table()) if language == "en" else BasicTextNormalizer()


@cache
def spelling_table() -> dict[str, str]:
    """Find Whisper's table of British to American spellings, which transformers ships with its models, not its code.

    Empty, with a warning, where no Whisper model lies in the local cache.
    """
    from transformers.utils import cached_file

    try:
        path = str(cached_file("openai/whisper-small", "normalizer.json", local_files_only=True))
    except OSError:
        logger.warning(
            "openai/whisper-small is not in the local cache: British and American spellings count as different words. "
            "Fetch the table with `hf download openai/whisper-small normalizer.json`."
        )
        return {}
    with open(path, encoding="utf-8") as file:
        return dict(json.load(file))
