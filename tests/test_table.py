"""The course's table: its text to the letter, its HTML as a parser and a screen reader see it."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from course_lib.measure import Latency
from course_lib.table import ComparisonTable, Row, show_bytes, show_count, show_seconds

BIG = Row(
    "big",
    quality={"accuracy": 0.976},
    parameters=1000,
    nonzero=1000,
    bytes_in_memory=4000,
    bytes_on_disk=4200,
    flops=2_000_000,
    latency=Latency(median=0.002, spread=0.0001, minimum=0.0019, repeats=30),
    peak_memory=512,
    example="1×1×8×8",
    device="CPU, 2 threads",
)
SMALL = Row(
    "small",
    quality={"accuracy": 0.96},
    parameters=250,
    nonzero=100,
    bytes_in_memory=1000,
    bytes_on_disk=1200,
    flops=1_000_000,
    latency=Latency(median=0.0025, spread=0.0002, minimum=0.002, repeats=30),
    peak_memory=512,
    example="1×1×8×8",
    device="CPU, 2 threads",
)


def test_text_by_hand():
    left_out = {"bytes_in_memory": None, "peak_memory": None, "nonzero": None}
    table = ComparisonTable([replace(row, **left_out) for row in (BIG, SMALL)])
    assert str(table).splitlines() == [
        "model             accuracy  parameters     on disk       FLOPs          latency",
        "big                  97.6%       1,000      4.2 kB         2 M    2 ms ± 100 µs",
        "small                96.0%         250      1.2 kB         1 M  2.5 ms ± 200 µs",
        "  against big  -1.6 points  4.00× less  3.50× less  2.00× less       1.25× more",
        "",
        "1 kB is 1,000 bytes.",
        "One multiply-add is two FLOPs.",
        "Latency: median ± interquartile range (CPU, 2 threads).",
        "One call with an input of 1×1×8×8.",
    ]


def html_cells(table: ComparisonTable) -> list[list[str]]:
    """The text of the HTML table's cells, row by row, with a slash at a line break."""
    root = ElementTree.fromstring(f"<div>{table._repr_html_()}</div>")
    rows = root.findall(".//tr")
    return [["/".join(cell.itertext()) for cell in row] for row in rows]


def test_html_says_the_same():
    assert html_cells(ComparisonTable([replace(row, latency=None) for row in (BIG, SMALL)])) == [
        ["model", "accuracy", "parameters", "non-zero", "in memory", "on disk", "FLOPs", "peak memory"],
        ["big", "97.6%", "1,000", "1,000", "4 kB", "4.2 kB", "2 M", "512 B"],
        [
            "small",
            "96.0%/-1.6 points",
            "250/4.00× less",
            "100/10.0× less",
            "1 kB/4.00× less",
            "1.2 kB/3.50× less",
            "1 M/2.00× less",
            "512 B/same",
        ],
    ]


def test_html_is_accessible_and_sets_no_colour():
    html = ComparisonTable([BIG, SMALL])._repr_html_()
    root = ElementTree.fromstring(f"<div>{html}</div>")
    assert root.find(".//caption").text == "Measures of 2 models, compared with big"
    heads = root.findall(".//thead//th")
    assert len(heads) == 9 and all(head.get("scope") == "col" for head in heads)
    assert [row.find("th").get("scope") for row in root.findall(".//tbody/tr")] == ["row", "row"]
    assert "color" not in html and "<script" not in html and "on" + "click" not in html


def test_names_are_escaped():
    html = ComparisonTable([Row("<b>&", parameters=1)])._repr_html_()
    assert "&lt;b&gt;&amp;" in html and "<b>" not in html


def test_what_was_not_measured_is_left_out():
    table = ComparisonTable([Row("a", parameters=10), Row("b", flops=20, quality={"perplexity": 8.0})])
    assert html_cells(table) == [
        ["model", "perplexity", "parameters", "FLOPs"],
        ["a", "—", "10", "—"],
        ["b", "8", "—", "20"],
    ]
    assert "latency" not in str(table).lower() and "kB" not in str(table)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (100, 50, "2.00× less"),
        (50, 100, "2.00× more"),
        (1000, 1001, "same"),
        (1000, 980, "1.02× less"),
        (391, 10, "39.1× less"),
        (9_999, 1_000, "10.0× less"),
        (1_234_567, 1_000, "1,230× less"),
        (0, 0, "same"),
        (5, 0, ""),
        (0, 5, ""),
    ],
)
def test_ratios(before, after, said):
    rows = html_cells(ComparisonTable([Row("a", parameters=before), Row("b", parameters=after)]))
    assert rows[2][1] == (f"{after:,}/{said}" if said else f"{after:,}")


def test_a_measure_of_quality_that_is_no_share_shows_a_difference():
    rows = [Row("a", quality={"perplexity": 20.0}), Row("b", quality={"perplexity": 23.456})]
    assert html_cells(ComparisonTable(rows))[2][1] == "23.46/+3.46"


@pytest.mark.parametrize(
    ("show", "number", "text"),
    [
        (show_bytes, 0, "0 B"),
        (show_bytes, 999, "999 B"),
        (show_bytes, 1000, "1 kB"),
        (show_bytes, 1536, "1.54 kB"),
        (show_bytes, 999_499, "999 kB"),
        (show_bytes, 999_500, "1 MB"),
        (show_bytes, 44_700_000, "44.7 MB"),
        (show_bytes, 5e15, "5,000 TB"),
        (show_count, 512, "512"),
        (show_count, 912_345_678, "912 M"),
        (show_seconds, 8.5e-7, "850 ns"),
        (show_seconds, 1.25e-5, "12.5 µs"),
        (show_seconds, 0.0031, "3.1 ms"),
        (show_seconds, 75, "75 s"),
    ],
)
def test_units(show, number, text):
    assert show(number) == text


def test_bad_input():
    with pytest.raises(ValueError, match="expected one or more rows"):
        ComparisonTable([])
    with pytest.raises(ValueError, match=r"named \['big', 'big'\]"):
        ComparisonTable([BIG, BIG])
    for number in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a finite number of at least 0"):
            show_bytes(number)
