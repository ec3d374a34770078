"""Where the time of a call goes: the formula by hand and against the counters, and what the widget shows."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import measure
from course_lib.models.vision import mlp
from course_lib.widgets.call_time import (
    BATCHES,
    DEPTHS,
    WIDTHS,
    Machine,
    call_time,
    call_time_figure,
    call_time_widget,
    describe,
)

# A fee of 1 s, 100 FLOPs a second, 400 bytes a second: what comes out can be worked out with a pencil.
SLOW = Machine(fee=1.0, flops_per_second=100.0, bytes_per_second=400.0)
LAPTOP = Machine(fee=3e-6, flops_per_second=5e10, bytes_per_second=2e10)


def test_by_hand():
    # 64 -> 2 -> 10: 128 + 20 = 148 weights, 12 biases; linear layers read 64 + 2 and write 2 + 10 numbers.
    time = call_time(1, 2, 3, SLOW)
    assert (time.calls, time.flops) == (4, 2 * 148 * 3)
    assert time.fees == 4.0
    assert time.arithmetic == pytest.approx(888 / 100)
    assert time.memory == pytest.approx(4 * (148 + 12 + 3 * 78) / 400)
    assert time.work == time.arithmetic and time.total == pytest.approx(4 + 8.88)
    assert call_time(1, 2, 1, SLOW).work == call_time(1, 2, 1, SLOW).arithmetic == 2.96


@pytest.mark.parametrize(("depth", "width"), [(1, 1200), (6, 86), (6, 1), (3, 7)])
@pytest.mark.parametrize("batch", [1, 16])
def test_layers_flops_and_parameters_are_those_of_the_model(depth, width, batch):
    import torch

    model = mlp([64, *depth * [width], 10])
    time = call_time(depth, width, batch, Machine(1.0, 1.0, 1.0))
    assert time.calls == len(model)
    assert time.flops == measure.flops(model, torch.zeros(batch, 1, 8, 8))
    more = call_time(depth, width, batch + 1, Machine(1.0, 1.0, 1.0))
    numbers = more.memory - time.memory  # what each further picture reads and writes
    assert time.memory - batch * numbers == measure.bytes_in_memory(model)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 2000), st.integers(1, 5000))
def test_more_is_never_faster_and_a_batch_shares_the_fee(depth, width, batch):
    time = call_time(depth, width, batch, LAPTOP)
    assert time.total == time.fees + max(time.arithmetic, time.memory)
    for more in ((depth + 1, width, batch), (depth, width + 1, batch), (depth, width, batch + 1)):
        assert call_time(*more, LAPTOP).total >= time.total
    together = call_time(depth, width, 2 * batch, LAPTOP).total
    assert together <= 2 * time.total


@pytest.mark.parametrize("name", ["fee", "flops_per_second", "bytes_per_second"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_machine_that_cannot_be(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}; expected a finite number above 0"):
        Machine(**{"fee": 1.0, "flops_per_second": 1.0, "bytes_per_second": 1.0, name: value})


def test_numbers_below_one():
    for name, position in (("depth", (0, 8, 1)), ("width", (1, 0, 1)), ("batch", (1, 8, 0))):
        for function in (lambda *p: call_time(*p, LAPTOP), lambda *p: call_time_figure(LAPTOP, *p)):
            with pytest.raises(ValueError, match=f"{name} is 0; expected a whole number of at least 1"):
                function(*position)


def test_the_words_say_what_the_formula_says():
    words = describe(6, 86, 1, SLOW)
    assert words.startswith("6 layers of 86, 1 at once: 14 layers are called, 86,688 FLOPs a picture.")
    time, wide = call_time(6, 86, 1, SLOW), call_time(1, 1200, 1, SLOW)
    assert f"{time.fees / time.total:.0%} entry fees, the rest arithmetic" in words
    assert f"{time.total / wide.total:.2g} times as long as 1 layer of 1,200." in words
    assert "the rest memory" in describe(1, 1200, 1, Machine(1.0, 1e9, 1.0))


def test_a_moved_widget_shows_what_a_fresh_one_shows():
    depth, width, batch, image, sentence = call_time_widget(LAPTOP).children
    before = image.value
    depth.value, width.value, batch.value = 2, 512, 64
    fresh = call_time_widget(LAPTOP, 2, 512, 64).children
    assert image.value == fresh[3].value != before
    assert (sentence.value, image.tooltip) == (fresh[4].value, fresh[3].tooltip)
    assert image.tooltip == describe(2, 512, 64, LAPTOP)
    assert image.value == call_time_figure(LAPTOP, 2, 512, 64).png()


def test_every_slider_has_a_name_and_rising_values():
    *sliders, _, _ = call_time_widget(LAPTOP).children
    assert [slider.description for slider in sliders] == ["hidden layers", "numbers in each", "pictures"]
    for slider, values in zip(sliders, (DEPTHS, WIDTHS, BATCHES), strict=True):
        assert [value for _, value in slider.options] == sorted(set(values))
    with pytest.raises(ValueError, match="width is 87; expected one of"):
        call_time_widget(LAPTOP, width=87)


def test_nothing_is_printed_and_no_pyplot_figure_stays_open(capsys):
    depth, *_ = call_time_widget(LAPTOP).children
    depth.value = 3
    assert capsys.readouterr() == ("", "")
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []
