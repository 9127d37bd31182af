"""Which of several transcripts is shown, and how two stand side by side, with answers computed by hand."""

from datetime import timedelta

from dgasr.lake.ledger import append_rows, commit_shard
from dgasr.lake.rows import presence_rows
from dgasr.lake.views import connect
from tests.lake.reading import ask


def test_an_object_that_is_gone_is_listed_with_what_it_said(empty_lake, three_recordings, day):
    commit_shard(empty_lake, three_recordings)
    for number, (event, uris) in enumerate({"deleted": ["/a/two.mp3", "/b"], "returned": ["/b"]}.items()):
        at = day + timedelta(hours=number)
        append_rows(
            empty_lake, "presence", presence_rows([(u, None) for u in uris], event, noticed_at=at, run_id=f"r{number}")
        )
    assert ask(empty_lake, "select uri, noticed_at, decoded_s, num_words from deleted_objects") == [
        ("/a/two.mp3", day, 2.0, 1)
    ]


def test_the_preferred_recipe_speaks_where_it_has_something_to_say(empty_lake, make_shard):
    commit_shard(empty_lake, make_shard(pieces=[("speech", 0, 1, "newer", 1.0, ())]))
    earlier = make_shard().recordings[0]["transcribed_at"] - timedelta(days=1)
    older = make_shard(recipe_id="beef", transcribed_at=earlier, pieces=[("speech", 0, 1, "older", 1.0, ())])
    commit_shard(empty_lake, older)
    assert ask(empty_lake, "select text from latest_transcripts") == [("newer",)]
    with connect(empty_lake, preferred_recipe="beef") as connection:
        assert connection.execute("select text from latest_transcripts").fetchall() == [("older",)]


def test_the_newest_version_of_an_object_is_the_latest(empty_lake, make_shard):
    commit_shard(empty_lake, make_shard())
    one = make_shard()
    modified_at = one.recordings[0]["modified_at"] + timedelta(days=1)
    commit_shard(
        empty_lake,
        make_shard(shard_id="s2", etag="v2", modified_at=modified_at, pieces=[("speech", 0, 1, "new", 1.0, ())]),
    )
    assert ask(empty_lake, "select text from latest_transcripts") == [("new",)]
    assert ask(empty_lake, "select count(*) from recordings") == [(2,)]


def test_two_recipes_stand_side_by_side(empty_lake, make_shard):
    other = [
        ("speech", 0, 6, "one two three", 0.9, ()),
        ("silence", 6, 8, "", None, ()),
        ("speech", 8, 10, "forty", 0.5, ()),
    ]
    commit_shard(empty_lake, make_shard())
    commit_shard(empty_lake, make_shard(recipe_id="beef", pieces=other))
    assert ask(empty_lake, "select start_s, first_word, second_word from word_differences('f00d', 'beef')") == [
        (4.0, "two", "three"),
        (9.0, "two", "forty"),
    ]
    columns = "num_different, different_share, first_text, second_text"
    assert ask(empty_lake, f"select {columns} from compare_recipes('f00d', 'beef')") == [
        (2, 0.4, "One two, two forty two", "one two three forty")
    ]


def test_a_recording_that_was_asked_for_again_is_seen_as_it_was_redone(empty_lake, make_shard):
    again = make_shard(shard_id="s2", pieces=[("speech", 0, 10, "redone", 1.0, ())])
    again.recordings[0]["take"] = 1
    commit_shard(empty_lake, again)
    commit_shard(empty_lake, make_shard())
    assert ask(empty_lake, "select text from segments") == [("redone",)]


def test_a_chinese_text_has_no_spaces_between_its_segments(empty_lake, make_shard):
    commit_shard(empty_lake, make_shard(pieces=[("speech", n, n + 1, "好", 1.0, ()) for n in range(2)]))
    assert ask(empty_lake, "select text from latest_transcripts") == [("好好",)]


def test_vowel_signs_are_part_of_words(empty_lake, make_shard):
    commit_shard(empty_lake, make_shard(pieces=[("speech", 0, 1, "हिन्दी ❤\ufe0f ดี", 1.0, ())]))
    assert ask(empty_lake, "select word from vocabulary") == [("हिन्दी",), ("ดี",)]
