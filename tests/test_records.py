import pytest

from dgasr.records import join_words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["one", "", "two"], "one two"),
        (["今天", "天气"], "今天天气"),
        (["สวัสดี", "ครับ"], "สวัสดีครับ"),
        (["我", "love", "you"], "我love you"),
        (["안녕", "하세요"], "안녕 하세요"),
        (["ｱﾘ", "ｶﾞﾄ"], "ｱﾘｶﾞﾄ"),
        (["𠮷", "野家"], "𠮷野家"),
        (["葛\U000e0100", "飾"], "葛\U000e0100飾"),  # which of its shapes a character has
        (["ខ្ញុំ\u200b", "ភាសា"], "ខ្ញុំ\u200bភាសា"),  # where a line may end
        (["hi", "👩\u200d👧", "there"], "hi 👩\u200d👧 there"),
        (["ꧠ", "ꧡ"], "ꧠꧡ"),  # Myanmar Extended-B
        ([], ""),
    ],
)
def test_words_are_joined_as_their_writing_has_it(words, text):
    assert join_words(words) == text
