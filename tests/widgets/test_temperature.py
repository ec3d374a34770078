"""The temperature widget, without a browser: what is drawn is what SciPy computes, and a move changes the picture."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.widgets.figure import new_figure
from course_lib.widgets.temperature import (
    TEMPERATURES,
    describe,
    draw_temperature,
    entropy_bits,
    temperature_figure,
    temperature_widget,
)

NAMES = ["zero", "one", "two", "three"]
LOGITS = torch.tensor([[9.0, 2.0, -1.0, 4.5], [0.5, 0.25, 3.0, -30.0]])
PICTURES = torch.linspace(0, 1, 2 * 64).reshape(2, 1, 8, 8)


def softmax(logits: torch.Tensor, temperature: float) -> np.ndarray:
    return scipy.special.softmax(logits.numpy().astype(np.float64) / temperature)


def drawn(temperature: float, logits: torch.Tensor = LOGITS[0]):
    return draw_temperature(new_figure(8, 3), logits, temperature, NAMES, picture=PICTURES[0], caption="labelled zero")


@pytest.mark.parametrize(
    ("probabilities", "bits"),
    [([1.0, 0.0], 0.0), ([0.5, 0.5], 1.0), ([0.25] * 4, 2.0), ([0.5, 0.25, 0.25], 1.5)],
)
def test_entropy_by_hand(probabilities: list[float], bits: float) -> None:
    assert float(entropy_bits(torch.tensor(probabilities))) == pytest.approx(bits, abs=1e-7)


@given(st.lists(st.floats(-40, 40), min_size=2, max_size=12), st.sampled_from(TEMPERATURES))
def test_entropy_as_scipy_has_it_and_within_its_bounds(logits: list[float], temperature: float) -> None:
    probabilities = torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, dim=-1)
    bits = float(entropy_bits(probabilities))
    assert bits == pytest.approx(scipy.stats.entropy(probabilities.numpy(), base=2), abs=1e-9)
    assert -1e-12 <= bits <= math.log2(len(logits)) + 1e-9


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-60, 60, width=32), min_size=4, max_size=4), st.floats(0.25, 100))
def test_bars_are_the_softmax_that_scipy_computes(logits: list[float], temperature: float) -> None:
    expected = scipy.special.softmax(np.asarray(logits) / temperature)
    artists = drawn(temperature, torch.tensor(logits))
    widths = [bar.get_width() for bar in artists.linear.bars]
    np.testing.assert_allclose(widths, expected, rtol=1e-12, atol=1e-300)
    ends = [bar.get_x() + bar.get_width() for bar in artists.logarithmic.bars]
    np.testing.assert_allclose(ends, np.maximum(expected, 1e-8), rtol=1e-9)
    assert artists.entropy_bar.get_width() == pytest.approx(scipy.stats.entropy(expected, base=2), abs=1e-9)


def test_the_figure_prints_temperature_entropy_and_what_is_not_on_the_likeliest_class() -> None:
    # Logits 2 ln 3 and three zeros at T = 2: weights 3, 1, 1, 1, so a half and three sixths.
    artists = drawn(2.0, torch.tensor([2 * math.log(3), 0.0, 0.0, 0.0], dtype=torch.float64))
    assert artists.heading.get_text() == "T = 2"
    assert artists.finding.get_text() == "50.00 % of the probability is on classes other than “zero”"
    assert artists.entropy_text.get_text() == "entropy 1.79 bits"  # 1/2 + 1/2 log2 6
    assert [text.get_text() for text in artists.linear.numbers] == ["50.00 %"] + ["16.67 %"] * 3


def test_describe_says_it_in_words() -> None:
    probabilities = torch.tensor([0.125, 0.5, 0.25, 0.125], dtype=torch.float64)
    assert describe(probabilities, 4.0, NAMES) == (
        "T = 4: “one” 50.00 %, “two” 25.00 %, “zero” 12.50 %. Entropy 1.75 of at most 2.00 bits."
    )


def test_update_keeps_the_artists() -> None:
    artists = drawn(1.0)
    before = list(artists.moving)
    artists.update(torch.from_numpy(softmax(LOGITS[1], 5.0)), 5.0)
    assert all(now is then for now, then in zip(artists.moving, before, strict=True))
    np.testing.assert_allclose([bar.get_width() for bar in artists.linear.bars], softmax(LOGITS[1], 5.0))


def test_a_row_for_each_temperature() -> None:
    figure = temperature_figure(LOGITS[0], (1, 4, 20), NAMES, picture=PICTURES[0])
    one = temperature_figure(LOGITS[0], 4, NAMES)
    assert figure.figure.get_figheight() == pytest.approx(3 * one.figure.get_figheight())
    assert [part[:6].strip(" :") for part in figure.description.split("bits. ")] == ["T = 1", "T = 4", "T = 20"]
    assert figure.png()[:4] == b"\x89PNG"


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 8, 8)])
def test_grey_and_colour_pictures(shape: tuple[int, ...]) -> None:
    figure = temperature_figure(LOGITS[0], 1, NAMES, picture=torch.rand(shape, generator=torch.Generator()))
    assert figure.png() != temperature_figure(LOGITS[0], 1, NAMES).png()


def test_a_move_changes_the_picture_and_the_way_back_restores_it() -> None:
    slider, _, image, sentence = temperature_widget(LOGITS, PICTURES, NAMES).children
    at_one, words = image.value, sentence.value
    slider.value = 4.0
    assert image.value != at_one
    assert sentence.value.startswith("T = 4: ")
    assert image.tooltip == sentence.value  # no character in these names needs escaping
    slider.value = 1.0
    assert (image.value, sentence.value) == (at_one, words)


def test_a_moved_widget_shows_what_a_fresh_one_shows() -> None:
    slider, choice, image, _ = temperature_widget(LOGITS, PICTURES, NAMES, labels=[0, 2]).children
    choice.value, slider.value = 1, 8.0
    assert image.value == temperature_figure(LOGITS[1], 8, NAMES, picture=PICTURES[1], caption="labelled two").png()


def test_slider_runs_from_a_quarter_to_a_hundred_and_every_control_says_what_it_is() -> None:
    slider, choice, _, _ = temperature_widget(LOGITS, PICTURES, NAMES, labels=[0, 2], temperature=20.0).children
    values = [value for _, value in slider.options]
    assert (values[0], values[-1], slider.value) == (0.25, 100.0, 20.0)
    assert values == sorted(set(values)) and {1.0, 2.5, 4.0, 8.0, 20.0} <= set(values)
    assert slider.description and choice.description
    assert [words for words, _ in choice.options] == ["1 of 2", "2 of 2"]


def test_class_names_are_text_and_never_markup() -> None:
    names = ["<b>zero</b>", "one", "two", "three"]
    *_, sentence = temperature_widget(LOGITS, PICTURES, names).children
    assert "<b>" not in sentence.value and "&lt;b&gt;" in sentence.value


def test_the_text_that_a_notebook_stores_is_the_same_for_any_numbers() -> None:
    one = temperature_widget(LOGITS, PICTURES, NAMES)._repr_mimebundle_()["text/plain"]
    other = temperature_widget(LOGITS * 0.9, PICTURES, NAMES)._repr_mimebundle_()["text/plain"]
    assert one == other


def test_nothing_is_printed_and_no_pyplot_figure_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    slider, *_ = temperature_widget(LOGITS, PICTURES, NAMES).children
    slider.value = 4.0
    assert capsys.readouterr() == ("", "")
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_bad_temperature(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        temperature_figure(LOGITS[0], temperature, NAMES)
    with pytest.raises(ValueError, match="temperature"):
        temperature_widget(LOGITS, PICTURES, NAMES, temperatures=[1.0, temperature])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": LOGITS[0]}, r"logits have shape \(4,\); expected \(N, C\)"),
        ({"logits": LOGITS[:0]}, "at least one row"),
        ({"logits": LOGITS.clone().fill_(math.nan)}, "not finite"),
        ({"pictures": PICTURES[:1]}, "1 pictures for 2 rows"),
        ({"pictures": torch.zeros(2, 2, 8, 8)}, "picture"),
        ({"labels": [0]}, "1 labels for 2 rows"),
        ({"labels": [0, 4]}, "labels contain 4; expected classes from 0 to 3"),
        ({"class_names": NAMES[:3]}, "expected 4 different names"),
        ({"class_names": ["a", "a", "b", "c"]}, "expected 4 different names"),
        ({"class_names": "abcd"}, "expected 4 different names"),
        ({"temperature": 3.14}, "temperature is 3.14; expected one of temperatures"),
        ({"logits": torch.zeros(2, 31), "class_names": [str(i) for i in range(31)]}, "31 classes; expected 2 to 30"),
        ({"logits": torch.zeros(2, 1), "class_names": ["only"]}, "1 classes; expected 2 to 30"),
    ],
)
def test_bad_input_to_the_widget(change: dict, message: str) -> None:
    arguments = {"logits": LOGITS, "pictures": PICTURES, "class_names": NAMES, **change}
    with pytest.raises(ValueError, match=message):
        temperature_widget(**arguments)


def test_bad_input_to_the_figure() -> None:
    with pytest.raises(ValueError, match=r"expected \(C,\)"):
        temperature_figure(LOGITS, 1, NAMES)
    with pytest.raises(ValueError, match="temperatures is empty"):
        temperature_figure(LOGITS[0], [], NAMES)
    with pytest.raises(ValueError, match="not finite"):
        temperature_figure(torch.tensor([1.0, math.inf, 0.0, 0.0]), 1, NAMES)
