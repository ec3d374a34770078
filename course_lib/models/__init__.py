"""The course's own models, small enough to train on a laptop."""
