"""`nbgrader export` that tells "not graded" from "0 points". Set up in nbgrader_config.py."""

from __future__ import annotations

import csv
from pathlib import Path

from nbgrader.api import Assignment, Gradebook, MissingEntry
from nbgrader.plugins import CsvExportPlugin


class Marks(CsvExportPlugin):
    """nbgrader's table, with empty scores for what was handed in and not graded."""

    def export(self, gradebook: Gradebook) -> None:
        """Write the table, and name every submission that is not graded."""
        self.to = self.to or "grades.csv"
        super().export(gradebook)
        with open(self.to, newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames, list(reader)
        found = {(row["assignment"], row["student_id"]): row for row in rows}
        for assignment in gradebook.assignments:
            for student in self._not_graded(gradebook, assignment):
                names = {"assignment": assignment.name, "student_id": student}
                row = found.get((assignment.name, student))
                if row is None and not self.student and not self.assignment:  # nbgrader has never seen this student
                    rows.append(row := names)
                if row is not None:
                    row |= {"raw_score": "", "score": ""}
                    self.log.error("NOT GRADED, so without a score: %(student_id)s, %(assignment)s", names)
        with open(self.to, "w", newline="") as file:
            table = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)

    def _not_graded(self, gradebook: Gradebook, assignment: Assignment) -> list[str]:
        course = self.parent.coursedir
        handed_in = Path(course.root).glob(f"{course.submitted_directory}/*/{assignment.name}")
        return [s for s in sorted(p.parent.name for p in handed_in) if not self._graded(gradebook, assignment, s)]

    def _graded(self, gradebook: Gradebook, assignment: Assignment, student: str) -> bool:
        course = self.parent.coursedir
        folder = Path(course.format_path(course.autograded_directory, student, assignment.name))
        try:
            submission = gradebook.find_submission(assignment.name, student)
        except MissingEntry:
            return False
        scores = [
            g for n in submission.notebooks for g in n.grades if g.auto_score is None and not g.needs_manual_grade
        ]
        return not scores and all((folder / f"{n.name}.ipynb").is_file() for n in assignment.notebooks)
