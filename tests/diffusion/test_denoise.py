import pytest
import torch

from dgasr.diffusion import CanvasJob, DecodeConfig
from dgasr.diffusion.denoise import MOST_LOOK_AHEAD, Decoder, denoise
from dgasr.diffusion.vocabulary import VocabularyHead
from dgasr.errors import ConfigError, IntegrityError

END, PAD, VOCAB = 1, 0, 12
HEAD = VocabularyHead(weight=torch.eye(VOCAB), softcap=30.0, embed_scale=1.0)
CONFIG = DecodeConfig(max_steps=6)


class ScriptedDecoder(Decoder):
    """Says every row's text, after as many unsure steps as its payload asks for."""

    def __init__(self, num_rows):
        self.texts = [None] * num_rows
        self.unsure_steps = [0] * num_rows
        self.admissions = []
        self.shapes = []

    def admit(self, rows, payloads):
        self.admissions.append((list(rows), [text for text, _ in payloads]))
        for row, (text, unsure_steps) in zip(rows, payloads, strict=True):
            self.texts[row], self.unsure_steps[row] = text, unsure_steps

    def __call__(self, ids, soft_embeddings):
        self.shapes.append(tuple(ids.shape))
        hidden = torch.zeros(*ids.shape, VOCAB)
        for row, text in enumerate(self.texts):
            if self.unsure_steps[row] > 0:
                self.unsure_steps[row] -= 1
            else:
                laid_out = [*text, END, *[PAD] * ids.shape[1]][: ids.shape[1]]
                hidden[row, torch.arange(ids.shape[1]), torch.tensor(laid_out)] = 1000.0
        return hidden


def job(text, canvas_tokens=8, unsure_steps=0):
    return CanvasJob(noise_key=hash(tuple(text)) % 2**64, canvas_tokens=canvas_tokens, payload=(text, unsure_steps))


def run(jobs, num_rows=3, buckets=(8, 16), decoder=None):
    decoder = decoder or ScriptedDecoder(num_rows)
    canvases = denoise(decoder, HEAD, jobs, num_rows=num_rows, buckets=buckets, end_token_ids=(END,), config=CONFIG)
    return decoder, canvases


def texts(canvases):
    return sorted(canvas.ids[: canvas.num_tokens].tolist() for canvas in canvases)


