"""What a segment becomes does not depend on its company. All comparisons are exact: text, times, confidence, steps."""

import random
from dataclasses import replace

import pytest
import torch

from dgasr.diffusion import denoise
from dgasr.errors import ConfigError
from dgasr.transcriber import Transcriber
from dgasr.transcriber import segments as composition
from dgasr.transcriber.encoding import CtcText, SegmentEncoder


@pytest.fixture(scope="module")
def run(model, recipe):
    def run_segments(segments, batch_size):
        transcripts = Transcriber(model, recipe, batch_size).transcribe(segments)
        return {transcript.segment: transcript for transcript in transcripts}

    return run_segments


@pytest.fixture(scope="module")
def wanted(run, segments):
    return run(segments, 8)


def test_every_segment_has_one_transcript(model, recipe, segments):
    transcripts = list(Transcriber(model, recipe, 3).transcribe(segments))
    found = sorted(transcript.segment.segment_index for transcript in transcripts)
    assert found == list(range(len(segments)))


def test_these_segments_differ_in_length_steps_and_text(wanted):
    assert len({transcript.canvas_tokens for transcript in wanted.values()}) > 1
    assert len({transcript.num_steps for transcript in wanted.values()}) > 1
    assert len({transcript.text for transcript in wanted.values()}) > 4


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_batch_size_changes_nothing(run, segments, wanted, batch_size):
    assert run(segments, batch_size) == wanted


def test_the_order_changes_nothing(run, segments, wanted):
    shuffled = random.Random(3).sample(segments, len(segments))
    assert run(shuffled, 3) == wanted


def test_a_segment_alone_is_what_it_is_in_company(run, segments, wanted):
    segment = segments[4].segment
    assert run(segments[4:5], 8) == {segment: wanted[segment]}


def test_reading_beside_the_next_steps_changes_nothing(run, segments, wanted, monkeypatch):
    monkeypatch.setattr(composition, "waits_for", lambda device: True)
    assert run(segments, 3) == wanted


@pytest.fixture(scope="module")
def seeded_recipe(recipe):
    return replace(recipe, decode=replace(recipe.decode, seed_canvas="ctc"))


@pytest.fixture(scope="module")
def run_seeded(model, seeded_recipe):
    def run_segments(segments, batch_size):
        transcripts = Transcriber(model, seeded_recipe, batch_size).transcribe(segments)
        return {transcript.segment: transcript for transcript in transcripts}

    return run_segments


@pytest.fixture(scope="module")
def wanted_seeded(run_seeded, segments):
    return run_seeded(segments, 8)


def test_seeded_canvases_become_something_else(wanted, wanted_seeded):
    assert wanted.keys() == wanted_seeded.keys()
    assert wanted != wanted_seeded


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_batch_size_changes_nothing_for_seeded_canvases(run_seeded, segments, wanted_seeded, batch_size):
    assert run_seeded(segments, batch_size) == wanted_seeded


def test_the_order_changes_nothing_for_seeded_canvases(run_seeded, segments, wanted_seeded):
    assert run_seeded(random.Random(3).sample(segments, len(segments)), 3) == wanted_seeded


@pytest.fixture
def jobs_of(model, seeded_recipe, segments, monkeypatch):
    """Function: the job of the shortest segment when CTC hears the given ids in it, each with probability 0.5."""
    shortest = min(segments, key=lambda item: item.segment.num_samples)
    (encoded,) = SegmentEncoder(model, seeded_recipe, 1).encode([shortest])

    def jobs(heard, recipe=seeded_recipe):
        text = CtcText(ids=tuple(heard), probabilities=(0.5,) * len(heard), end_probability=0.25)
        listened = replace(encoded, texts=[text], scores=torch.empty(0))
        found = []
        monkeypatch.setattr(SegmentEncoder, "encode_batch", lambda self, features: [listened])
        monkeypatch.setattr(
            composition, "denoise",
            lambda decoder, head, jobs, **options: found.extend(job for job, _ in decoder.encode([*jobs])) or [],
        )  # fmt: skip
        list(Transcriber(model, recipe, 1).transcribe([shortest]))
        return found

    return jobs


def test_a_seed_is_what_ctc_hears_and_its_end(model, jobs_of):
    (job,) = jobs_of([9, 10])
    assert job.seed.ids == (9, 10, model.config.prompt.end_text_ids[0])
    assert job.seed.probabilities == (0.5, 0.5, 0.25)
    assert job.seed.pad_id == model.config.prompt.pad_id


def test_a_seed_that_its_canvas_does_not_hold_gets_a_larger_one(model, jobs_of):
    (small,) = jobs_of([9])
    as_long = [9, 10] * (small.canvas_tokens // 2)
    assert jobs_of(as_long[1:])[0].canvas_tokens == small.canvas_tokens
    assert jobs_of(as_long)[0].canvas_tokens > small.canvas_tokens  # the end takes a position too


def test_a_seed_longer_than_every_canvas_gets_the_largest(model, jobs_of):
    largest = model.config.canvas.buckets[-1]
    assert jobs_of([9, 10] * largest)[0].canvas_tokens == largest


def test_canvases_have_no_seed_unless_asked_for(jobs_of, recipe):
    assert [job.seed for job in jobs_of([9], recipe)] == [None]


def test_words_spell_the_text_in_order_inside_the_segment(wanted):
    for segment, transcript in wanted.items():
        assert " ".join(word.word for word in transcript.words) == transcript.text
        edges = [edge for word in transcript.words for edge in (word.start_sample, word.end_sample)]
        assert edges == sorted(edges)
        assert all(segment.start_sample <= edge <= segment.end_sample for edge in edges)


def test_confidence_is_a_probability_of_every_word_and_segment(wanted):
    for transcript in wanted.values():
        assert 0 <= transcript.confidence <= 1
        assert all(0 <= word.confidence <= 1 for word in transcript.words)


def test_segments_are_pulled_a_number_of_batches_ahead_only(model, recipe, segments):
    pulled = []

    def endless():
        while True:
            pulled.append(1)
            yield segments[len(pulled) % len(segments)]

    next(Transcriber(model, recipe, 2).transcribe(endless()))
    assert len(pulled) <= 2 * (denoise.LOOK_AHEAD_BATCHES + 1)


def test_no_segments_are_no_transcripts(run):
    assert run([], 3) == {}


def test_a_batch_without_rows_is_refused(model, recipe):
    with pytest.raises(ConfigError, match="--batch-size 0"):
        Transcriber(model, recipe, 0)
