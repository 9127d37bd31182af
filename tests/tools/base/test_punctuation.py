import json
import random
from types import SimpleNamespace

import pytest
import torch

from dgasr.model.punctuation import MARKS, PunctuationNetwork, Punctuator
from tools.base import punctuation
from tools.base.punctuation import LONGEST, SHOUTED, Texts, Written, loss_of, parsed, scores, written_texts
from tools.base.vocabulary import plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, Mr. O'Neil!", "Hello, Mr. O'neil!"),
        ('"Come in," said the dog. "Who are you?"', "Come in, said the dog. Who are you?"),
        ("He paused -- then left; I didn't.", "He paused, then left, I didn't."),
        ("'Tis well-known... or not", "Tis well known, or not"),
        ("Wait!? (No.)", "Wait! No."),
        ("to-day: one, two", "to day, one, two"),
        ("", ""),
    ],
)
def test_a_text_is_taken_apart_into_what_can_be_put_back(text, expected):
    found = parsed(text)
    written = [word.word.capitalize() if word.has_capital else word.word for word in found]
    assert " ".join(word + MARKS[own.mark] for word, own in zip(written, found, strict=True)) == expected
    assert " ".join(word.word for word in found) == plain(text)


def test_words_in_capitals_teach_no_case():
    assert [word.has_capital for word in parsed("I like NASA, A lot")] == [1, 0, SHOUTED, 1, 0]


def test_texts_with_digits_are_left_out():
    assert [[word.word for word in text] for text in written_texts(["In 1905 it rained.", "It rained.", ""])] == [
        ["it", "rained"]
    ]


def test_texts_are_stretches_of_sentences_and_some_words_of_some_are_misheard(tokenizer):
    sentence = [
        Written(word, 0, 0) for word in ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    ]
    texts, rng = Texts(tokenizer, ([sentence], []), 0.0), random.Random(0)
    drawn = [texts.draw(rng) for _ in range(300)]
    assert {len(text) for text in drawn} >= {*range(1, 10), LONGEST}
    assert max(map(len, drawn)) == LONGEST
    for text in drawn:
        assert "".join(word.word for word in text) in "".join(word.word for word in sentence) * 8
    heard = [texts.heard(text, rng) for text in drawn]
    assert all(len(own) == len(text) for own, text in zip(heard, drawn, strict=True))
    others = sum(
        tokenizer.decode(pieces) != word.word
        for own, text in zip(heard, drawn, strict=True)
        for pieces, word in zip(own, text, strict=True)
    )
    assert 0.01 < others / sum(map(len, drawn)) < 0.08  # a third of 15 %, of which a tenth is the same word


def test_the_loss_is_that_of_every_word_by_itself(tokenizer):
    torch.manual_seed(0)
    network = PunctuationNetwork(32, 4, 6)
    texts = [parsed("One two, three."), parsed("Four? NINE")]
    heard = [[tokenizer.encode_template(word.word) for word in text] for text in texts]
    marks, capitals = [], []
    for text, pieces in zip(texts, heard, strict=True):
        for word, mark, capital in zip(text, *(out.log_softmax(1) for out in network([pieces])), strict=True):
            marks.append(-mark[word.mark])
            capitals += [-capital[word.has_capital]] if word.has_capital != SHOUTED else []
    expected = torch.stack(marks).mean() + torch.stack(capitals).mean()
    torch.testing.assert_close(loss_of(network, texts, heard), expected)


class Silent(PunctuationNetwork):
    """Says a comma behind every word, and no capital."""

    def forward(self, texts):
        num_words = sum(map(len, texts))
        return torch.eye(len(MARKS))[[1] * num_words], torch.eye(2)[[0] * num_words]


def test_scores_count_right_missed_and_made_up(tokenizer, tmp_path, capsys):
    texts = [parsed("One two, Three. four?")]
    punctuator = Punctuator(Silent(32, 4, 6), tokenizer)
    assert scores(punctuator, texts) == {"comma": 40.0, "end": 0.0, "question": 0.0, "capital": 0.0}
    rows = [{"text": "One two, three.", "language": "en", "set": "made"},
            {"text": "nine nine", "language": "en", "set": "bare"}]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    punctuation.judge(SimpleNamespace(punctuator=punctuator), tmp_path / "a.jsonl")
    assert capsys.readouterr().out == (
        "{'set': 'made', 'texts': 1, 'words': 3, 'comma': 50.0, 'end': 0.0, 'question': 0.0, 'capital': 0.0}\n"
    )
