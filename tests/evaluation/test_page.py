"""The page of an evaluation: what stands in it, and that a browser shows it without asking for anything else."""

import re
from dataclasses import replace

import numpy as np
import pytest

from dgasr.evaluation.page import evaluation_page, worst_utterances
from dgasr.evaluation.report import Evaluation
from dgasr.evaluation.scores import ScoredSegment, ScoredUtterance
from dgasr.records import Word

DIGITS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def utterance(number: int) -> ScoredUtterance:
    """Two of nine words wrong in every third utterance, one added; every word with times and confidence."""
    random = np.random.default_rng(number)
    heard = [w if number % 3 or n % 4 else "zero" for n, w in enumerate(DIGITS)] + ([] if number % 3 else ["<b>"])
    edges = [Word(word=word, start_sample=4000 * n, end_sample=4000 * n + 3000, confidence=1.0) for n, word in
             enumerate(DIGITS)]  # fmt: skip
    words = [Word(word=word, start_sample=4000 * n + int(random.normal(0, 800)), end_sample=4000 * n + 3200,
                  confidence=float(random.uniform(0.4, 1))) for n, word in enumerate(heard)]  # fmt: skip
    return ScoredUtterance(
        audio_filepath=f"/clips/{number}.wav", language="en", audio_s=2.5, reference=" ".join(DIGITS),
        hypothesis=" ".join(heard), reference_words=tuple(edges), hypothesis_words=tuple(words),
        segments=(ScoredSegment(num_words=9, num_steps=6),), speaker=f"speaker {number % 12}",
        set_name=("books test.clean", "calls test")[number % 2],
    )  # fmt: skip


SILENCE = replace(
    utterance(1), reference="", hypothesis="six", set_name="noise", reference_words=None, hypothesis_words=(),
    segments=(ScoredSegment(num_words=1, flags=("low_confidence",)),),
)  # fmt: skip


def scored(max_steps: int = 8, wall_s: float = 4.0) -> Evaluation:
    return Evaluation(
        utterances=(*map(utterance, range(24)), SILENCE), normalizer="basic", metric="wer", max_steps=max_steps,
        path="diffusion", wall_s=wall_s, timed=((2.5, 0.2), (2.5, 0.4)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def page() -> str:
    ours, other = scored(), replace(scored(), path="ctc")
    figures = ours.to_json(other, "another run")
    figures["by_steps"] = [scored(count, count / 2).to_json() for count in (1, 4, 8)]
    return evaluation_page(figures, worst_utterances(ours.utterances, "basic", 5), {0: b"mp3"}, "a & b", "by a test")


def test_everything_that_people_look_at_is_there(page: str):
    for what in ("books test.clean", "Denoising steps", "Confidence", "Word times", "Where nobody speaks", "p95 0.39 s",
                 "another run", "by a test", "with most errors"):  # fmt: skip
        assert what in page
    assert page.count("<svg") == 4


def test_errors_are_marked_and_texts_are_no_markup(page: str):
    assert re.search(r"<del>one</del>\s*<ins>zero</ins>", page)
    assert "<b>" not in page.replace("<body>", "")
    assert "<title>a &amp; b</title>" in page


def test_the_audio_lies_in_the_page(page: str):
    assert page.count("<audio") == 1
    assert "data:audio/mpeg;base64,bXAz" in page


def test_nothing_is_asked_of_others(page: str):
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "url(http" not in page
    assert "<script" not in page


def test_a_browser_shows_it_without_a_complaint(page: str, browser, tmp_path):
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    shown, complaints, asked = browser.new_page(viewport={"width": 390, "height": 800}), [], []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(f"file://{tmp_path}/page.html")
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    assert not [line for line in complaints if "data:audio" not in line]
    assert [url for url in asked if not url.startswith("data:")] == [f"file://{tmp_path}/page.html"]


def said(reference: str, hypothesis: str) -> ScoredUtterance:
    return ScoredUtterance(
        audio_filepath="a.wav", language="en", audio_s=2.0, reference=reference, hypothesis=hypothesis
    )  # fmt: skip


UTTERANCES = [said("One, two three.", "one two three"), said("one two", "one nine"),
              said("one two three four", "two three three five"), said("one", "nine")]  # fmt: skip


def test_the_most_errors_come_first_then_the_higher_rate():
    rows = worst_utterances(UTTERANCES, "basic", 10)
    assert [row["utterance"].reference for row in rows] == ["one two three four", "one", "one two"]
    assert [row["number"] for row in worst_utterances(UTTERANCES, "basic", 2)] == [2, 3]


def test_words_are_compared_as_they_are_scored_beside_another_systems_text():
    [row] = worst_utterances([said("Mr. One two", "mister Two")], "whisper", 1, [said("", "mister too")])
    assert (row["pieces"], row["baseline"]) == ([("mister", "mister"), ("12", "2")], "mister too")


def test_a_name_turns_nothing_around():
    named = replace(UTTERANCES[1], audio_filepath="a\u202egpj.wav", set_name="set\x1b")
    ours = replace(scored(), utterances=(named,))
    page = evaluation_page(ours.to_json(), worst_utterances(ours.utterances, "basic", 5), {}, "\u2066title", "test")
    assert "a\\u202egpj.wav" in page
    assert not re.search("[\u202e\u2066\x1b]", page)
