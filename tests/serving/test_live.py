"""The changing batch: who waits, who is refused, who is told of a failure."""

import threading

import pytest

from dgasr.records import Segment, SegmentFeatures
from dgasr.serving.live import BusyError, LiveTranscriber, Way

EN = Way("en", 8)


def features(index, recording="r"):
    segment = Segment(
        recording_id=recording, segment_index=index, channel=0, start_sample=0, end_sample=16_000, kind="speech",
        cut="end",
    )  # fmt: skip
    return SegmentFeatures(segment=segment, log_mel=None, pad_value=0.0)


class Transcript:
    def __init__(self, segment, language):
        self.segment, self.language = segment, language


class Fake:
    """Transcribes in batches of two, once it is let."""

    def __init__(self, language, gate, order):
        self.language, self.gate, self.order = language, gate, order

    def transcribe(self, source):
        held = []
        for item in source:
            if item is None and not held:
                return
            self.gate.wait()
            if item is not None:
                if item.segment.segment_index == 13:
                    raise RuntimeError("bad luck")
                held.append(item)
            if item is None or len(held) == 2:
                for own in held:
                    self.order.append((self.language, own.segment.segment_index))
                    yield Transcript(own.segment, self.language)
                held = []


@pytest.fixture
def gate():
    return threading.Event()


@pytest.fixture
def order():
    return []


@pytest.fixture
def live(gate, order):
    own = LiveTranscriber(lambda way, _: Fake(way.language, gate, order), max_waiting=4)
    yield own
    gate.set()
    own.close()


def test_each_gets_its_own_segment_also_where_two_ask_for_the_same(live, gate):
    futures = live.submit(EN, [features(0), features(1)]) + live.submit(EN, [features(0)])
    gate.set()
    assert [future.result(5).segment.segment_index for future in futures] == [0, 1, 0]
    assert live.num_waiting == 0


def test_what_does_not_fit_the_queue_is_refused_whole_and_cancelled_work_is_left_out(live, gate, order):
    first = live.submit(EN, [features(n) for n in range(4)])
    with pytest.raises(BusyError, match="above 4"):
        live.submit(EN, [features(n) for n in range(4, 9)])
    cancelled = [future.cancel() for future in first[2:]]
    gate.set()
    assert [future.result(5).segment.segment_index for future in first[:2]] == [0, 1]
    assert live.submit(EN, [features(9)])[0].result(5).segment.segment_index == 9
    kept = [n for n, done in zip((2, 3), cancelled, strict=True) if not done]
    assert [index for _, index in order] == [0, 1, *kept, 9]


def test_a_language_that_is_asked_for_without_end_keeps_no_other_waiting(gate, order):
    class Endless(Fake):
        def transcribe(self, source):
            for transcript in super().transcribe(source):
                if self.language == "en" and len(order) < 500:
                    live.submit(EN, [features(100 + len(order))])
                if len(order) == 500:
                    ended.set()
                yield transcript

    ended = threading.Event()
    live = LiveTranscriber(lambda way, _: Endless(way.language, gate, order), max_waiting=4)
    live.submit(EN, [features(0), features(1), features(2)])
    other = live.submit(Way("de", 8), [features(0)])[0]
    gate.set()
    assert other.result(5).language == "de"
    assert ended.wait(5)
    live.close()
    assert order.index(("de", 0)) < 20


def test_a_failure_is_told_to_those_it_took_and_the_next_are_served(live, gate):
    failing = live.submit(EN, [features(12), features(13)])
    gate.set()
    with pytest.raises(RuntimeError, match="bad luck"):
        failing[1].result(5)
    assert live.submit(EN, [features(1)])[0].result(5).segment.segment_index == 1


def test_a_closed_one_finishes_what_it_took_and_takes_nothing_more(live, gate):
    futures = live.submit(EN, [features(0), features(1), features(2)])
    threading.Timer(0.1, gate.set).start()
    live.close()
    assert all(future.done() for future in futures)
    with pytest.raises(BusyError):
        live.submit(EN, [features(3)])
