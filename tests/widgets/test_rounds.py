"""The rounds widget, without a browser: counts by hand, and a move changes the picture."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from course_lib.plots import COLORS
from course_lib.pruning.masks import global_masks
from course_lib.widgets.figure import new_figure
from course_lib.widgets.round_panels import short_percent
from course_lib.widgets.rounds import MaskRounds, describe, draw_rounds, figure_size, rounds_figure, rounds_widget

NAN = math.nan


def mask(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.bool)


# Two units that read a picture of 2 by 2 pixels, and one unit that reads those two: 10 weights.
MASKS = [
    {"1.weight": mask([[1, 1, 1, 1], [1, 1, 1, 1]]), "3.weight": mask([[1, 1]])},
    {"1.weight": mask([[1, 1, 0, 1], [1, 0, 0, 1]]), "3.weight": mask([[1, 1]])},
    {"1.weight": mask([[0, 1, 0, 0], [1, 0, 0, 0]]), "3.weight": mask([[0, 1]])},
]
ACCURACIES = {"ticket": [0.9, 0.95, 0.8], "random mask": [0.9, NAN, 0.5]}
STEPS = {"ticket": [1200, 900, 1000.0]}
PICTURE = torch.linspace(0, 1, 4).view(1, 2, 2)


def rounds(**change) -> MaskRounds:
    return MaskRounds(**{"masks": MASKS, "picture_shape": (2, 2), "accuracies": ACCURACIES, **change})


def drawn(number: int, **change):
    record = rounds(**change)
    return draw_rounds(new_figure(*figure_size(record)), record, number)


@pytest.mark.parametrize(
    ("number", "counts", "density"),
    [(0, [[2, 2], [2, 2]], 1.0), (1, [[2, 1], [0, 2]], 0.7), (2, [[1, 1], [0, 0]], 0.3)],
)
def test_weights_per_pixel_and_densities_by_hand(number: int, counts: list, density: float) -> None:
    assert rounds().pixel_counts(number).tolist() == counts
    assert rounds().densities[number] == pytest.approx(density)


def test_colours_of_a_pixel_are_counted_together() -> None:
    # Channels are the outer dimension: weights 0 and 4 read pixel 0, 1 and 5 pixel 1, and so on.
    colour = [{"w": mask([[1, 0, 0, 0, 1, 0, 0, 1], [1, 0, 1, 0, 0, 0, 0, 0]])}]
    assert MaskRounds(colour, (2, 2, 2)).pixel_counts(0).tolist() == [[3, 0], [1, 1]]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_weights_per_pixel_as_numpy_counts_them(channels: int, high: int, wide: int, units: int, seed: int) -> None:
    weights = np.random.default_rng(seed).random((units, channels, high, wide)) < 0.4
    record = MaskRounds([{"w": torch.from_numpy(weights.reshape(units, -1))}], (channels, high, wide))
    np.testing.assert_array_equal(record.pixel_counts(0).numpy(), weights.sum(axis=(0, 1)))


def test_the_layer_that_reads_the_picture_may_be_another() -> None:
    other = [{"head": mask([[1, 0, 1]]), **masks} for masks in MASKS]
    assert MaskRounds(other, (2, 2), layer="1.weight").pixel_counts(1).tolist() == [[2, 1], [0, 2]]


def test_the_figure_prints_what_is_left() -> None:
    artists = drawn(2)
    assert artists.heading.get_text() == "Round 2"
    assert artists.finding.get_text() == "30.0 % of the weights are left; 2 of 4 pixels have none"
    assert artists.counts.most.get_text() == "1"
    assert [bar.get_width() for bar in artists.densities.bars.values()] == [0.25, 0.5]
    assert [text.get_text() for text in artists.densities.numbers.values()] == ["25.0 %", "50.0 %"]


def test_pixels_without_weights_are_left_white_and_the_most_is_the_darkest() -> None:
    counts = drawn(1).counts
    shown = counts.picture.get_array()
    assert shown.mask.tolist() == [[False, False], [True, False]]
    assert shown.compressed().tolist() == [1.0, 0.5, 1.0]
    cmap = counts.picture.get_cmap()
    assert to_hex(cmap.get_bad()) == "#ffffff"
    brightness = [sum(cmap(value)[:3]) for value in (0.1, 0.5, 1.0)]
    assert brightness == sorted(brightness, reverse=True)
    counts.update(torch.zeros(2, 2, dtype=torch.long))
    assert counts.picture.get_array().mask.all() and counts.most.get_text() == "1"


def test_lines_run_up_to_the_round_and_bridge_what_was_not_measured() -> None:
    (panel,) = drawn(1).lines
    points = {name: [list(values) for values in line.get_data()] for name, line in panel.lines.items()}
    assert points == {"ticket": [[0, 1], [0.9, 0.95]], "random mask": [[0], [0.9]]}
    panel.update(2)
    points = {name: [list(values) for values in line.get_data()] for name, line in panel.lines.items()}
    assert points == {"ticket": [[0, 1, 2], [0.9, 0.95, 0.8]], "random mask": [[0, 2], [0.9, 0.5]]}
    assert to_hex(panel.lines["ticket"].get_color()).upper() == COLORS["blue"]
    styles = {(line.get_linestyle(), line.get_marker()) for line in panel.lines.values()}
    assert len(styles) == 2  # told apart without colours


def test_the_axes_of_the_lines_stay_where_they_are() -> None:
    (panel,) = drawn(0).lines
    axes = panel.lines["ticket"].axes
    low, high = axes.get_ylim()
    assert low < 0.5 and high > 0.95  # all rounds fit, also those that are not shown yet
    assert [text.get_text() for text in axes.get_xticklabels()] == ["100", "70", "30"]
    panel.update(2)
    assert axes.get_ylim() == (low, high)


@pytest.mark.parametrize(
    ("share", "words"),
    [(1.0, "100"), (0.512, "51"), (0.0996, "10"), (0.0688, "6.9"), (0.00996, "1.0"), (0.00482, "0.48")],
)
def test_short_percent(share: float, words: str) -> None:
    assert short_percent(share) == words


def test_panels_of_lines_are_there_only_with_numbers() -> None:
    assert [len(drawn(0, accuracies=a, steps=s).lines) for a in ({}, ACCURACIES) for s in ({}, STEPS)] == [0, 1, 1, 2]
    nothing_measured = drawn(0, accuracies={"ticket": [NAN] * 3})
    assert [len(values) for values in nothing_measured.lines[0].lines["ticket"].get_data()] == [0, 0]


def test_describe_says_it_in_words() -> None:
    assert describe(rounds(steps=STEPS), 0) == (
        "Round 0: 10 of 10 weights are left, 100.0 %. 0 of 4 pixels have none. "
        "Accuracy: ticket 90.0 %, random mask 90.0 %. Early stop at step: ticket 1,200."
    )
    assert describe(rounds(), 1) == (
        "Round 1: 7 of 10 weights are left, 70.0 %. 1 of 4 pixels have none. Accuracy: ticket 95.0 %."
    )
    assert describe(rounds(accuracies={"ticket": [NAN] * 3}), 2).endswith("2 of 4 pixels have none.")


def test_update_keeps_the_artists() -> None:
    artists = drawn(0, steps=STEPS)
    before = list(artists.moving)
    artists.update(2)
    assert all(now is then for now, then in zip(artists.moving, before, strict=True))
    assert artists.heading.get_text() == "Round 2"


def test_a_row_for_each_round() -> None:
    figure, one = rounds_figure(rounds(picture=PICTURE), (0, 1, 2)), rounds_figure(rounds(), 1)
    assert figure.figure.get_figheight() == pytest.approx(3 * one.figure.get_figheight())
    assert [figure.description.count(f"Round {number}: ") for number in range(3)] == [1, 1, 1]
    assert figure.png()[:4] == b"\x89PNG"


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2), (3, 9, 9)])
def test_a_picture_is_drawn_beside_the_counts(shape: tuple[int, ...]) -> None:
    record = rounds(picture=torch.rand(shape, generator=torch.Generator()), caption="Mean of the training pictures")
    assert rounds_figure(record, 1).png() != rounds_figure(rounds(), 1).png()


def test_a_move_changes_the_picture_and_the_way_back_restores_it() -> None:
    slider, image, sentence = rounds_widget(rounds(picture=PICTURE)).children
    first, words = image.value, sentence.value
    slider.value = 2
    assert image.value != first
    assert image.tooltip == sentence.value and sentence.value.startswith("Round 2: ")
    slider.value = 0
    assert (image.value, sentence.value) == (first, words)


def test_a_moved_widget_shows_what_a_fresh_figure_shows() -> None:
    slider, image, _ = rounds_widget(rounds(steps=STEPS), number=1).children
    slider.value = 2
    assert image.value == rounds_figure(rounds(steps=STEPS), 2).png()


def test_the_slider_says_what_it_is() -> None:
    slider, *_ = rounds_widget(rounds(), number=1).children
    assert (slider.description, slider.value) == ("round", 1)
    assert [words for words, _ in slider.options] == ["0 of 2", "1 of 2", "2 of 2"]


def test_masks_of_a_real_size() -> None:
    scores = {"1.weight": torch.rand(300, 784), "3.weight": torch.rand(100, 300), "5.weight": torch.rand(10, 100)}
    record = MaskRounds([global_masks(scores, 1 - 0.8**number) for number in range(4)], (1, 28, 28))
    assert int(record.pixel_counts(3).sum()) == int(record.masks[3]["1.weight"].sum())
    assert rounds_figure(record, 3).png()[:4] == b"\x89PNG"


def test_names_are_text_and_never_markup() -> None:
    *_, sentence = rounds_widget(rounds(accuracies={"<b>ticket</b>": [0.9] * 3})).children
    assert "<b>" not in sentence.value and "&lt;b&gt;" in sentence.value


def test_nothing_is_printed_and_no_pyplot_figure_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    rounds_widget(rounds()).children[0].value = 1
    assert capsys.readouterr() == ("", "")
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": []}, "masks are not understood; expected a list"),
        ({"masks": MASKS[0]}, "masks are not understood; expected a list"),
        ({"masks": [MASKS[0], {"1.weight": MASKS[1]["1.weight"]}]}, "round 1 has no mask for 3.weight"),
        ({"masks": [MASKS[0], {**MASKS[1], "5.weight": mask([[1]])}]}, "5.weight.*matches none of the names"),
        ({"masks": [MASKS[0], {**MASKS[1], "3.weight": mask([[1]])}]}, r"has shape \(1, 1\); expected \(1, 2\)"),
        ({"masks": [{}]}, "masks are empty"),
        ({"masks": [{str(i): mask([[1]]) for i in range(13)}]}, "masks are of 13 layers; expected 1 to 12"),
        ({"layer": "weight"}, r"layer is 'weight'; expected one of \['1.weight', '3.weight'\]"),
        ({"layer": "3.weight"}, r"has shape \(1, 2\); expected \(units, 4\)"),
        ({"picture_shape": (4,)}, r"picture_shape is \(4,\); expected"),
        ({"picture_shape": (3, 3)}, r"has shape \(2, 4\); expected \(units, 9\)"),
        ({"accuracies": {"ticket": [0.5]}}, "accuracies of 'ticket' has 1 numbers; expected 3"),
        ({"accuracies": {"ticket": [0.5, 95.0, 0.5]}}, "holds 95.0; expected shares from 0 to 1"),
        ({"steps": {"ticket": [1, -2, 3]}}, "steps of 'ticket' holds -2; expected finite numbers from 0"),
        ({"steps": {"ticket": [1, math.inf, 3]}}, "holds inf; expected finite numbers"),
        ({"accuracies": {str(i): [0.5] * 3 for i in range(5)}}, "accuracies has 5 lines; expected up to 4"),
    ],
)
def test_bad_records(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rounds(**change)


def test_masks_are_of_bools() -> None:
    with pytest.raises(TypeError, match="1.weight is torch.float32; expected a tensor of torch.bool"):
        rounds(masks=[{"1.weight": torch.ones(2, 4)}])


def test_a_round_that_there_is_not() -> None:
    for number in (-1, 3):
        with pytest.raises(ValueError, match=f"round is {number}; expected 0 to 2"):
            rounds_figure(rounds(), number)
        with pytest.raises(ValueError, match=f"round is {number}; expected 0 to 2"):
            rounds_widget(rounds(), number=number)
    with pytest.raises(ValueError, match="numbers is empty"):
        rounds_figure(rounds(), [])
    with pytest.raises(ValueError, match="picture has shape"):
        rounds_figure(rounds(picture=torch.zeros(2, 2, 2)), 0)
