"""The shell of `dgasr sql`: questions typed one after the other, with history and completion. Keys in, answers out."""

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory

from dgasr.errors import ConfigError, DgasrError
from dgasr.lake.query import FORMATS, Questions, read_question
from dgasr.lake.views import view_statements

KEYWORDS = (
    "select", "from", "where", "group by", "order by", "having", "limit", "join", "left join", "using", "count(*)",
    "sum", "avg", "min", "max", "like", "ilike", "between", "and", "or", "not", "is null", "distinct", "desc", "with",
    "as", "set variable preferred_recipe =",
)  # fmt: skip
"""What is completed besides names of the lake."""

HELP = """\
  SQL;            a question, over as many lines as it takes, ended by a semicolon
  NAME            all of a view; .views lists them
  FILE.sql        the questions of a file
  .views          views and macros, and what each answers
  .columns NAME   columns of a view
  .show NAME      the SQL of a view, with its units and an example
  .format NAME    table, csv, json or md
  .timing on|off  whether the time of an answer is shown
  .quit           leave, as Ctrl-D does; Ctrl-C stops a question
"""


class Console:
    """A conversation with an open lake: answers go to `out`, times and complaints to `err`."""

    def __init__(self, questions: Questions, format: str, out: TextIO, err: TextIO) -> None:
        self._questions, self._format, self._out, self._err = questions, format, out, err
        self._has_timing = True

    def run(self, read_line: Callable[[str], str]) -> None:
        """Answer until there is no more input.

        `read_line` shows a prompt and returns a line; it raises `EOFError` at the end, and `KeyboardInterrupt` where
        what was typed is to be forgotten.
        """
        typed: list[str] = []
        while True:
            try:
                typed.append(read_line("   ...> " if typed else "dgasr> "))
            except KeyboardInterrupt:
                typed.clear()
                continue
            except EOFError:
                return
            text = "\n".join(typed).strip()
            if text in (".quit", ".exit"):
                return
            if not text or _is_complete(text):
                typed.clear()
                self._answer(text)

    def _answer(self, text: str) -> None:
        """Carry out one command or question; what goes wrong is said, and the conversation goes on."""
        started = time.perf_counter()
        try:
            if text.startswith("."):
                self._command(*text.split(None, 1))
            elif text:
                self._questions.answer(read_question(text.rstrip("; \n")), self._format, self._out)
                if self._has_timing:
                    self._err.write(f"{time.perf_counter() - started:.3f} s\n")
        except DgasrError as error:
            self._err.write(f"{error}\n")
        except KeyboardInterrupt:
            self._err.write("stopped\n")
        self._out.flush()

    def _command(self, name: str, argument: str = "") -> None:
        """Carry out a command of the shell."""
        if name == ".views":
            for view, text in sorted(view_statements().items()):
                self._out.write(f"  {view:24}{text.splitlines()[0].removeprefix('-- ')}\n")
        elif name == ".columns":
            self._out.writelines(f"  {column:24}{kind}\n" for column, kind in self._questions.columns(argument))
        elif name == ".show" and argument in view_statements():
            self._out.write(view_statements()[argument])
        elif name == ".format" and argument in FORMATS and argument != "parquet":
            self._format = argument
        elif name == ".timing" and argument in ("on", "off"):
            self._has_timing = argument == "on"
        elif name == ".help":
            self._out.write(HELP)
        else:
            raise ConfigError(f"{name} {argument}: is no command of this shell.\n{HELP}")


class NameCompleter(Completer):
    """Completes the word before the cursor: commands, names of the lake (a macro ends in `(…)`), key words of SQL."""

    def __init__(self, names: Iterable[str]) -> None:
        commands = [line.split()[0] for line in HELP.splitlines() if line.startswith("  .")]
        self._words = sorted({name.replace("…)", "") for name in names} | set(KEYWORDS) | set(commands))

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what the word may become."""
        begun = document.get_word_before_cursor(WORD=True).rpartition("(")[2].rpartition(",")[2]
        if begun:
            yield from (Completion(word, -len(begun)) for word in self._words if word.startswith(begun.lower()))


def converse(lake_uri: str, format: str, preferred_recipe: str, history: Path) -> None:
    """Open a lake and answer what is typed at the terminal; `history` keeps it. Raises as `Questions` does."""
    with Questions(lake_uri, preferred_recipe) as questions:
        names = [*questions.names(), *questions.column_names()]
        try:
            history.parent.mkdir(parents=True, exist_ok=True)
            kept: dict[str, Any] = {"history": FileHistory(str(history))}
        except OSError:
            kept = {}  # a home that cannot be written to costs the history and nothing else
        session: PromptSession[str] = PromptSession(completer=NameCompleter(names), **kept)
        sys.stderr.write(f"{lake_uri}, read-only. .views lists what can be asked, .help the rest.\n")
        Console(questions, format, sys.stdout, sys.stderr).run(session.prompt)


def _is_complete(text: str) -> bool:
    """Say whether what was typed can be answered: a command, a name, a file, or SQL that is ended."""
    is_one_word = len(text.split()) == 1 and text.replace("_", "").replace(".", "").replace("/", "").isalnum()
    return text.startswith(".") or text.endswith(";") or is_one_word
