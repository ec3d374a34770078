"""Reference implementations for the course on model compression.

Import the module that you need, for instance ``from course_lib.distillation import hinton``:
this package itself imports nothing, so that it costs no time.
"""

__version__ = "0.1.0"
