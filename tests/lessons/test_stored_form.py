"""tools/notebooks.py: the form in which a lesson is stored."""

import copy
import json

import pytest
from nbformat.v4 import new_output

from tests.lessons.fixture import PIXEL, good_lesson
from tools import notebooks
from tools.notebooks import caption, compared_share, lessons, normalise


def test_normalising_twice_changes_nothing():
    once = normalise(good_lesson())
    assert normalise(copy.deepcopy(once)) == once


def test_what_changes_from_run_to_run_is_dropped():
    lesson = good_lesson()
    lesson.metadata.widgets = {"state": {"1": {}}}
    lesson.metadata.language_info.version = "3.12.1"
    lesson.cells[1].metadata.execution = {"iopub.execute_input": "2026"}
    lesson.cells[1].execution_count = 7
    view = {"model_id": "a3f", "version_major": 2}
    lesson.cells[1].outputs.append(
        new_output("display_data", data={notebooks.WIDGET_VIEW: view, "text/plain": "HBox()"})
    )
    stored = normalise(lesson)
    assert stored.metadata == notebooks.METADATA
    assert stored.cells[1].metadata == {}
    assert stored.cells[1].execution_count == 1
    assert stored.cells[1].outputs[1].data == {"text/plain": "HBox()"}


def test_tags_and_ids_are_kept():
    lesson = good_lesson()
    lesson.cells[1].metadata.tags = ["nbval-ignore-output"]
    stored = normalise(lesson)
    assert stored.cells[1].metadata == {"tags": ["nbval-ignore-output"]}
    assert [cell.id for cell in stored.cells] == ["first", "add", "text", "draw", "caption"]


def test_pieces_of_a_stream_are_joined():
    lesson = good_lesson()
    lesson.cells[1].outputs = [
        new_output("stream", name="stdout", text="a"),
        new_output("stream", name="stdout", text="b"),
        new_output("stream", name="stderr", text="c"),
        new_output("stream", name="stdout", text="d"),
    ]
    stored = normalise(lesson).cells[1].outputs
    assert [(output.name, output.text) for output in stored] == [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")]


def test_a_figure_gets_its_caption_as_alt_text():
    lesson = good_lesson()
    lesson.cells[4].source = "*Figure 2 (left): a single\nblack pixel.*\n\nIt is small."
    output = normalise(lesson).cells[3].outputs[0]
    assert output.data["image/png"] == PIXEL
    assert output.metadata == {"image/png": {"alt": "a single black pixel."}}


def test_only_a_caption_is_a_caption():
    lesson = good_lesson()
    assert caption(lesson.cells[4]) == "a single black pixel."
    assert caption(lesson.cells[2]) is None
    assert caption(lesson.cells[3]) is None
    assert caption(None) is None


def test_the_compared_share_counts_cells_that_store_text():
    lesson = good_lesson()
    assert compared_share(lesson) == 1.0  # of one: the other cell only draws
    lesson.cells[3].metadata.tags = ["nbval-ignore-output"]
    assert compared_share(lesson) == 1.0
    lesson.cells[3].outputs.append(new_output("stream", name="stdout", text="0.3 s"))
    assert compared_share(lesson) == 0.5
    lesson.cells[1].outputs = []
    assert compared_share(lesson) == 0.0


def test_an_unknown_name_lists_the_lessons(monkeypatch, tmp_path):
    (tmp_path / "00_one.ipynb").write_text(json.dumps({}))
    monkeypatch.setattr(notebooks, "LESSONS", tmp_path)
    assert [path.stem for path in lessons(["00"])] == ["00_one"]
    with pytest.raises(ValueError, match="begins with '7'; there are 00_one"):
        lessons(["7"])


def test_floors_rise_and_never_fall(monkeypatch, tmp_path):
    import nbformat

    floors = tmp_path / "compared.json"
    floors.write_text('{"00_one": 0.9, "01_two": 0.2}')
    lesson = good_lesson()
    lesson.cells[3].metadata.tags = ["nbval-ignore-output"]
    lesson.cells[3].outputs.append(new_output("stream", name="stdout", text="0.3 s"))
    for name in ("00_one", "01_two", "02_three"):
        nbformat.write(lesson, tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(notebooks, "LESSONS", tmp_path)
    monkeypatch.setattr(notebooks, "FLOORS", floors)
    notebooks.raise_floors()
    assert json.loads(floors.read_text()) == {"00_one": 0.9, "01_two": 0.5, "02_three": 0.5}
