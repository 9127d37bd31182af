import copy
from dataclasses import replace

import pytest
import torch

from dgasr.features import pad_features
from dgasr.prompt import build_prompt
from dgasr.transcriber.encoding import SegmentEncoder, aligned_log_probs
from dgasr.transcriber.reading import read_transcript, transcribe_autoregressively, transcribe_by_ctc


@pytest.fixture(scope="module")
def encoded(model, recipe, segments):
    (encoded,) = SegmentEncoder(model, recipe, 1).encode(segments[2:3])
    return encoded


@pytest.fixture(scope="module")
def read(model, recipe):
    """Function: the transcript of a segment's ids; against what CTC reads, unless said."""

    def of(encoded, ids, probabilities, **options):
        log_probs = aligned_log_probs(model, encoded, torch.tensor(ids, dtype=torch.long)).numpy()
        options = {"alternative_ids": encoded.ctc.ids, **options}
        return read_transcript(model.tokenizer, recipe, encoded.features, ids, probabilities, log_probs, **options)

    return of


def test_ids_become_text_and_words_with_times_of_the_recording(model, read, encoded):
    ids = model.tokenizer.encode("three one four")
    transcript = read(encoded, ids, [0.9, 0.8, 0.7], num_steps=5, canvas_tokens=16)
    segment = encoded.features.segment
    assert transcript.text == "three one four"
    assert [word.word for word in transcript.words] == ["three", "one", "four"]
    assert all(segment.start_sample <= w.start_sample < w.end_sample <= segment.end_sample for w in transcript.words)
    assert (transcript.timing_source, transcript.language) == ("ctc", "en")
    assert (transcript.num_steps, transcript.canvas_tokens) == (5, 16)


def test_what_the_decoder_doubts_is_less_sure(model, read, encoded):
    ids = model.tokenizer.encode("three one")
    sure, unsure = (read(encoded, ids, [one, 0.9]) for one in (0.9, 0.1))
    assert unsure.words[0].confidence < sure.words[0].confidence
    assert unsure.words[1].confidence == sure.words[1].confidence


def test_no_ids_are_an_empty_text_without_times(read, encoded):
    transcript = read(encoded, [], [])
    assert (transcript.text, transcript.words, transcript.timing_source) == ("", (), "none")
    assert 0 <= transcript.confidence <= 1


def test_a_canvas_that_did_not_settle_or_hold_the_text_is_flagged(model, read, encoded):
    ids = model.tokenizer.encode("three")
    plain = read(encoded, ids, [0.9])
    doubted = read(encoded, ids, [0.9], is_settled=False, is_overflow=True)
    assert set(doubted.flags) - set(plain.flags) == {"unsettled", "overflow"}


def test_text_where_ctc_hears_nothing_is_flagged(model, read, encoded):
    assert "no_speech" in read(encoded, model.tokenizer.encode("one"), [0.9], alternative_ids=()).flags


def test_a_text_that_was_preferred_to_quite_another_is_flagged(model, read, encoded):
    ids, other = (model.tokenizer.encode(text) for text in ("one two", "six"))
    alike = read(encoded, ids, [0.9, 0.9], alternative_ids=ids)
    unlike = read(encoded, ids, [0.9, 0.9], alternative_ids=other)
    assert set(unlike.flags) - set(alike.flags) == {"ctc_disagrees"}


def test_special_tokens_on_the_canvas_are_no_words(model, read, encoded):
    ids = [model.config.prompt.audio_id, *model.tokenizer.encode("one"), model.config.blank_id]
    transcript = read(encoded, ids, [0.5, 0.9, 0.5])
    assert transcript.text == "one"
    assert [word.word for word in transcript.words] == ["one"]


def audio_embeddings(model, recipe, features):
    log_mel = torch.from_numpy(pad_features([features], recipe.features))
    return model.projector(model.encode_audio(log_mel))


def logits(model, states):
    return model.config.softcap * torch.tanh(states @ model.head_weight.T / model.config.softcap)


def greedy_without_a_cache(model, recipe, features):
    """Take token after token, all that came before it run again each time."""
    config = model.config
    prompt = build_prompt(model.tokenizer, config.prompt, config.num_audio_tokens, "en")
    embeddings = model.prompt_embeddings(torch.tensor(prompt), audio_embeddings(model, recipe, features))
    ids = []
    while len(ids) < config.canvas.buckets[-1]:
        text = model.backbone.model.encoder.get_input_embeddings()(torch.tensor([ids], dtype=torch.long))
        states, _ = model.prefill(torch.cat([embeddings, text], dim=1))
        token = int(logits(model, states[0, -1]).argmax())
        if token in config.prompt.end_text_ids:
            break
        ids.append(token)
    return ids


@pytest.mark.parametrize("batch_size", [1, 4])
def test_ctc_alone_gives_the_text_that_it_reads(model, recipe, segments, batch_size):
    transcripts = transcribe_by_ctc(model, recipe, batch_size, segments[:5])
    for encoded, transcript in zip(SegmentEncoder(model, recipe, 3).encode(segments[:5]), transcripts, strict=True):
        assert transcript.text == model.tokenizer.decode(list(encoded.ctc.ids))


def test_ctc_takes_no_decoder_step(model, recipe, segments):
    assert {transcript.num_steps for transcript in transcribe_by_ctc(model, recipe, 4, segments)} == {0}


def test_the_autoregressive_text_is_that_of_a_loop_without_a_cache(model, recipe, segments):
    transcripts = list(transcribe_autoregressively(model, recipe, 3, segments[2:4]))
    texts = [model.tokenizer.decode(greedy_without_a_cache(model, recipe, features)) for features in segments[2:4]]
    assert [transcript.text for transcript in transcripts] == texts
    assert all(texts)


def test_the_autoregressive_text_stops_at_the_end_of_text(model, recipe, segments):
    ids = greedy_without_a_cache(model, recipe, segments[0])
    ender = next(token for token in ids if token != ids[0])
    other = copy.copy(model)
    other.config = replace(model.config, prompt=replace(model.config.prompt, end_text_ids=(ender,)))
    (transcript,) = transcribe_autoregressively(other, recipe, 1, segments[:1])
    assert transcript.text == model.tokenizer.decode(ids[: ids.index(ender)])
    assert transcript.num_steps == ids.index(ender) + 1


def test_both_give_a_transcript_for_every_segment_in_order(model, recipe, segments):
    for path in (transcribe_by_ctc, transcribe_autoregressively):
        found = [transcript.segment for transcript in path(model, recipe, 4, segments)]
        assert found == [features.segment for features in segments]
