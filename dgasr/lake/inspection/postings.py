"""The postings of a lake against its segments. Nobody misses what is lost; what is wrong gives wrong searches."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dgasr.lake.commits import Part, has_our_terms, indexed_key
from dgasr.lake.datasets import read_part
from dgasr.lake.encoding import ORDER
from dgasr.lake.garbage import Inventory
from dgasr.lake.inspection.files import check_parts, partition_of
from dgasr.lake.inspection.findings import Finding, Severity, finding
from dgasr.lake.postings import SOURCE_COLUMNS, postings_of
from dgasr.lake.schema import TABLES

COMPACT = "Run `dgasr lake compact`, which makes it anew; until then searches read the text"
"""What to do about postings that are lost."""

REMAKE = "Delete the file and run `dgasr lake compact`, which makes it anew"
"""What to do about postings that say something wrong."""


def check_postings(found: Inventory, parts: Sequence[Part], sound: Sequence[Part], is_deep: bool) -> Iterator[Finding]:
    """Yield what is wrong with postings.

    Args:
        found: what lies in the lake.
        parts: the postings that a manifest names.
        sound: parts of other tables that are what they should be.
        is_deep: read all bytes, and make the postings once more to compare them.
    """
    segments = {part.key: part for part in sound if part.table == "segments"}
    wanted = [part for part in parts if has_our_terms(part.key) and indexed_key(part.key) in segments]
    whole = [part for part in wanted if part.key in found.files and found.files[part.key].size == part.size_bytes]
    for part in (part for part in wanted if part not in whole):
        what = f"is named by the manifest, and is not there with its {part.size_bytes} bytes"
        yield _finding("note", "postings_lost", found, part, what, COMPACT)
    usable, wrong = check_parts(found, whole, is_deep)
    yield from (replace(item, advice=REMAKE) for item in wrong)
    for part in usable if is_deep else ():
        source = read_part(found.lake, segments[indexed_key(part.key) or ""], SOURCE_COLUMNS)
        made = postings_of(source).sort_by([(name, "ascending") for name in ORDER["postings"]])
        if not made.equals(read_part(found.lake, part, TABLES["postings"].names)):
            what = f"does not say what stands in {indexed_key(part.key)}"
            yield _finding("fault", "postings_differ", found, part, what, REMAKE)


def _finding(severity: Severity, kind: str, found: Inventory, part: Part, what: str, advice: str) -> Finding:
    return finding(severity, kind, f"{found.lake.uri}/{part.key}", what, advice, partition_of(part.key))
