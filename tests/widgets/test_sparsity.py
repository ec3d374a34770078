"""The sparsity widget, without a browser: what is drawn is what was computed, and a move changes the picture."""

import copy

import pytest
import torch
from matplotlib.colors import to_hex
from torch import nn
from torch.utils.data import TensorDataset

from course_lib.models.vision import mlp
from course_lib.plots import COLORS
from course_lib.pruning.criteria import magnitude, random_scores
from course_lib.widgets.figure import new_figure
from course_lib.widgets.sparsity import describe, draw_sparsity, figure_size, sparsity_figure, sparsity_widget
from course_lib.widgets.trials import SPARSITIES, Trials
from tests.widgets.rows import DATA, WEIGHT, Rows

SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]
ROW = {"a.weight": WEIGHT[:1], "b.weight": WEIGHT[1:]}
SCORES = {"magnitude": ROW, "upside down": {name: -score for name, score in ROW.items()}}


def trials() -> Trials:
    return Trials(Rows(), DATA, SCORES, SHARES)


def drawn(criterion: str, scope: str, sparsity: float):
    return draw_sparsity(new_figure(*figure_size(2)), trials(), criterion, scope, sparsity)


def widget(**options):
    return sparsity_widget(Rows(), DATA, SCORES, **{"sparsities": SHARES, **options})


def test_the_figure_prints_sparsity_and_accuracy() -> None:
    artists = drawn("magnitude", "global", 0.75)
    assert artists.heading.get_text() == "Sparsity 75.0 %"
    assert artists.finding.get_text() == "magnitude, global: accuracy 50.0 %, with all weights 100.0 %"
    assert [text.get_text() for text in artists.pictures.texts.values()] == ["50.0 % of 4", "0.0 % of 4"]
    assert artists.pictures.pictures["a.weight"].get_array().tolist() == [[0, 1, 1, 0]]


def test_lines_and_dot_by_hand() -> None:
    curves = drawn("magnitude", "global", 0.75).curves
    x, y = curves.lines["magnitude"].get_data()
    assert (list(x), list(y)) == (SHARES, [1.0, 1.0, 1.0, 0.5, 0.5])
    # The highest go first: without 6 and 5 pictures 1 and 2 are wrong, without 4 and 3 all are.
    assert list(curves.lines["upside down"].get_ydata())[:3] == [1.0, 0.5, 0.0]
    assert [list(values) for values in curves.dot.get_data()] == [[0.75], [0.5]]
    assert to_hex(curves.dot.get_markerfacecolor()).upper() == COLORS["blue"]
    assert curves.lines["magnitude"].get_linewidth() > curves.lines["upside down"].get_linewidth()


def test_bars_by_hand() -> None:
    bars = drawn("magnitude", "global", 0.5).sizes  # bytes 32, 80, 80 and 18, see test_trials
    assert [bar.get_width() for bar in bars.bars.values()] == [1.0, 80 / 32, 80 / 32, 18 / 32]
    assert [text.get_text() for text in bars.numbers.values()] == ["32 B", "80 B", "80 B", "18 B"]
    colors = [to_hex(bar.get_facecolor()).upper() for bar in bars.bars.values()]
    assert colors == ["#808080", COLORS["vermillion"], COLORS["vermillion"], COLORS["green"]]


def test_the_bar_of_two_of_four_is_empty_where_it_does_not_fit() -> None:
    bars = drawn("magnitude", "global", 0.25).sizes
    assert to_hex(bars.bars["2:4"].get_facecolor()) == "#ffffff"
    assert bars.bars["2:4"].get_hatch() and not bars.bars["coo"].get_hatch()
    assert bars.bars["2:4"].get_width() == 18 / 32
    assert bars.numbers["2:4"].get_text() == "not 2 of every 4\n(always 50 %)"
    bars.update({"dense": 32, "coo": 80, "csr": 80, "2:4": 18})
    assert not bars.bars["2:4"].get_hatch()
    assert bars.numbers["2:4"].get_text() == "18 B"


def test_two_of_four_that_is_not_possible() -> None:
    model = nn.Linear(6, 2)
    data = TensorDataset(torch.zeros(1, 6), torch.zeros(1).long())
    own = Trials(model, data, {"a": {"weight": torch.rand(2, 6)}})
    bars = draw_sparsity(new_figure(*figure_size(1)), own, "a", "global", 0.5).sizes
    assert bars.bars["2:4"].get_width() == 0
    assert bars.numbers["2:4"].get_text() == "not possible:\ninputs not in fours"
    share, which, where, *_ = sparsity_widget(model, data, {"a": {"weight": torch.rand(2, 6)}}).children
    assert where.options == ("global", "local")


def test_describe_says_it_in_words() -> None:
    assert describe(trials().outcome("magnitude", "local", 0.75)) == (
        "Sparsity 75.0 %, magnitude, local: 2 of 8 weights are kept. Accuracy 75.0 %, with all weights 100.0 %. "
        "Size: dense 32 B, COO 40 B, CSR 56 B, 2:4 18 B."
    )
    assert describe(trials().outcome("magnitude", "local", 0.0)).endswith(
        "Size: dense 32 B, COO 160 B, CSR 128 B. The layout 2:4 does not fit: it stores 2 of every 4 neighbours, "
        "always 50 %."
    )


