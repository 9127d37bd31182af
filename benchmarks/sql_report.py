"""What was measured of a lake, as lines for a person and as JSON, with the budgets it is held to. Measures nothing."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar

from benchmarks.archive import Archive
from dgasr.records import seconds

SEARCH_BUDGET_S = 1.0
"""What a warm search of a compacted lake may take, whatever its words are."""

QUESTION_BUDGET_S = 2.0
"""What any other question may take warm, but those whose view says that it is a full scan."""

MEMORY_BUDGET_BYTES = 2 * 10**9
"""What the process that asks all questions may hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """One question."""

    HEADER: ClassVar[str] = f"{'question':<62}  {'rows':>10}  {'first s':>8}  {'warm s':>7}  {'cpu s':>7}"

    question: str
    is_full_scan: bool
    """Its view says that it reads all of the text or words."""
    num_rows: int
    first_s: float
    """Wall time of the first time it was asked, s."""
    warm_s: float
    """Wall time of the fastest, s."""
    cpu_s: float
    """Processor time of the fastest, all threads together, s."""

    @property
    def budget_s(self) -> float | None:
        """What it may take warm in a compacted lake, s; `None` for a full scan."""
        if self.question.startswith("search("):
            return SEARCH_BUDGET_S
        return None if self.is_full_scan else QUESTION_BUDGET_S

    @property
    def is_within_budget(self) -> bool:
        """Whether it took no longer."""
        return self.budget_s is None or self.warm_s <= self.budget_s

    def line(self) -> str:
        """Write a row of the table."""
        return (
            f"{self.question:<62}  {self.num_rows:>10,}  {self.first_s:>8.2f}  {self.warm_s:>7.2f}  {self.cpu_s:>7.2f}"
        )

    def verdict(self) -> str:
        """Say what it may take, and whether it took longer."""
        if self.budget_s is None:
            return "a full scan"
        return f"within {self.budget_s:g} s" if self.is_within_budget else f"MISSED {self.budget_s:g} s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A lake in one state."""

    state: str
    num_files: int
    size_bytes: int
    """Of all recordings and segments."""
    connect_s: float
    peak_memory_bytes: int
    """Of the process that asked all questions."""
    timings: tuple[Timing, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A lake before and after it was compacted."""

    archive: Archive
    invented_s: float
    compact_s: float
    loose: Measurement
    """Asked only some of the questions."""
    compacted: Measurement

    @property
    def audio_h(self) -> float:
        """Hours of audio in the lake."""
        return seconds(self.archive.num_samples) / 3600

    def penalties(self) -> dict[str, float]:
        """Give how many times as long each question took before compaction, by question."""
        after = {timing.question: timing.warm_s for timing in self.compacted.timings}
        return {timing.question: timing.warm_s / after[timing.question] for timing in self.loose.timings}

    def budgets(self) -> dict[str, bool]:
        """Give which budgets hold."""
        searches = [timing for timing in self.compacted.timings if timing.budget_s == SEARCH_BUDGET_S]
        others = [timing for timing in self.compacted.timings if timing.budget_s != SEARCH_BUDGET_S]
        return {
            f"every search within {SEARCH_BUDGET_S:g} s": all(timing.is_within_budget for timing in searches),
            f"every other question within {QUESTION_BUDGET_S:g} s, full scans aside": all(
                timing.is_within_budget for timing in others
            ),
            f"memory under {MEMORY_BUDGET_BYTES / 1e9:g} GB": self.compacted.peak_memory_bytes < MEMORY_BUDGET_BYTES,
        }

    def summary(self) -> str:
        """Write what the tables do not say."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        """Yield the lines of the summary."""
        yield ""
        for measured in (self.loose, self.compacted):
            yield (
                f"{measured.state}: {measured.num_files:,} files, {measured.size_bytes / 1e6:,.0f} MB, "
                f"{measured.size_bytes / self.audio_h / 1e3:,.0f} kB an hour of audio; opened in "
                f"{measured.connect_s:.2f} s; at most {measured.peak_memory_bytes / 1e6:,.0f} MB of memory"
            )
        for question, factor in self.penalties().items():
            yield f"small files: {factor:.1f} times as long before compaction: {question}"
        for budget, holds in self.budgets().items():
            yield f"{'holds' if holds else 'MISSED'}: {budget}"

    def to_json(self) -> str:
        """Return all figures; times in s, memory and sizes in bytes."""
        figures = asdict(self) | {
            "audio_h": self.audio_h,
            "bytes_per_audio_hour": self.compacted.size_bytes / self.audio_h,
            "penalties": self.penalties(),
            "budgets": self.budgets(),
        }
        for measured, timings in ((figures[name], getattr(self, name).timings) for name in ("loose", "compacted")):
            for row, timing in zip(measured["timings"], timings, strict=True):
                row |= {"budget_s": timing.budget_s, "is_within_budget": timing.is_within_budget}
        return json.dumps(figures, indent=1) + "\n"
