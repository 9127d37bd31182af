"""What CTC hears in a segment: the greedy text of every shift of the projector's grid, and the likeliest of them.

Audio embeddings stand 160 ms apart, and where a word falls between two of them decides how well it is heard. Alignment
needs the embeddings at all eight shifts anyway, so that eight greedy texts and the opinion of all shifts are at hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor

from dgasr.model.asr import AsrModel
from dgasr.model.ctc_head import Questions, text_log_likelihoods
from dgasr.model.head import VocabularyScan


@dataclass(frozen=True, kw_only=True, slots=True)
class Hearing:
    """CTC's text.

    ids: its tokens.
    probabilities: of each, the highest that it has in its run of embeddings, in [0, 1].
    end_probability: of the text holding no more: its least likely token's, or its least likely blank's if it has none.
    log_likelihoods: what CTC gives to every text that a shift hears, nats; empty where all hear the same.
    """

    ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    end_probability: float
    log_likelihoods: Mapping[tuple[int, ...], float] = field(default_factory=dict)


def hear(model: AsrModel, states: Sequence[Tensor], scans: Sequence[VocabularyScan]) -> list[Hearing]:
    """Take the likeliest of the shifts' greedy texts; of equally likely ones the least shifted.

    A device is waited for as often as for one segment: they are asked for their greedy texts together, and for how
    likely these are.

    Args:
        model: gives the head and its blank.
        states: audio embeddings of each segment every 20 ms, whole strides of the projector's grid.  [frames, hidden]
        scans: of these over the vocabulary, with the blank's bias.  [frames] each

    Source:
        Ours; several views of one audio that vote, as test-time augmentation does.
    """
    heard = _greedy_texts(scans, model.config.projector.subsampling, model.config.blank_id)
    scores = text_log_likelihoods(
        model,
        [
            Questions(own, scan.log_partition, [text.ids for text in texts] if len(texts) > 1 else [])
            for own, scan, texts in zip(states, scans, heard, strict=True)
        ],
    )
    return [_likeliest(texts, found) for texts, found in zip(heard, scores, strict=True)]


def _likeliest(texts: Sequence[Hearing], scores: Sequence[float]) -> Hearing:
    """Choose by scores, where there are any; they are kept, for whoever compares with another text."""
    if not scores:
        return texts[0]
    likelihoods = {text.ids: score for text, score in zip(texts, scores, strict=True)}
    return replace(texts[scores.index(max(scores))], log_likelihoods=likelihoods)


def _greedy_texts(scans: Sequence[VocabularyScan], subsampling: int, blank: int) -> list[list[Hearing]]:
    """Read the different texts of each segment's shifts, the least shifted first."""
    lengths = [len(scan.ids) for scan in scans]
    ids = torch.cat([scan.ids for scan in scans]).cpu().split(lengths)
    log_probs = torch.cat([scan.top_logit - scan.log_partition for scan in scans]).cpu().split(lengths)
    heard = []
    for own_ids, own_log_probs in zip(ids, log_probs, strict=True):
        shifts = [_greedy(own_ids[n::subsampling], own_log_probs[n::subsampling], blank) for n in range(subsampling)]
        heard.append(list({hearing.ids: hearing for hearing in reversed(shifts)}.values())[::-1])
    return heard


def _greedy(ids: Tensor, log_probs: Tensor, blank: int) -> Hearing:
    """Collapse the likeliest ids of one shift's embeddings.  [audio tokens] each"""
    frames = list(zip(ids.tolist(), log_probs.exp().tolist(), strict=True))
    runs = [(token, max(p for _, p in run)) for token, run in groupby(frames, key=itemgetter(0))]
    tokens = [(token, probability) for token, probability in runs if token != blank]
    return Hearing(
        ids=tuple(token for token, _ in tokens),
        probabilities=tuple(probability for _, probability in tokens),
        end_probability=min(probability for _, probability in tokens or frames),
    )
