"""Pruning: a network with parts taken out.

Which parts go:

- ``criteria`` (size, chance), ``taylor`` (the change of the loss, estimated; Fisher), ``leave_one_out`` (the
  same, measured), ``sensitivity`` (what each layer can spare).

Weights, set to zero:

- ``masks`` cuts by scores, ``held`` puts masks on a model and takes them off;
- ``lottery`` prunes in rounds with rewinding (its settings are in ``config``).

Units, heads and layers, really removed:

- ``structured`` (``remove_units``) for any network that can be followed; ``graph`` finds what depends on what, cuts it,
  and reloads what is left;
- ``heads``, ``width`` and ``depth`` for transformers; ``blocks`` says where their parts are.

What zeros are worth in bytes and in time is in ``course_lib.storage``.
"""
