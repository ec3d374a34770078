"""Data sets: pictures (``images``) and the files that they come from (``files``)."""
