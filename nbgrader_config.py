"""nbgrader's settings for this course. Run every nbgrader command in the folder that holds this file."""

import sys
from pathlib import Path

from nbgrader.converters.autograde import Autograde

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the nbgrader command does not look in its own folder

from classroom.preprocessors import GradeInSandbox, RestoreMarks

c = get_config()  # noqa: F821  nbgrader defines it

c.CourseDirectory.course_id = "model-compression"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "assignments"

# A submission that lost a check cell gets it back: no check, no points, but no silent hole in the gradebook either.
c.OverwriteCells.add_missing_cells = True

# The student's code never runs in nbgrader's own process or in a kernel: see docs/grading.md.
c.Autograde.sanitize_preprocessors = [RestoreMarks, *Autograde.sanitize_preprocessors.default()]
c.Autograde.autograde_preprocessors = [
    GradeInSandbox if preprocessor.__name__ == "Execute" else preprocessor
    for preprocessor in Autograde.autograde_preprocessors.default()
]
