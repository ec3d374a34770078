"""Wrong answers that learners really give: how a set lists them."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One wrong answer.

    Its source replaces the answer that defines the same names; all other answers are the reference ones.
    """

    check: str  # the check that must fail
    name: str
    source: str
    message: str  # a piece of what the learner is told


def family(check: str, template: str, variants: dict[str, tuple[str, str]]) -> list[Mutant]:
    """Mutants of one answer: name -> (what stands for BODY in the template, a piece of the message)."""
    return [Mutant(check, name, template.replace("BODY", body), message) for name, (body, message) in variants.items()]


class Answers:
    """Answers beside the mutants, wrong and right, as learners may type them."""

    def __init__(self) -> None:
        self.wrongs: dict[str, tuple[str, str]] = {}  # name -> source, a piece of what the learner is told
        self.rights: dict[str, str] = {}

    def wrong(self, name: str, source: str, message: str = "") -> None:
        """Add an answer that must lose points."""
        self.wrongs[name] = (source, message)

    def right(self, name: str, source: str) -> None:
        """Add an answer that must score full marks."""
        self.rights[name] = source
