"""Edits between reference and hypothesis: two word lists in, counts and word pairs out. Knows no normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rapidfuzz.distance import Levenshtein

Pair = tuple[int | None, int | None]
"""Positions of a reference word and its hypothesis word; `None` stands for a word inserted or deleted."""


@dataclass(frozen=True, slots=True)
class EditCounts:
    """Edits between reference and hypothesis; counts of several utterances add, and are divided once."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_words: int = 0

    def __add__(self, other: "EditCounts") -> "EditCounts":
        return EditCounts(
            self.substitutions + other.substitutions, self.deletions + other.deletions,
            self.insertions + other.insertions, self.reference_words + other.reference_words,
        )  # fmt: skip

    @property
    def errors(self) -> int:
        """Edits of all three kinds."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Errors per reference word; `None` where the references hold no word at all, so that no rate exists."""
        return self.errors / self.reference_words if self.reference_words else None


def count_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> EditCounts:
    """Count the fewest edits that turn the reference into the hypothesis.

    Args:
        reference: what was said: words for WER, a text for CER.
        hypothesis: what was recognised, of the same kind.

    Source:
        Levenshtein 1966; where several shortest edits exist the split into kinds is rapidfuzz's, as in jiwer.
    """
    edits = [edit.tag for edit in Levenshtein.editops(reference, hypothesis)]
    return EditCounts(edits.count("replace"), edits.count("delete"), edits.count("insert"), len(reference))


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    """Pair the words of reference and hypothesis along the edits that `count_edits` counts.

    Returns:
        Pairs in order; every position of either side occurs once.
    """
    pairs: list[Pair] = []
    for edit in Levenshtein.opcodes(reference, hypothesis):
        # The two stretches are equally long, but for a deletion or an insertion, where one of them is empty.
        said, heard = range(edit.src_start, edit.src_end), range(edit.dest_start, edit.dest_end)
        pairs += zip_longest(said, heard)
    return pairs
