"""Data sets: pictures (``images``), sentences (``text``), and the files that are downloaded (``files``)."""
