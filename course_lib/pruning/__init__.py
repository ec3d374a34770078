"""Pruning: a network with parts taken out.

Which parts go:

- ``criteria`` (size, chance), ``taylor`` and ``gates`` (the loss, estimated for weights and for units), ``oracle`` (the
  loss, measured), ``sensitivity`` (how sensitive each layer is).

Weights, set to zero:

- ``masks`` cuts by scores, ``held`` puts masks on a model and takes them off;
- ``lottery`` prunes in rounds with rewinding (``config``, ``round_files``).

Units, heads and layers, really removed:

- ``structured`` (``remove_units``), ``heads``, ``depth``; ``structure`` reloads what is left;
- behind them: ``tracing``, ``operations``, ``channels`` and ``dependencies`` find what depends on what, ``shapes``,
  ``resizing`` and ``checks`` cut it.

What zeros are worth in bytes and in time is in ``course_lib.storage``.
"""
