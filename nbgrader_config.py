"""nbgrader's settings for this course. Run every nbgrader command in the folder that holds this file."""

import os
import sys
from pathlib import Path

from nbgrader.converters.autograde import Autograde

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the nbgrader command does not look in its own folder
# nbgrader calls the program alembic, which lies beside Python also where the environment is not activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

try:
    from classroom.marks import Marks
    from classroom.preprocessors import GradeInSandbox, ShowHarmless, TakeText
except Exception as error:  # nbgrader would log it, go on without this file, and run student code in a kernel
    sys.exit(f"{__file__}: {type(error).__name__}: {error}. Nothing is graded without the sandbox")

c = get_config()  # noqa: F821  nbgrader defines it

c.CourseDirectory.course_id = "model-compression"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "release"  # the same as assignments/, which the repository holds already

# A submission that lost a check cell gets it back: no check, no points, but no silent hole in the gradebook either.
c.OverwriteCells.add_missing_cells = True

# All is done in nbgrader's first pass, so that a notebook stands in autograded/ only once its scores are in the
# gradebook: whatever ends the grader before that, the next run grades the submission again.
# The student's code never runs in nbgrader's own process or in a kernel: see docs/grading.md.
c.Autograde.sanitize_preprocessors = [
    TakeText,
    *Autograde.sanitize_preprocessors.default(),
    *(
        GradeInSandbox if preprocessor.__name__ == "Execute" else preprocessor
        for preprocessor in Autograde.autograde_preprocessors.default()
    ),
]
c.Autograde.autograde_preprocessors = []
c.HTMLExporter.preprocessors = [ShowHarmless]
c.ExportApp.plugin_class = Marks
