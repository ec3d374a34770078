"""Masks as pictures: each cell says what share of its weights is kept, and every picture lies in its box."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.widgets.figure import new_figure
from course_lib.widgets.mask_pictures import LINE, MOST_LAYERS, MaskPictures, block_shares, height_needed, short_name

SIZE = (8.6, 4.0)


def pictures(shapes: dict, height: float = 2.0) -> MaskPictures:
    return MaskPictures(new_figure(*SIZE), shapes, size=SIZE, box=(0.1, 0.6, 1.95, height))


def test_block_shares_by_hand() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.bool)
    assert block_shares(mask, 1).tolist() == mask.float().tolist()
    # Blocks at the edge are smaller: 3 of 4, 0 of 2, 0 of 2, 1 of 1.
    assert block_shares(mask, 2).tolist() == [[0.75, 0.0], [0.0, 1.0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_block_shares_as_numpy_has_them(rows: int, columns: int, block: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.3
    starts = [np.arange(0, length, block) for length in (rows, columns)]
    sums = np.add.reduceat(np.add.reduceat(mask.astype(float), starts[0], axis=0), starts[1], axis=1)
    sizes = np.add.reduceat(np.add.reduceat(np.ones_like(mask, dtype=float), starts[0], axis=0), starts[1], axis=1)
    np.testing.assert_allclose(block_shares(torch.from_numpy(mask), block).numpy(), sums / sizes, rtol=1e-6)


def test_small_layers_have_a_cell_for_each_weight_and_large_ones_blocks() -> None:
    drawn = pictures({"1.weight": (32, 64), "3.weight": (10, 32)})
    assert drawn.blocks == {"1.weight": 1, "3.weight": 1}
    assert pictures({"1.weight": (300, 784)}).blocks["1.weight"] == 5  # at least two pixels of the file for a block
    assert pictures({"0.weight": (16, 3, 3, 3)}).blocks["0.weight"] == 1


def test_update_shows_the_masks_and_counts_them() -> None:
    drawn = pictures({"1.weight": (2, 4), "3.weight": (3, 2, 1, 2)})
    before = list(drawn.moving)
    first = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 1]], dtype=torch.bool)
    second = torch.zeros(3, 2, 1, 2, dtype=torch.bool)
    second[0, 1, 0, 0] = True
    drawn.update({"1.weight": first, "3.weight": second})
    assert drawn.pictures["1.weight"].get_array().tolist() == first.float().tolist()
    assert drawn.pictures["3.weight"].get_array().tolist() == [[0, 0, 1, 0], [0] * 4, [0] * 4]
    assert [text.get_text() for text in drawn.texts.values()] == ["50.0 % of 8", "8.3 % of 12"]
    assert all(now is then for now, then in zip(drawn.moving, before, strict=True))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), min_size=1, max_size=MOST_LAYERS))
def test_pictures_lie_in_their_box_one_under_the_other(matrices: list[tuple[int, int]]) -> None:
    height = max(1.75, height_needed(len(matrices)))
    size = (8.6, height + 1)
    shapes = {str(i): shape for i, shape in enumerate(matrices)}
    drawn = MaskPictures(new_figure(*size), shapes, size=size, box=(0.1, 0.5, 1.95, height))
    places = [picture.axes.get_position() for picture in drawn.pictures.values()]
    for place, (rows, columns) in zip(places, matrices, strict=True):
        wide, high = place.width * size[0], place.height * size[1]
        assert 0 < wide <= 1.95 + 1e-9
        assert wide / high == pytest.approx(columns / rows, rel=1e-6)  # cells are square
    tops = [place.y1 * size[1] for place in places]
    ends = [min(place.y0 * size[1], place.y1 * size[1] - LINE) for place in places]
    assert all(end > top for end, top in zip(ends, tops[1:], strict=False))
    assert ends[-1] >= 0.5 - 1e-6


def test_a_long_name_is_cut_at_its_beginning() -> None:
    assert short_name("blocks.0.0.weight") == "blocks.0.0.weight"
    assert short_name("encoder.layers.3.attention.weight") == "…3.attention.weight"  # 19 letters
