"""Pruning: a network with parts taken out.

- which parts: ``criteria`` scores single weights and whole units, ``layerwise`` tells how sensitive each layer is;
- weights: ``masks`` sets them to zero and holds them there, ``lottery`` does it in rounds with rewinding;
- units, heads, layers: ``structured`` really removes them;
- ``sparse``: what zeros cost in bytes and in time.
"""
