"""What CTC hears in a segment: the greedy text of every shift of the projector's grid, and the likeliest of them.

Audio embeddings stand 160 ms apart, and where a word falls between two of them decides how well it is heard. Alignment
needs the embeddings at all eight shifts anyway, so that eight greedy texts and the opinion of all shifts are at hand.
"""

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from torch import Tensor

from dgasr.model.asr import AsrModel
from dgasr.model.ctc_head import text_log_likelihoods
from dgasr.model.head import VocabularyScan


@dataclass(frozen=True, kw_only=True, slots=True)
class Hearing:
    """CTC's text.

    ids: its tokens.
    probabilities: of each, the highest that it has in its run of embeddings, in [0, 1].
    end_probability: of the text holding no more: its least likely token's, or its least likely blank's if it has none.
    """

    ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    end_probability: float


def hear(model: AsrModel, states: Tensor, scan: VocabularyScan) -> Hearing:
    """Take the likeliest of the shifts' greedy texts; of equally likely ones the least shifted.

    Args:
        model: gives the head and its blank.
        states: audio embeddings every 20 ms, whole strides of the projector's grid.  [frames, hidden]
        scan: of these over the vocabulary, with the blank's bias.  [frames] each

    Source:
        Ours; several views of one audio that vote, as test-time augmentation does.
    """
    subsampling, blank = model.config.projector.subsampling, model.config.blank_id
    ids, log_probs = scan.ids.cpu(), (scan.top_logit - scan.log_partition).cpu()
    shifts = [_greedy(ids[shift::subsampling], log_probs[shift::subsampling], blank) for shift in range(subsampling)]
    texts = list({hearing.ids: hearing for hearing in reversed(shifts)}.values())[::-1]
    if len(texts) == 1:
        return texts[0]
    scores = text_log_likelihoods(model, states, scan.log_partition, [text.ids for text in texts])
    return texts[scores.index(max(scores))]


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
