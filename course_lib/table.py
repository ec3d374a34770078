"""The one table of the course: models side by side, each compared with the first.

``measure.compare_models`` makes it. A measure that no row has is left out. A notebook shows the table
as HTML, ``print`` shows it as text; both say the same.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from html import escape


@dataclass(frozen=True)
class Latency:
    """Seconds that a call takes. ``spread`` is the interquartile range, that of the middle half."""

    median: float
    spread: float
    minimum: float
    repeats: int

    def __str__(self) -> str:
        """The median and the spread in readable units."""
        return f"{show_seconds(self.median)} (spread {show_seconds(self.spread)}, {self.repeats} runs)"


@dataclass(frozen=True)
class Row:
    """What was measured of one model; None for what was not. Bytes, FLOPs and counts are whole numbers."""

    name: str
    quality: Mapping[str, float] = field(default_factory=dict)  # by name: {"accuracy": 0.98}, a share from 0 to 1
    parameters: int | None = None
    nonzero: int | None = None
    bytes_in_memory: int | None = None
    bytes_on_disk: int | None = None
    flops: int | None = None  # of one call, a multiply-add counted as 2
    latency: Latency | None = None
    peak_memory: int | None = None
    example: str = ""  # the shape of the input of that call
    device: str = ""


class ComparisonTable:
    """Rows side by side, the first one being what the others are compared with.

    Args:
        rows: one or more, each with a name of its own.

    Raises:
        ValueError: there are no rows, or two share a name.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = tuple(rows)
        names = [row.name for row in self.rows]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"the rows are named {names}; expected one or more rows, each with a name of its own")
        columns = _columns(self.rows)
        self._columns = [column for column in columns if any(column.value(row) is not None for row in self.rows)]

    def __str__(self) -> str:
        """The table as text, a line of ratios under every row but the first."""
        lines = [["model", *(column.title for column in self._columns)]]
        for row, values, ratios in self._cells():
            lines.append([row.name, *values])
            if ratios:
                lines.append([f"  against {self.rows[0].name}", *ratios])
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        text = [
            "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip() for cells in lines
        ]
        return "\n".join([*text, "", *self._notes()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table for a notebook. It sets no colours: it reads well in a light and a dark theme."""
        head = "".join(f'<th scope="col" style="text-align: right">{escape(c.title)}</th>' for c in self._columns)
        body = ""
        for row, values, ratios in self._cells():
            cells = [
                f"{escape(value)}<br/><small>{escape(ratio)}</small>" if ratio else escape(value)
                for value, ratio in zip(values, ratios or [""] * len(values), strict=True)
            ]
            name = f'<th scope="row" style="text-align: left">{escape(row.name)}</th>'
            body += f"<tr>{name}{''.join(map(_td, cells))}</tr>\n"
        caption = escape(self._caption())
        return (
            f'<table>\n<caption style="text-align: left">{caption}</caption>\n'
            f'<thead><tr><th scope="col" style="text-align: left">model</th>{head}</tr></thead>\n'
            f"<tbody>\n{body}</tbody>\n</table>\n"
            f"<p><small>{' '.join(map(escape, self._notes()))}</small></p>"
        )

    def _cells(self) -> Iterable[tuple[Row, list[str], list[str]]]:
        """For each row what its columns show and, but for the first row, how that compares with the first."""
        first = self.rows[0]
        for row in self.rows:
            values = ["—" if c.value(row) is None else c.show(row) for c in self._columns]
            yield row, values, [] if row is first else [_against(c, first, row) for c in self._columns]

    def _caption(self) -> str:
        if len(self.rows) == 1:
            return f"Measures of {self.rows[0].name}"
        return f"Measures of {len(self.rows)} models, compared with {self.rows[0].name}"

    def _notes(self) -> list[str]:
        """What a reader must know to read the columns that are there."""
        titles = {column.title for column in self._columns}
        notes = []
        if any("memory" in title or "disk" in title for title in titles):
            notes.append("1 kB is 1,000 bytes.")
        if "FLOPs" in titles:
            notes.append("One multiply-add is two FLOPs.")
        if "latency" in titles:
            where = " and ".join(dict.fromkeys(row.device for row in self.rows if row.device))
            notes.append(f"Latency: median ± interquartile range{f' ({where})' if where else ''}.")
        if "peak memory" in titles:
            notes.append("Peak memory: on top of the model and its input.")
        called = titles & {"FLOPs", "latency", "peak memory"}
        examples = dict.fromkeys(row.example for row in self.rows if row.example)
        if called and examples:
            notes.append(f"One call with an input of {' or '.join(examples)}.")
        return notes


def _td(content: str) -> str:
    return f'<td style="text-align: right">{content}</td>'


@dataclass(frozen=True)
class _Column:
    title: str
    value: Callable[[Row], float | None]
    show: Callable[[Row], str]
    is_share: bool = False  # a difference in points says more than a ratio
    is_quality: bool = False


def _columns(rows: Iterable[Row]) -> list[_Column]:
    columns = [_quality_column(name) for name in dict.fromkeys(name for row in rows for name in row.quality)]
    columns += [
        _Column("parameters", lambda row: row.parameters, lambda row: f"{row.parameters:,}"),
        _Column("non-zero", lambda row: row.nonzero, lambda row: f"{row.nonzero:,}"),
        _Column("in memory", lambda row: row.bytes_in_memory, lambda row: show_bytes(row.bytes_in_memory)),
        _Column("on disk", lambda row: row.bytes_on_disk, lambda row: show_bytes(row.bytes_on_disk)),
        _Column("FLOPs", lambda row: row.flops, lambda row: show_count(row.flops)),
        _Column("latency", lambda row: row.latency and row.latency.median, _latency),
        _Column("peak memory", lambda row: row.peak_memory, lambda row: show_bytes(row.peak_memory)),
    ]
    return columns


def _quality_column(name: str) -> _Column:
    share = "accuracy" in name
    show = "{:.1%}" if share else "{:.4g}"
    return _Column(name, lambda row: row.quality.get(name), lambda row: show.format(row.quality[name]), share, True)


def _latency(row: Row) -> str:
    return f"{show_seconds(row.latency.median)} ± {show_seconds(row.latency.spread)}"


def _against(column: _Column, first: Row, row: Row) -> str:
    before, after = column.value(first), column.value(row)
    if before is None or after is None:
        return ""
    if column.is_share:
        return f"{100 * (after - before):+.1f} points"
    if column.is_quality:
        return f"{after - before:+.3g}"
    if before <= 0 or after <= 0:
        return "same" if before == after else ""
    ratio = before / after
    if 0.995 < ratio < 1.005:
        return "same"
    return f"{_three_digits(ratio)}× less" if ratio > 1 else f"{_three_digits(1 / ratio)}× more"


def _three_digits(number: float) -> str:
    """``number``, at least 1, to three digits, without an exponent: 1.02, 39.1, 1,230."""
    return f"{number:#.3g}".rstrip(".") if number < 999.5 else f"{float(f'{number:.3g}'):,.0f}"


def _with_unit(number: float, units: tuple[str, ...], name: str) -> str:
    if not number >= 0 or math.isinf(number):
        raise ValueError(f"{name} is {number}; expected a finite number of at least 0")
    thousands = 0
    while number >= 999.5 and thousands < len(units) - 1:
        number, thousands = number / 1000, thousands + 1
    return (f"{number:.3g}" if number < 999.5 else f"{number:,.0f}") + units[thousands]


def show_bytes(size: int) -> str:
    """``size`` with a unit: ``999 B``, ``1.5 kB``, ``44.7 MB``. 1 kB is 1,000 bytes."""
    return _with_unit(size, (" B", " kB", " MB", " GB", " TB"), "size")


def show_count(count: int) -> str:
    """``count`` with a unit: ``512``, ``1.5 k`` (thousand), ``2.3 M`` (million), ``4 G`` (billion)."""
    return _with_unit(count, ("", " k", " M", " G", " T"), "count")


def show_seconds(seconds: float) -> str:
    """``seconds`` with a unit: ``850 ns``, ``12.5 µs``, ``3.1 ms``, ``2 s``."""
    return _with_unit(seconds * 1e9, (" ns", " µs", " ms", " s"), "seconds")
