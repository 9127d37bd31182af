"""The shell of `dgasr sql`, as its user meets it."""

import io

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from dgasr.lake.console import Console, NameCompleter
from dgasr.lake.query import Questions


@pytest.fixture(scope="module")
def questions(small_lake):
    with Questions(small_lake) as found:
        yield found


@pytest.fixture
def talk(questions):
    """Function that types lines into the shell; returns what was answered, and what was said beside it."""

    def talk(*lines: str | type[BaseException]) -> tuple[str, str]:
        typed, out, err = iter(lines), io.StringIO(), io.StringIO()

        def read_line(prompt: str) -> str:
            line = next(typed, EOFError)
            if isinstance(line, str):
                return line
            raise line

        Console(questions, "csv", out, err).run(read_line)
        return out.getvalue(), err.getvalue()

    return talk


def test_a_question_goes_on_until_its_semicolon(talk):
    assert talk("select count(*) as n", "from words", ";")[0] == "n\n6\n"


def test_a_name_alone_shows_the_view(talk):
    assert talk("flag_counts")[0].startswith("flag,num_segments")


def test_each_answer_has_its_time_unless_it_is_not_wanted(talk):
    assert talk("select 1 as a;")[1].endswith(" s\n")
    assert talk(".timing off", "select 1 as a;")[1] == ""


def test_a_mistake_is_said_and_the_talk_goes_on(talk):
    out, err = talk("select nope;", ".nope", "select 1 as a;")
    assert out == "a\n1\n"
    assert "nope" in err
    assert ".views" in err


def test_what_was_typed_is_forgotten_at_ctrl_c(talk):
    assert talk("select broken", KeyboardInterrupt, "select 1 as a;")[0] == "a\n1\n"


def test_the_shell_ends_when_it_is_told(talk):
    assert talk(".quit", "select 1 as a;") == ("", "")


def test_views_are_listed_with_what_they_answer(talk):
    assert "  coverage                Where each recording's seconds went" in talk(".views")[0]


def test_a_view_shows_its_columns_and_its_sql(talk):
    assert "  start_s                 DOUBLE\n" in talk(".columns words")[0]
    assert talk(".show words")[0].startswith("-- Every word with its time.")


def test_the_format_can_be_changed(talk):
    assert talk(".format json", "select 1 as a;")[0] == '[\n{"a": 1}\n]\n'


def test_variables_last(talk):
    assert talk("set variable x = 7;", "select getvariable('x') as x;")[0] == "x\n7\n"


def test_names_of_the_lake_and_commands_are_completed(questions):
    completer = NameCompleter([*questions.names(), *questions.column_names()])

    def complete(text: str) -> list[str]:
        return [found.text for found in completer.get_completions(Document(text), CompleteEvent())]

    assert "latest_transcripts" in complete("from late")
    assert complete("from sear") == ["search("]
    assert complete("select sum(decod") == ["decoded_s"]
    assert complete(".vi") == [".views"]
