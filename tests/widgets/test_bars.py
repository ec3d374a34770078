"""The words beside the bars, and bars that are changed in place."""

import pytest
from matplotlib.colors import to_hex

from course_lib.plots import COLORS
from course_lib.widgets.bars import SMALLEST, ClassBars, percent, power_of_ten
from course_lib.widgets.figure import new_figure


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.0, "0.00 %"),
        (1e-12, "<0.01 %"),
        (4.9e-5, "<0.01 %"),
        (0.0001, "0.01 %"),
        (0.1234, "12.34 %"),
        (0.99994, "99.99 %"),
        (0.999999, ">99.99 %"),
        (1.0, "100.00 %"),
    ],
)
def test_percent(probability: float, words: str) -> None:
    assert percent(probability) == words


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.0, "0"),
        (1.234e-5, "1.2·10⁻⁵"),
        (9.97e-13, "1.0·10⁻¹²"),
        (0.00099, "9.9·10⁻⁴"),
        (0.001, "0.001"),
        (0.0126, "0.013"),
        (1.0, "1.000"),
    ],
)
def test_power_of_ten(probability: float, words: str) -> None:
    assert power_of_ten(probability) == words


def test_linear_bars_end_at_the_probability() -> None:
    bars = ClassBars(new_figure(4, 3).add_axes((0.1, 0.1, 0.8, 0.8)), ["a", "b", "c"], logarithmic=False)
    bars.update([0.25, 0.7, 0.05])
    assert [bar.get_width() for bar in bars.bars] == [0.25, 0.7, 0.05]
    assert [text.get_text() for text in bars.numbers] == ["25.00 %", "70.00 %", "5.00 %"]
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars.bars] == [
        COLORS["blue"],
        COLORS["vermillion"],
        COLORS["blue"],
    ]


def test_logarithmic_bars_end_at_the_probability_or_have_no_length() -> None:
    bars = ClassBars(new_figure(4, 3).add_axes((0.1, 0.1, 0.8, 0.8)), ["a", "b", "c"], logarithmic=True)
    bars.update([0.999, 1e-3, 1e-20])
    ends = [bar.get_x() + bar.get_width() for bar in bars.bars]
    assert ends == pytest.approx([0.999, 1e-3, SMALLEST], rel=1e-9)
    assert bars.bars[2].get_width() == 0
    assert bars.numbers[2].get_text() == "1.0·10⁻²⁰"  # too small for a bar, never for a number
    assert bars.numbers[2].get_position()[0] == SMALLEST


def test_update_changes_the_same_artists() -> None:
    bars = ClassBars(new_figure(4, 3).add_axes((0.1, 0.1, 0.8, 0.8)), ["a", "b"], logarithmic=False)
    bars.update([0.9, 0.1])
    before = list(bars.moving)
    bars.update([0.2, 0.8])
    assert all(now is then for now, then in zip(bars.moving, before, strict=True))
    assert to_hex(bars.bars[1].get_facecolor()).upper() == COLORS["vermillion"]
