import copy
from dataclasses import replace

import pytest
import torch

from dgasr.features import pad_features
from dgasr.prompt import build_prompt
from dgasr.transcriber.comparison import transcribe_autoregressively, transcribe_by_ctc
from dgasr.transcriber.encoding import SegmentEncoder


def audio_embeddings(model, recipe, features):
    log_mel = torch.from_numpy(pad_features([features], recipe.features))
    return model.projector(model.encode_audio(log_mel))


def logits(model, states):
    return model.config.softcap * torch.tanh(states @ model.head_weight.T / model.config.softcap)


def greedy_without_a_cache(model, recipe, features):
    """Take token after token, all that came before it run again each time."""
    config = model.config
    prompt = build_prompt(model.tokenizer, config.prompt, config.num_audio_tokens, "en")
    embeddings = model.prompt_embeddings(torch.tensor(prompt.ids), audio_embeddings(model, recipe, features))
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
def test_ctc_text_is_what_is_heard(model, recipe, segments, batch_size):
    transcripts = transcribe_by_ctc(model, recipe, batch_size, segments[:5])
    for encoded, transcript in zip(SegmentEncoder(model, recipe, 3).encode(segments[:5]), transcripts, strict=True):
        assert transcript.text == model.tokenizer.decode(list(encoded.hearing.ids))


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