def test_update_keeps_the_artists() -> None:
    artists = drawn("magnitude", "global", 0.25)
    before = list(artists.moving)
    artists.update(artists.trials.outcome("upside down", "2:4", 0.5))
    assert all(now is then for now, then in zip(artists.moving, before, strict=True))
    assert artists.heading.get_text() == "Sparsity 50.0 %"
    x, _ = artists.curves.lines["magnitude"].get_data()
    assert list(x) == [0.5] and artists.curves.lines["magnitude"].get_marker() == "s"


def test_a_row_for_each_choice() -> None:
    choices = [("magnitude", "global", 0.5), ("upside down", "local", 0.75), ("magnitude", "2:4", 0.5)]
    figure = sparsity_figure(Rows(), DATA, SCORES, choices, sparsities=SHARES)
    one = sparsity_figure(Rows(), DATA, SCORES, choices[:1], sparsities=SHARES)
    assert figure.figure.get_figheight() == pytest.approx(3 * one.figure.get_figheight())
    assert figure.description.count("Sparsity ") == 3 and "upside down, local" in figure.description
    assert figure.png()[:4] == b"\x89PNG"


def test_a_move_changes_the_picture_and_the_way_back_restores_it() -> None:
    share, which, where, image, sentence = widget().children
    first, words = image.value, sentence.value
    for control, value in ((share, 0.75), (which, "upside down"), (where, "local")):
        before, back = image.value, control.value
        control.value = value
        assert image.value != before
        assert image.tooltip == sentence.value  # no character in these names needs escaping
        control.value = back
        assert (image.value, sentence.value) == (first, words)


def test_a_moved_widget_shows_what_a_fresh_figure_shows() -> None:
    share, which, where, image, _ = widget().children
    which.value, where.value, share.value = "upside down", "local", 0.75
    choice = [("upside down", "local", 0.75)]
    assert image.value == sparsity_figure(Rows(), DATA, SCORES, choice, sparsities=SHARES).png()


def test_two_of_four_is_always_a_half() -> None:
    share, _, where, image, sentence = widget(sparsity=0.75).children
    where.value = "2:4"
    assert share.disabled
    assert sentence.value.startswith("Sparsity 50.0 %, magnitude, 2:4: 4 of 8 weights")
    where.value = "global"
    assert not share.disabled
    assert sentence.value.startswith("Sparsity 75.0 %")
    assert widget(scope="2:4").children[0].disabled


def test_every_control_says_what_it_is_and_starts_where_it_is_told() -> None:
    controls = widget(criterion="upside down", scope="local", sparsity=0.25).children[:3]
    assert [control.value for control in controls] == [0.25, "upside down", "local"]
    assert [control.description for control in controls] == ["sparsity", "criterion", "scope"]
    assert [words for words, _ in controls[0].options] == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    assert controls[2].options == ("global", "local", "2:4")


def test_a_real_network_is_left_as_it_was() -> None:
    model = mlp([64, 32, 10], dropout=0.1).train()
    before = copy.deepcopy(model.state_dict())
    data = TensorDataset(torch.randn(50, 64), torch.randint(10, (50,)))
    scores = {"magnitude": magnitude(model), "random": random_scores(model, seed=0)}
    share, which, where, image, _ = sparsity_widget(model, data, scores, sparsity=0.9).children
    assert [value for _, value in share.options] == list(SPARSITIES)
    share.value, which.value, where.value = 0.99, "random", "2:4"
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert model.training


def test_criteria_are_text_and_never_markup() -> None:
    *_, sentence = sparsity_widget(Rows(), DATA, {"<b>size</b>": ROW}).children
    assert "<b>" not in sentence.value and "&lt;b&gt;" in sentence.value


def test_nothing_is_printed_and_no_pyplot_figure_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    widget().children[0].value = 0.75
    assert capsys.readouterr() == ("", "")
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 0.33}, "sparsity is 0.33; expected one of sparsities"),
        ({"scope": "layer"}, "scope is 'layer'; expected one of"),
        ({"criterion": "size"}, "criterion is 'size'; expected one of"),
    ],
)
def test_a_start_that_is_no_position(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        widget(**change)


@pytest.mark.parametrize("choices", [[], "magnitude", [("magnitude", "global")], ["abc"]])
def test_bad_choices(choices: object) -> None:
    with pytest.raises(ValueError, match=r"choices are .*; expected \[\(criterion, scope, sparsity\), ...\]"):
        sparsity_figure(Rows(), DATA, SCORES, choices, sparsities=SHARES)


def test_more_than_can_be_drawn() -> None:
    many = {str(i): ROW for i in range(6)}
    with pytest.raises(ValueError, match="scores are of 6 criteria; expected 1 to 5"):
        sparsity_widget(Rows(), DATA, many)
    deep = mlp([4] * 15)
    with pytest.raises(ValueError, match="scores are of 14 layers; expected 1 to 12"):
        sparsity_widget(deep, DATA, {"magnitude": magnitude(deep)})
