"""The edit counts three ways: by hand, against a plain table of the textbook, and against jiwer."""

import random

import jiwer
import pytest

from dgasr.evaluation.scores import EditCounts, align, count_edits


def random_words(generator, longest=12):
    return [generator.choice(["one", "two", "three", "four"]) for _ in range(generator.randint(0, longest))]


def textbook_distance(reference, hypothesis):
    row = list(range(len(hypothesis) + 1))
    for i, said in enumerate(reference, 1):
        above, row = row, [i]
        for j, heard in enumerate(hypothesis, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (said != heard)))
    return row[-1]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("one two three", "one two three", EditCounts(0, 0, 0, 3)),
        ("one two three", "one three", EditCounts(0, 1, 0, 3)),
        ("one two three", "one two two three", EditCounts(0, 0, 1, 3)),
        ("one two three", "one nine three", EditCounts(1, 0, 0, 3)),
        ("one two three", "", EditCounts(0, 3, 0, 3)),
        ("", "one two", EditCounts(0, 0, 2, 0)),
    ],
)
def test_edits_counted_by_hand(reference, hypothesis, counts):
    assert count_edits(reference.split(), hypothesis.split()) == counts


def test_edits_are_as_few_as_the_textbook_finds_and_of_jiwers_kinds():
    generator = random.Random(1)
    for _ in range(300):
        reference, hypothesis = random_words(generator) or ["one"], random_words(generator)
        ours, theirs = (
            count_edits(reference, hypothesis),
            jiwer.process_words(" ".join(reference), " ".join(hypothesis)),
        )
        assert ours == EditCounts(theirs.substitutions, theirs.deletions, theirs.insertions, len(reference))
        assert ours.errors == textbook_distance(reference, hypothesis)


def test_character_edits_are_those_of_jiwer():
    generator = random.Random(3)
    for _ in range(100):
        reference, hypothesis = " ".join(random_words(generator) or ["one"]), " ".join(random_words(generator))
        assert count_edits(reference, hypothesis).rate == pytest.approx(jiwer.cer(reference, hypothesis))


def test_the_alignment_holds_the_counted_edits_and_every_word_once():
    generator = random.Random(4)
    for _ in range(300):
        reference, hypothesis = random_words(generator), random_words(generator)
        pairs, counts = align(reference, hypothesis), count_edits(reference, hypothesis)
        assert [i for i, _ in pairs if i is not None] == list(range(len(reference)))
        assert [j for _, j in pairs if j is not None] == list(range(len(hypothesis)))
        assert sum(j is None for _, j in pairs) == counts.deletions
        assert sum(i is None for i, _ in pairs) == counts.insertions
        both = [(i, j) for i, j in pairs if i is not None and j is not None]
        assert sum(reference[i] != hypothesis[j] for i, j in both) == counts.substitutions


def test_counts_are_added_before_they_are_divided():
    total = count_edits(["one"], ["two"]) + count_edits(["one"] * 9, ["one"] * 9)
    assert total.rate == pytest.approx(0.1)


def test_a_rate_without_reference_words_does_not_exist():
    assert count_edits([], ["one"]).rate is None


def test_an_hour_of_words_is_counted_at_once():
    generator = random.Random(5)
    reference = [generator.choice("abcdefgh") * 3 for _ in range(10_000)]
    assert count_edits(reference, reference[:5000] + reference[5001:]) == EditCounts(0, 1, 0, 10_000)
