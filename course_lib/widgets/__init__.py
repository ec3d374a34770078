"""The course's widgets: for each one a function that draws from numbers, and a thin ipywidgets shell over it."""
