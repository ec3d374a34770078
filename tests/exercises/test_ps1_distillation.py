"""What ps1_distillation claims in its text, seen in the cells that show the bugs at work."""

import re

from tests.exercises.sets import SETS, run_demonstrations


def test_the_bugs_do_what_the_text_says(capsys):
    run_demonstrations(SETS[0].sheet())
    printed = capsys.readouterr().out
    assert "step 50: the student says [1.0, 0.0, 0.0, 0.0]" in printed  # pulled away from a perfect start
    wrong = {name: int(count) for name, count in re.findall(r"(with the bug|mended): (\d+) of 500", printed)}
    assert wrong["with the bug"] > 400  # no better than a guess
    assert wrong["mended"] < 50
    soft = [float(x) for x in re.findall(r"soft term ([\d.]+)", printed)]
    assert soft[0] / soft[-1] > 100  # 2 classes against 1,000
