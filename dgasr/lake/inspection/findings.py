"""What can be wrong with a lake, and what to do about it. Knows no storage and no query."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["fault", "note"]
"""`fault`: readers get a wrong answer, or none. `note`: worth knowing; every answer is right."""

RESTORE = (
    "Restore it from a copy or an older version of the object; without one, `dgasr lake forget PARTITION` takes this "
    "partition out, and the next `dgasr transcribe` fills it anew"
)
"""What to do about rows that are gone or wrong in their file."""

REDO = (
    "The program that made these rows is at fault: report it; `dgasr lake forget PARTITION` takes the partition out, "
    "and the next `dgasr transcribe` fills it anew"
)
"""What to do about whole files whose rows contradict each other."""

REPLACE_COMMIT = (
    "Delete it if a stranger put it there, or restore it from a copy; without one, delete the parts of this name under "
    "recordings/ and segments/ first, and then this file, and run `dgasr transcribe` again"
)
"""What to do about a commit that says nothing."""

UPGRADE = "Upgrade dgasr"
"""What to do about what a newer dgasr wrote; nothing of it may be deleted."""

MOVE_OR_RESTORE = "Move it out of the lake if a stranger put it there; otherwise restore it from a copy"
"""What to do about a file that is none of ours, among parts that no commit names."""

WAIT = "Nothing need be done: the next `dgasr lake compact` or `dgasr lake vacuum --yes` sees to it"
"""What to do about what killed processes left."""

WITHOUT_COMMIT = "Restore its commit from a copy if that was deleted by mistake; `dgasr lake vacuum --yes` removes it"
"""What to do about parts that nothing names though nobody is writing them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        severity: `fault` or `note`.
        kind: name of the rule that is broken.
        where: which file or recording, for a person.
        what: what is wrong with it.
        advice: what to do now.
    """

    severity: Severity
    kind: str
    where: str
    what: str
    advice: str

    def line(self) -> str:
        """Say it in one line: what, where, what now."""
        return f"{self.severity} {self.kind}: {self.where}: {self.what}. {self.advice}."


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What an inspection looked at, and what it found.

    Attributes:
        findings: faults first.
        num_files: files that were looked at.
        num_recordings: rows of `recordings` that were checked.
        num_segments: rows of `segments` that were checked.
        is_deep: whether bytes and identities were checked too.
    """

    findings: tuple[Finding, ...]
    num_files: int
    num_recordings: int
    num_segments: int
    is_deep: bool

    @property
    def num_faults(self) -> int:
        """Findings that are faults."""
        return sum(finding.severity == "fault" for finding in self.findings)

    def line(self) -> str:
        """Say it in one line."""
        looked = f"{self.num_files} files, {self.num_recordings} recordings, {self.num_segments} segments"
        depth = "bytes too" if self.is_deep else "bytes not compared, add --deep"
        if not self.num_faults:
            return f"the lake is sound: {looked} checked ({depth})"
        kinds = Counter(finding.kind for finding in self.findings if finding.severity == "fault")
        return f"{self.num_faults} faults ({', '.join(sorted(kinds))}) in {looked}"


def finding(severity: Severity, kind: str, where: str, what: str, advice: str, partition: str) -> Finding:
    """Make a finding; its advice names the partition that is concerned, `recipe_id=…/date=…` or `runs/date=…`."""
    return Finding(
        severity=severity,
        kind=kind,
        where=where,
        what=what,
        advice=advice.replace("PARTITION", partition or "PARTITION"),
    )


def sorted_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Put faults first, then kinds in order; of one kind as they were found."""
    return tuple(sorted(findings, key=lambda found: (found.severity, found.kind)))
