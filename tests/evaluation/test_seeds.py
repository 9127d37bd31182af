import pytest

from dgasr.evaluation.report import Evaluation, compare_with
from dgasr.evaluation.scores import ScoredUtterance
from dgasr.evaluation.tables import seeds_table


def evaluation(*hypotheses: str, steps: tuple[int, ...], seed_canvas: str = "random") -> Evaluation:
    """Utterances of "one two", heard in these ways after so many steps."""
    utterances = tuple(
        ScoredUtterance(
            audio_filepath="a.wav", language="en", audio_s=1.0, reference="one two", hypothesis=text, num_steps=(spent,)
        )
        for text, spent in zip(hypotheses, steps, strict=True)
    )
    return Evaluation(
        utterances=utterances,
        normalizer="basic",
        metric="wer",
        max_steps=8,
        path="diffusion",
        wall_s=1.0,
        seed_canvas=seed_canvas,
    )


def test_each_way_is_set_against_the_first():
    noise = evaluation("one two", "one", "two two", "one two", steps=(2, 3, 8, 8))
    seeded = evaluation("one two", "one two", "two two", "one two", steps=(2, 2, 2, 8), seed_canvas="ctc")
    first, second = compare_with(noise, [seeded])
    assert (first["difference"], first["same_text"]) == (0.0, 1.0)
    assert (second["wer"], second["difference"], second["same_text"]) == (0.125, -0.125, 0.75)
    assert second["difference_95"][0] < -0.125 < second["difference_95"][1] + 1e-9
    assert first["left_after"] == {1: 0.0, 2: 0.25, 3: 0.5, 4: 0.5}
    assert second["left_after"] == {1: 0.0, 2: 0.75, 3: 0.75, 4: 0.75}


def test_the_table_has_a_line_for_each_way():
    noise = evaluation("one two", "one", steps=(2, 4))
    *_, line = seeds_table(compare_with(noise, [])).splitlines()
    assert (
        line == "| 8 | random | 25.00 % (0.00 to 50.00) | +0.00 (0.00 to 0.00) | 3.00 | 0 / 50 / 50 / 100 % | 100.0 % |"
    )


def test_without_a_reference_word_the_difference_is_undefined():
    nothing = Evaluation(
        utterances=(ScoredUtterance(audio_filepath="a", language="en", audio_s=1, reference="", hypothesis=""),),
        normalizer="basic", metric="wer", max_steps=8, path="diffusion", wall_s=1.0,
    )  # fmt: skip
    (row,) = compare_with(nothing, [])
    assert (row["difference"], row["difference_95"]) == (None, None)
    assert "undefined" in seeds_table([row])


def test_evaluations_of_other_manifests_cannot_be_compared():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        compare_with(evaluation("one", steps=(1,)), [evaluation("one", "two", steps=(1, 1))])
