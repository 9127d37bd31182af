"""Utterances with known word times in, the offsets that make a trained model's CTC edges right on average out."""

from collections.abc import Sequence

import numpy as np
import torch

from dgasr.alignment.ctc import forced_alignment, min_frames
from dgasr.alignment.words import AlignmentConfig, WordTokens, raw_edges
from dgasr.errors import ConfigError
from dgasr.features import FeatureConfig, log_mel, whole_windows
from dgasr.manifests import Utterance, num_samples
from dgasr.model.asr import AsrModel
from dgasr.model.ctc_head import label_log_probs
from dgasr.model.head import log_partition
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.training.batches import WaveformStore, read_utterance
from dgasr.training.objective import VOCABULARY_CHUNK


def fit_word_offsets(model: AsrModel, utterances: Sequence[Utterance]) -> tuple[float, float]:
    """Align the true texts of training utterances, and measure what CTC's word edges lack.

    Args:
        model: trained, in evaluation mode, with its tokenizer.
        utterances: of the training data, with silence around and between words as in use; those without word times, or
            longer than the model's window, are passed over.

    Returns:
        `start_offset_ms` and `end_offset_ms` of `AsrConfig`: medians, so that a few misheard words do no harm.

    Raises:
        ConfigError: no utterance is left.
    """
    missing = [_missing(model, utterance) for utterance in utterances if _is_usable(utterance, model)]
    if not missing or not sum(map(len, missing)):
        raise ConfigError(
            "word offsets: no utterance has word times and fits the model's window. Give a manifest whose rows carry "
            "`words`, such as one of `make checkpoint`."
        )
    start_ms, end_ms = np.median(np.concatenate(missing), axis=0) * 1000 / SAMPLE_RATE_HZ
    return float(start_ms), float(end_ms)


def _is_usable(utterance: Utterance, model: AsrModel) -> bool:
    return bool(utterance.words) and num_samples(utterance.duration) <= model.config.window_samples


def _missing(model: AsrModel, utterance: Utterance) -> np.ndarray:
    """Subtract CTC's word edges from the true ones, samples.  [words, 2]."""
    words: list[WordTokens] = []
    labels: list[int] = []
    for word in utterance.words or ():
        ids = model.tokenizer.encode(word.word)
        words.append(WordTokens(word.word, len(labels), len(labels) + len(ids), 1.0))
        labels += ids
    log_probs = _log_probs(model, read_utterance(utterance, WaveformStore()), labels)
    if min_frames(labels) > len(log_probs):
        return np.empty((0, 2))
    config = AlignmentConfig(frame_samples=model.config.frame_samples)
    truth = np.array([(word.start_sample, word.end_sample) for word in utterance.words or ()], dtype=float)
    return truth - raw_edges(words, forced_alignment(log_probs, labels), config)


@torch.no_grad()
def _log_probs(model: AsrModel, waveform: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Encode an utterance and read the head's `label_log_probs`, every encoder frame.  [frames, 1 + labels]."""
    config = model.config
    features = FeatureConfig(window_samples=config.window_samples, num_mel_bins=config.encoder["num_mel_bins"])
    window = whole_windows([log_mel(waveform, features)], features)
    frames = model.encode_audio(torch.from_numpy(window).to(model.device))
    states = model.projector.forward_shifted(frames[0], model.projector(frames)[0])  # [frames, hidden]
    states = states[: -(-waveform.size // config.frame_samples)]
    total = log_partition(states, model.head_weight, config.softcap, VOCABULARY_CHUNK, config.blank_logit)
    return label_log_probs(model, states, total, torch.tensor(labels, device=model.device)).cpu().numpy()
