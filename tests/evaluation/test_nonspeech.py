from dgasr.evaluation.groups import non_speech_rows
from dgasr.evaluation.scores import ScoredSegment, ScoredUtterance


def heard(set_name, *segments, reference=""):
    return ScoredUtterance(
        audio_filepath="a.wav",
        language="en",
        audio_s=10.0,
        reference=reference,
        hypothesis="",
        segments=tuple(ScoredSegment(num_words=words, flags=flags) for words, flags in segments),
        set_name=set_name,
    )


def test_segments_with_words_are_counted_and_those_flagged():
    music = heard("music", (3, ("low_confidence",)), (1, ()), (0, ("ctc_empty",)))
    [row, _] = non_speech_rows([music])
    assert (row["num_segments"], row["with_words"], row["with_words_flagged"], row["num_words"]) == (3, 2, 1, 4)


def test_sets_come_first_and_all_last():
    rows = non_speech_rows([heard("noise"), heard("music", (1, ())), heard(None, (1, ()))])
    assert [(row["name"], row["with_words"], row["audio_s"]) for row in rows] == [
        ("music", 1, 10.0),
        ("noise", 0, 10.0),
        ("all", 2, 30.0),
    ]


def test_utterances_with_a_reference_are_left_out():
    assert non_speech_rows([heard("books", (1, ()), reference="one")]) == []
