"""What a reading of a scope has seen, and the rows that it can lack.

A row's `row_version` is the id of the transaction that wrote it there. A reading keeps the oldest transaction that was
still running: a row below that version was in the reading's snapshot or will never be; one that appears later is at or
above it. That holds on one server and one table only. Three things begin the count anew or mix two counts:

- A standby that was promoted without its primary's last transactions, or a server recovered from a crash or a backup,
  gives ids below the watermark to new rows.
- A table that was made anew, or emptied and filled from a dump, brings rows with the ids of their own time.
- Rows from the dump of another server may bring ids that this server reaches in years.

So a watermark names its lineage too, and where the server's is another one, every row counts as unseen. Rows of the
third kind are told by an id that is not given yet; those that a reading saw are left out by their range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# The start of the server; the last recovery from a crash, which sets its statistics back; the table's file.
LINEAGE = (
    "concat_ws('/', extract(epoch FROM pg_postmaster_start_time()), "
    "extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()), pg_relation_filenode('face_encodings'))"
)
_LAST = "'18446744073709551615'::xid8"


@dataclass(frozen=True, slots=True)
class Watermark:
    """version: the oldest transaction that was running. lineage: of what server and table. restored: the highest version
    seen that is of another server's count; None where there was none. erasures: of the client, until then.
    """

    version: int
    lineage: str
    restored: int | None = None
    erasures: int = 0

    def unseen(self, name: str) -> tuple[str, ...]:
        """Conditions on `f.row_version`: each is one range of an index, and every row a reading can lack meets one.

        name: ends the names of their parameters.
        """
        same = f"{LINEAGE} = %(lineage{name})s"
        newer = f"f.row_version >= CASE WHEN {same} THEN %(version{name})s::text::xid8 ELSE '0'::xid8 END"
        if self.restored is None:
            return (newer,)
        given = f"f.row_version < CASE WHEN {same} THEN pg_snapshot_xmax(pg_current_snapshot()) ELSE {_LAST} END"
        return (f"{newer} AND {given}", f"f.row_version > %(restored{name})s::text::xid8")

    def parameters(self, name: str) -> Mapping[str, str]:
        """Of the conditions of `unseen`."""
        parameters = {f"lineage{name}": self.lineage, f"version{name}": str(self.version)}
        if self.restored is not None:
            parameters[f"restored{name}"] = str(self.restored)
        return parameters
