"""Pruning: a network with parts taken out.

Which parts go:

- ``criteria`` (size, chance), ``taylor`` and ``gates`` (the loss, estimated for weights and for units), ``oracle`` (the
  loss, measured), ``sensitivity`` (how sensitive each layer is).

Weights, set to zero:

- ``masks`` cuts by scores, ``held`` puts masks on a model and takes them off;
- ``lottery`` prunes in rounds with rewinding (``config``, ``round_files``).

Units, heads and layers, really removed:

- ``structured`` (``remove_units``) for any network that can be followed; ``graph`` finds what depends on what, cuts it,
  and reloads what is left;
- ``heads``, ``width`` and ``depth`` for transformers; ``blocks`` says where their parts are.

What zeros are worth in bytes and in time is in ``course_lib.storage``.
"""