def test_every_job_gives_one_canvas_with_its_text():
    said = [[2 + index % 10] * (index % 7) + [2 + index // 10] for index in range(20)]
    _, canvases = run(map(job, said))
    assert texts(canvases) == sorted(said)


def test_the_text_ends_before_the_first_end_token_and_a_sure_canvas_settles_at_its_second_step():
    for text in ([5, 6], []):
        (canvas,) = run([job(text)])[1]
        assert canvas.num_tokens == len(text)
        assert canvas.ids.tolist() == [*text, END, *[PAD] * (7 - len(text))]
        assert (canvas.num_steps, canvas.is_settled, canvas.is_overflowed) == (2, True, False)
        assert canvas.log_probabilities.min() > -0.01


def test_an_unsure_canvas_leaves_after_max_steps():
    (canvas,) = run([job([5], unsure_steps=5)])[1]
    assert (canvas.num_steps, canvas.is_settled) == (CONFIG.max_steps, False)


def test_a_freed_row_goes_to_the_next_job_while_the_others_go_on():
    decoder, canvases = run([job([2], unsure_steps=5), job([3]), job([4]), job([5])], num_rows=2)
    assert [canvas.job.payload[0] for canvas in canvases] == [[3], [4], [2], [5]]
    assert decoder.admissions == [([0, 1], [[2], [3]]), ([1], [[4]]), ([1], [[5]])]
    assert len(decoder.shapes) == 6


def test_the_batch_keeps_its_shape_with_few_jobs_and_idle_rows_begin_as_copies():
    decoder, canvases = run([job([2]), job([3])], num_rows=4)
    assert len(list(canvases)) == 2
    assert set(decoder.shapes) == {(4, 8)}
    assert decoder.admissions == [([0, 1, 2, 3], [[2], [3], [2], [2]])]


@pytest.mark.parametrize(("num_rows", "most"), [(3, 32 * 3 + 32), (200, MOST_LOOK_AHEAD + 224)])
def test_jobs_are_pulled_a_number_of_batches_ahead_and_no_further(num_rows, most):
    pulled = []
    _, canvases = run((pulled.append(1) or job([2 + index % 10]) for index in range(5000)), num_rows)
    next(canvases)
    assert len(pulled) <= most


def test_one_canvas_length_is_denoised_at_a_time():
    mixed = [job([2 + index], canvas_tokens=(8, 16)[index % 2]) for index in range(8)]
    decoder, canvases = run(mixed, num_rows=2)
    assert len(list(canvases)) == 8
    lengths = [canvas for _, canvas in decoder.shapes]
    assert lengths == sorted(lengths)


def test_a_text_that_does_not_fit_is_done_again_on_the_next_larger_canvas_or_marked():
    for text, steps in (([2, 3, 4, 5, 6, 7, 8, 9, 10], 4), ([2] * 20, 4)):  # two on the small canvas, two on the large
        (canvas,) = run([job(text)])[1]
        assert canvas.ids[: canvas.num_tokens].tolist() == text[:16]
        assert (canvas.job.canvas_tokens, canvas.is_overflowed, canvas.num_steps) == (16, len(text) > 15, steps)


def test_a_rare_length_goes_first_once_it_has_waited_long_however_full_the_others_are():
    # One long canvas, then far more short ones than may overtake it, and one more long one that came late.
    jobs = [job([2], canvas_tokens=16), *(job([3 + index % 9]) for index in range(900)), job([2], canvas_tokens=16)]
    _, canvases = run(jobs, num_rows=3)
    lengths = [canvas.job.canvas_tokens for canvas in canvases]
    assert len(lengths) == 902
    assert 32 * 3 <= lengths.index(16) <= 32 * 3 * 6


def test_no_jobs_give_no_canvases():
    decoder, canvases = run([])
    assert list(canvases) == []
    assert decoder.shapes == []


def test_a_canvas_length_that_is_no_bucket_is_refused():
    with pytest.raises(ConfigError, match="canvas of 9 tokens"):
        list(run([job([2], canvas_tokens=9)])[1])


def test_a_batch_without_rows_is_refused():
    with pytest.raises(ConfigError, match="num_rows"):
        list(run([job([2])], num_rows=0)[1])


def test_hidden_states_that_are_not_numbers_stop_the_run():
    class BrokenDecoder(ScriptedDecoder):
        def __call__(self, ids, soft_embeddings):
            return super().__call__(ids, soft_embeddings) * float("nan")

    with pytest.raises(IntegrityError, match="not finite"):
        list(run([job([2])], decoder=BrokenDecoder(3))[1])


class EncodingDecoder(ScriptedDecoder):
    """Encodes two jobs at once."""

    encoded_at_once = 2

    def encode(self, jobs):
        self.admissions.append(("encode", [job.payload[0] for job in jobs]))
        return [job.payload for job in jobs]

    def read_out(self, encoded, ids):
        return [ids[row, : len(text)] * 0.5 for row, (text, _) in enumerate(encoded)]


def test_jobs_are_encoded_a_batch_at_a_time_shortly_before_they_are_admitted():
    decoder, canvases = run([job([n], unsure_steps=n) for n in (2, 2, 3, 4, 5)], 3, decoder=EncodingDecoder(3))
    assert len(list(canvases)) == 5
    assert decoder.admissions == [
        ("encode", [[2], [2]]), ([0, 1, 2], [[2], [2], [2]]), ("encode", [[3], [4]]), ([2], [[3]]),
        ([0], [[4]]), ("encode", [[5]]), ([1], [[5]]),
    ]  # fmt: skip


def test_what_is_read_out_is_of_each_job_s_own_canvas():
    texts = [2], [2, 3, 4, 5, 6], [3]
    _, canvases = run([job(text) for text in texts], 2, decoder=EncodingDecoder(2))
    found = {tuple(canvas.job.payload[0]): canvas.read_out.tolist() for canvas in canvases}
    assert found == {tuple(text): [0.5 * token for token in text] for text in texts}


def test_canvases_come_without_gradients():
    head = VocabularyHead(weight=torch.eye(VOCAB, requires_grad=True), softcap=30.0, embed_scale=1.0)
    canvases = denoise(
        ScriptedDecoder(1), head, [job([2])], num_rows=1, buckets=(8,), end_token_ids=(END,), config=CONFIG
    )
    assert next(canvases).num_tokens == 1
