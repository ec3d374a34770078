"""What depends on what in a network, and how it is cut. A reader of methods needs only the names that stand here.

- ``follow`` finds the channels of every tensor in a network, ``groups`` the layers whose units go together, ``cut``
  takes channels out.
- ``structure_of`` and ``rebuild`` reload what is left.

Behind them: ``hollow`` (a copy without numbers), the rules of operations in ``arithmetic``, ``moves`` and
``weights``, ``shapes`` (what they give), ``sizes`` (numbers that count channels), ``channels`` (the bookkeeping).
"""

from course_lib.pruning.graph.cut import Cut, cut, smaller
from course_lib.pruning.graph.groups import Group, groups
from course_lib.pruning.graph.network import UNITS, Example, Network, follow
from course_lib.pruning.graph.reload import first_numbers, rebuild, shorten, structure_of

__all__ = [
    "UNITS",
    "Cut",
    "Example",
    "Group",
    "Network",
    "cut",
    "first_numbers",
    "follow",
    "groups",
    "rebuild",
    "shorten",
    "smaller",
    "structure_of",
]
