"""The words of a language, for decoding that would rather write one of them than what merely sounds like it.

Texts in the making in, the number of their words that are not on the list out. Knows no tokens, scores or models.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class WordList:
    """Known words.

    Args:
        words: as transcripts write them, in any order.
    """

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
