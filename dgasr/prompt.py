"""Text to token ids and back, and the prompt with its audio slots. Knows a tokenizer and ids, no model."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex

from dgasr.errors import ConfigError
from dgasr.records import UNSPACED

WORD_LIST_FILE = "words.txt"
"""Beside the tokenizer: the words that transcripts are made of, one a line."""

LANGUAGE_NAMES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "hi": "Hindi", "zh": "Chinese",
}  # fmt: skip
"""English names of the languages of the reference system, for the prompt."""

_WORD = regex.compile(f"(?!\\s)[{UNSPACED}][\\p{{M}}\\p{{Cf}}]*|[^\\s{UNSPACED}]+")
"""A character of a writing without spaces with its marks and what nobody sees behind it; else all up to white space."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptConfig:
    """How audio is put before the backbone.

    template: prompt text; `{audio}` stands for the audio slots, `{language}` for the language's English name.
    begin_audio_id, audio_id, end_audio_id: token ids around and in the slots.
    end_text_ids: ids that end a transcript on the canvas; the first one is written in training.
    pad_id: fills the canvas after the end.
    """

    template: str
    begin_audio_id: int
    audio_id: int
    end_audio_id: int
    end_text_ids: tuple[int, ...]
    pad_id: int = 0


class WordList:
    """Known words, as transcripts write them."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = sorted(set(words))
        self._known = frozenset(self._words)

    @classmethod
    def load(cls, path: Path) -> "WordList":
        """Read a file with one word a line."""
        return cls(path.read_text(encoding="utf-8").split())

    def save(self, path: Path) -> None:
        """Write what `load` reads."""
        path.write_text("\n".join(self._words) + "\n", encoding="utf-8")

    def __contains__(self, word: str) -> bool:
        return word in self._known

    def has_beginning(self, letters: str) -> bool:
        """Tell whether a word begins with these letters."""
        place = bisect_left(self._words, letters)
        return place < len(self._words) and self._words[place].startswith(letters)

    def num_unknown(self, text: str) -> int:
        """Count the words of a text that are not on the list."""
        return sum(word not in self._known for word in text.split())


@dataclass(frozen=True, slots=True)
class Spelling:
    """The words of a text that grows piece by piece.

    num_unknown: finished words that are not on the list.
    word: the letters of the word that is not finished.
    """

    num_unknown: int = 0
    word: str = ""

    def extended(self, piece: str, words: WordList) -> "Spelling":
        """Append a piece, in which a space stands where a word begins."""
        letters, *begun = piece.split(" ")
        spelling = Spelling(self.num_unknown, self.word + letters)
        for letters in begun:
            spelling = Spelling(spelling.num_finished(words), letters)
        return spelling

    def num_finished(self, words: WordList) -> int:
        """Count the unknown words if the text ends here."""
        return self.num_unknown + (bool(self.word) and self.word not in words)

    def num_unfinished(self, words: WordList) -> int:
        """Count the words that are unknown whatever follows."""
        return self.num_unknown + (not words.has_beginning(self.word))


class Tokenizer:
    """The few things this project asks of a Hugging Face tokenizer.

    Args:
        tokenizer: a `PreTrainedTokenizerFast`.
        unknown_id: the id of unknown words, or `None` for vocabularies that spell everything.
        word_list: the words that transcripts are made of, or `None` where any may be.
    """

    def __init__(self, tokenizer: Any, unknown_id: int | None, word_list: WordList | None = None) -> None:
        self._tokenizer = tokenizer
        self._unknown_id = unknown_id
        self.word_list = word_list

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read a folder's tokenizer; ConfigError where it holds none."""
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        try:
            if (folder / "tokenizer_config.json").is_file():
                tokenizer = AutoTokenizer.from_pretrained(folder)
            else:
                tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), unk_token="<unk>")
        except Exception as error:  # the tokenizers library raises bare Exception for a missing or broken file
            raise ConfigError(f"{folder}: no usable tokenizer ({error}). Give a folder with tokenizer.json.") from error
        words = folder / WORD_LIST_FILE
        return cls(tokenizer, tokenizer.unk_token_id, WordList.load(words) if words.is_file() else None)

    def encode(self, text: str) -> list[int]:
        """Turn a transcript into ids, without special tokens; ConfigError where a word is not in the vocabulary."""
        ids = self.encode_template(text)
        if self._unknown_id is not None and self._unknown_id in ids:
            unknown = sorted({word for word in text.split() if self._unknown_id in self.encode_template(word)})
            raise ConfigError(
                f"{text!r}: not in the model's vocabulary: {' '.join(unknown)}. "
                "Change the text, or train a model that knows the words."
            )
        return ids

    def encode_template(self, text: str) -> list[int]:
        """Turn part of a prompt into ids; special tokens in the text become theirs."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: list[int]) -> str:
        """Turn ids into text, without special tokens."""
        return self._tokenizer.decode(ids, skip_special_tokens=True).strip()

    def words(self, ids: list[int]) -> list[tuple[str, int, int]]:
        """Split a transcript into words and say which tokens spell each.

        A word ends at white space; Han, Kana and Thai characters, written without spaces, are words of their own with
        their marks. Yields (word, first token, token after the last one), in order; a token that spells two words
        belongs to both.
        """
        text, ends = "", [0]  # ends[k + 1]: length of the text that the first k + 1 tokens spell
        for count in range(1, len(ids) + 1):
            text = self._tokenizer.decode(ids[:count], skip_special_tokens=True)
            ends.append(max(len(text.rstrip("\ufffd")), ends[-1]))  # half a character is not yet one
        return [
            (word.group(), _token_at(ends, word.start()), bisect_left(ends, word.end()))
            for word in _WORD.finditer(text)
        ]

    def pieces(self) -> list[str]:
        """Spell every token, a space where a word begins."""
        tokens = self._tokenizer.convert_ids_to_tokens(range(len(self._tokenizer)))
        return [token.replace("\u2581", " ") for token in tokens]

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        self._tokenizer.save_pretrained(folder)
        if self.word_list:
            self.word_list.save(folder / WORD_LIST_FILE)


def _token_at(ends: list[int], position: int) -> int:
    """Find the first token that helps to spell the character at `position`."""
    index = bisect_left(ends, position)
    return index if ends[index] == position else index - 1


def build_prompt(tokenizer: Tokenizer, config: PromptConfig, num_audio_tokens: int, language: str) -> tuple[int, ...]:
    """Fill a prompt template: token ids with the audio id in every slot, one slot after the other.  [prompt]

    `language` is an ISO 639-1 code.
    """
    name = LANGUAGE_NAMES.get(language, language)
    before, after = config.template.format(audio="\0", language=name).split("\0")
    slots = (config.begin_audio_id, *(config.audio_id,) * num_audio_tokens, config.end_audio_id)
    return (*tokenizer.encode_template(before), *slots, *tokenizer.encode_template(after))


def canvas_ids(text_ids: list[int], canvas_tokens: int, end_id: int, pad_id: int) -> list[int]:
    """Lay a transcript on a canvas: its ids, the end of text, pads; ConfigError where they do not fit."""
    if len(text_ids) >= canvas_tokens:
        raise ConfigError(f"{len(text_ids)} tokens and the end of text do not fit a canvas of {canvas_tokens}.")
    return [*text_ids, end_id, *[pad_id] * (canvas_tokens - len(text_ids) - 1)]
