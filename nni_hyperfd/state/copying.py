"""All rows of a state into the empty tables of another database."""

from __future__ import annotations

from sqlalchemy import Connection, Integer, func, insert, select, text

from nni_hyperfd.state.tables import Base

_ROWS = 500  # at a time; blobs of a few hundred KiB are among them


def copy_rows(source: Connection, target: Connection) -> dict[str, int]:
    """Copy every row, under its id.

    Args:
        source: a transaction on a state of the present format.
        target: a transaction on empty tables.

    Returns:
        How many rows were copied, by table.
    """
    counts = {}
    for table in Base.metadata.sorted_tables:
        order = list(table.primary_key.columns)  # a row of extractors refers to earlier ones
        rows = source.execute(select(table).order_by(*order)).mappings()
        counts[table.name] = 0
        while part := rows.fetchmany(_ROWS):
            target.execute(insert(table), [dict(row) for row in part])
            counts[table.name] += len(part)
        if target.dialect.name == "postgresql" and isinstance(order[0].type, Integer):
            highest = select(func.max(order[0])).scalar_subquery()
            sequence = func.pg_get_serial_sequence(text(f"'{table.name}'"), text(f"'{order[0].name}'"))
            # Without rows the next id is 1, as for a new table.
            target.execute(select(func.setval(sequence, func.coalesce(highest, 1), highest.is_not(None))))
    return counts
