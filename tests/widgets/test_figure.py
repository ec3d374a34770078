"""A figure that is redrawn fast has to look exactly like one that is drawn from nothing."""

import io

import numpy as np
from PIL import Image

from course_lib.widgets.figure import DPI, PIXEL_RATIO, LiveFigure, figure_image, new_figure, show


def moving_bar() -> tuple[LiveFigure, object, object]:
    """A figure with one bar that moves and one line that does not."""
    figure = new_figure(3, 2)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set(xlim=(0, 1), ylim=(-1, 1))
    (line,) = axes.plot([0, 1], [-1, 1], color="black")
    (bar,) = axes.barh([0], [0.2], color="red")
    return LiveFigure(figure, [bar], "a bar"), bar, line


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_png_has_the_size_of_the_figure_and_no_transparency() -> None:
    live, _, _ = moving_bar()
    assert pixels(live.png()).shape == (2 * DPI * PIXEL_RATIO, 3 * DPI * PIXEL_RATIO, 3)
    assert live.page_width == 3 * DPI


def test_equal_figures_give_equal_bytes() -> None:
    live, bar, _ = moving_bar()
    first = live.png()
    assert live.png() == first
    bar.set_width(0.9)
    changed = live.png()
    assert changed != first
    bar.set_width(0.2)
    assert live.png() == first  # nothing of the longer bar is left behind


def test_a_redraw_equals_a_drawing_from_nothing() -> None:
    live, bar, _ = moving_bar()
    live.png()
    bar.set_width(0.7)
    fresh, fresh_bar, _ = moving_bar()
    fresh_bar.set_width(0.7)
    assert live.png() == fresh.png()


def test_what_does_not_move_is_drawn_again_when_asked() -> None:
    live, _, line = moving_bar()
    before = live.png()
    line.set_color("blue")
    assert live.png() == before  # kept pixels: this is what makes a redraw fast
    live.redraw_all()
    assert live.png() != before


def test_savefig_draws_the_moving_parts_too() -> None:
    live, bar, _ = moving_bar()
    bar.set_facecolor((1, 0, 0))
    file = io.BytesIO()
    live.figure.savefig(file, format="png")
    red = (pixels(file.getvalue())[..., :3] == (255, 0, 0)).all(axis=-1)
    assert red.any()


def test_a_notebook_shows_it_with_words_for_those_who_do_not_see_it() -> None:
    live, _, _ = moving_bar()
    png, metadata = live._repr_png_()
    assert png == live.png()
    assert metadata == {"alt": "a bar", "width": 300}
    assert repr(live) == "<figure, 300 by 200 pixels>"


def test_show_puts_the_present_state_into_the_image() -> None:
    live, bar, _ = moving_bar()
    image = figure_image(live)
    first = image.value
    assert first == live.png()
    assert image.tooltip == "a bar"
    bar.set_width(0.5)
    live.description = "a longer bar"
    show(live, image)
    assert image.value != first
    assert image.tooltip == "a longer bar"
