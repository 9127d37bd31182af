"""A lake in, everything that is wrong with it out: its files, then its rows. Changes nothing."""

from dgasr.lake.inspection.findings import Finding, Inspection
from dgasr.lake.inspection.lake import check_lake

__all__ = ["Finding", "Inspection", "check_lake"]
