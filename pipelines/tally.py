"""How far a run is, counted in assignments. Knows no server and no child run."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How far a run is; numbers of assignments but for the last."""

    num_assignments: int
    num_done: int
    num_failed: int
    """Given up after all their attempts; the next run takes them up again."""
    num_preparing: int
    num_prepared: int
    """Staged and waiting for a decoder."""
    num_decoding: int
    num_attempts: int
    """Child runs that were submitted so far."""

    def line(self) -> str:
        """Say it in one line."""
        failed = f", {self.num_failed} given up" if self.num_failed else ""
        return (
            f"{self.num_done} of {self.num_assignments} assignments done{failed}; {self.num_preparing} being read, "
            f"{self.num_prepared} waiting for a decoder, {self.num_decoding} being decoded"
        )
