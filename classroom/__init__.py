"""Checks that teach, and a grader that runs a student's code where it can do no harm.

- `checks`: what a test cell calls. Needs nothing but NumPy and PyTorch, so a visible check runs in any Jupyter.
- `sheet`: reads the instructor's notebook: which cell is an answer, which a check, which is given.
- `wire`: how values travel between the two processes: a JSON header and raw bytes, never pickle.
- `worker`, `jail`: the child. It runs the student's code with no network, no files of the course and hard limits.
- `sandbox`: the parent's handle on the child.
- `grader`: runs the instructor's checks in the parent on what the child hands back.
- `harmless`: a student's Markdown as HTML in which nothing can act.
- `preprocessors`, `marks`: the glue to nbgrader, which stays the front.

This package is a tool beside the course's floors: it imports nothing from them.
"""
