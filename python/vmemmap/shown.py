"""What a notebook shows of an answer: a few lines of HTML, everything in them escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["html_table"]

#: Rows that a notebook shows of a long table.
MOST_ROWS = 60


def html_table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A title and a table; a long one is cut in its middle, and says so.

    Args:
        title: One line.
        head: Headings of the columns; none for pairs.
        rows: The cells.

    Returns:
        HTML, to be put into a page as it is.
    """
    listed = [[escape(str(cell)) for cell in row] for row in rows]
    if len(listed) > MOST_ROWS:
        left_out = len(listed) - MOST_ROWS
        middle = [["…", f"{left_out:,} more", *[""] * max(0, len(listed[0]) - 2)]]
        listed = [*listed[: MOST_ROWS // 2], *middle, *listed[-MOST_ROWS // 2 :]]
    heading = f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>" if head else ""
    cell = '<td style="text-align:left">{}</td>'
    body = "".join(f"<tr>{''.join(cell.format(text) for text in row)}</tr>" for row in listed)
    return f"<div><p><b>{escape(title)}</b></p><table>{heading}<tbody>{body}</tbody></table></div>"
