"""Sentences to learn from, made by a grammar of our own: which verb has been masked?

Every sentence has one masked verb in the present tense. Its *word* follows from the kind of its subject (dogs bark,
lamps shine), its *form* from the subject's number (the dog barks, the dogs bark). Other nouns, of any kind and
number, stand before, between and behind::

    near the sharks , the old lamp that the dogs followed [mask] today        shines
    the puppies beside the bard [mask] near the wheel                         bark
    behind the star [mask] the zebras                                         gallop

So a model has to find the subject, and for that it needs the order of the words: without it every noun is as good as
every other. Linzen, Dupoux and Goldberg 2016, "Assessing the Ability of LSTMs to Learn Syntax-Sensitive Dependencies"
(arXiv 1611.01368), ask for the number of the verb in sentences from Wikipedia, and count *attractors*: nouns between
subject and verb with the other number. The question is theirs; the sentences and the sixteen verb forms are ours.

An encoder of four layers learns it in about 300 steps, to more than 99%; counts of words get about half right::

    data = load_agreement()
    model = Encoder(len(data.vocabulary), data.num_classes, max_length=data.length)
    fit(model, data.train, AGREEMENT_FIT)

Nothing is downloaded.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from course_lib.training_config import FitConfig

KINDS = {  # verb -> the nouns that it goes with
    "bark": ("dog", "hound", "puppy", "terrier", "poodle", "beagle"),
    "fly": ("sparrow", "robin", "eagle", "pigeon", "swallow", "crow"),
    "swim": ("shark", "eel", "dolphin", "seal", "whale", "otter"),
    "gallop": ("horse", "pony", "stallion", "zebra", "donkey", "mare"),
    "sing": ("singer", "tenor", "soprano", "bard", "minstrel", "baritone"),
    "teach": ("teacher", "tutor", "professor", "lecturer", "coach", "mentor"),
    "roll": ("ball", "wheel", "marble", "barrel", "cart", "hoop"),
    "shine": ("lamp", "lantern", "candle", "star", "torch", "beacon"),
}
ADJECTIVES = ("old", "young", "big", "small", "quiet", "famous")
PREPOSITIONS = ("near", "behind", "beside", "above")
SEEN = ("saw", "heard", "followed", "passed")  # the past tense does not give the number away
RESTED = ("rested", "waited", "moved", "stopped")
ADVERBS = ("often", "today", "again", "outside", "slowly", "alone")
PADDING, MASK = 0, 1  # the numbers of the tokens with a meaning of their own
SPECIAL = ("[padding]", "[mask]")
LENGTH = 20  # tokens; no sentence is longer

AGREEMENT_FIT = FitConfig(epochs=2, batch_size=64, learning_rate=1e-3, schedule="linear", warmup=0.1, precision="fp32")


@dataclass(frozen=True)
class Sentence:
    """What the grammar makes.

    Attributes:
        words: with the verb where it belongs.
        verb: where it stands in ``words``.
        subject: where the noun stands that it agrees with.
    """

    words: tuple[str, ...]
    verb: int
    subject: int

    @property
    def attractors(self) -> int:
        """How many nouns between subject and verb have the other number."""
        plural = NOUNS[self.words[self.subject]]
        return sum(NOUNS.get(word, plural) != plural for word in self.words[self.subject : self.verb])

    @property
    def masked(self) -> tuple[str, ...]:
        """The words, with a mask in place of the verb."""
        return (*self.words[: self.verb], SPECIAL[MASK], *self.words[self.verb + 1 :])


@dataclass(frozen=True)
class TextData:
    """Sentences in splits, each a ``TensorDataset`` of token numbers ``(N, L)`` and labels ``(N,)``, both int64.

    ``hard`` is a second test: three attractors in every sentence. ``vocabulary`` and ``class_names`` say what the
    numbers mean; ``encode`` and ``decode`` go from words to numbers and back. Behind a sentence there is padding.
    """

    name: str
    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset
    hard: TensorDataset
    vocabulary: tuple[str, ...]
    class_names: tuple[str, ...]

    @property
    def length(self) -> int:
        """Tokens in a row, padding included."""
        return self.train.tensors[0].shape[1]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Token numbers (N, L) of sentences, their words divided by blanks, the verb written ``[mask]``.

        Raises:
            TypeError: ``sentences`` is a single string.
            ValueError: a word is not in the vocabulary, or a sentence is too long.
        """
        if isinstance(sentences, str):
            raise TypeError(f"sentences is the string {sentences!r}; expected a list of sentences")
        return _numbers([sentence.split() for sentence in sentences], self.vocabulary, self.length)

    def decode(self, tokens: Tensor) -> list[str]:
        """The sentences that ``tokens`` (N, L) stand for, without their padding."""
        return [" ".join(self.vocabulary[token] for token in row if token != PADDING) for row in tokens.tolist()]


def load_agreement(*, train: int = 10_000, held_out: int = 1_000, seed: int = 0) -> TextData:
    """Sentences with a masked verb, sixteen classes; no sentence is in two splits, or twice in one.

    Args:
        train: how many sentences to learn from.
        held_out: how many there are in each of ``validation``, ``test`` and ``hard``.
        seed: of the sentences. What is held out does not depend on how many there are to learn from.

    Raises:
        ValueError: a size is below 1.
    """
    if train < 1 or held_out < 1:
        raise ValueError(f"train is {train} and held_out {held_out}; expected 1 or more of each")
    generator, seen = random.Random(seed), set()
    hard = _distinct(held_out, seen, lambda: make_sentence(generator, attractors=3))
    validation, test, learnt = (
        _distinct(size, seen, lambda: make_sentence(generator)) for size in (held_out, held_out, train)
    )
    return TextData("agreement", *map(_dataset, (learnt, validation, test, hard)), VOCABULARY, VERBS)


def make_sentence(generator: random.Random, *, attractors: int | None = None) -> Sentence:
    """One sentence of the grammar, drawn from ``generator``.

    Without ``attractors``: up to three modifiers behind the subject, with one noun of any number in each; a phrase
    before it in four sentences of ten; in one of ten the subject stands behind its verb. With ``attractors``: so many
    modifiers behind the subject, each with a noun of the other number, and nothing before it.

    Raises:
        ValueError: ``attractors`` is not from 0 to 3.
    """
    kind, plural = generator.choice(list(KINDS)), generator.random() < 0.5
    verb = kind if plural else with_s(kind)
    subject = ["the", _noun(generator, kind, plural)]
    if generator.random() < 0.3:
        subject.insert(1, generator.choice(ADJECTIVES))
    if attractors is None:
        modifiers = [_modifier(generator) for _ in range(generator.choices(range(4), (4, 3, 2, 1))[0])]
        form = generator.random() if len(modifiers) < 3 else 1.0
    elif 0 <= attractors <= 3:
        modifiers, form = [_modifier(generator, plural=not plural) for _ in range(attractors)], 1.0
    else:
        raise ValueError(f"attractors is {attractors}; expected 0 to 3, or None")
    behind = [word for modifier in modifiers for word in modifier]
    if form < 0.1:  # behind the star gallop the zebras
        place = _place(generator)
        return Sentence((*place, verb, *subject, *behind), verb=3, subject=3 + len(subject))
    before = _opening(generator) if form < 0.5 else []
    words = (*before, *subject, *behind, verb, *_ending(generator))
    place = len(before) + len(subject)
    return Sentence(words, verb=place + len(behind), subject=place - 1)


def with_s(word: str) -> str:
    """The form with an s: the plural of a noun, or the verb of one subject (puppy, puppies; teach, teaches)."""
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


NOUNS = {  # every form of every noun -> is it a plural?
    form: form != noun for nouns in KINDS.values() for noun in nouns for form in (noun, with_s(noun))
}
VERBS = tuple(form for verb in KINDS for form in (with_s(verb), verb))
VOCABULARY = (*SPECIAL, "the", ",", "when", "that", *ADJECTIVES, *PREPOSITIONS, *SEEN, *RESTED, *ADVERBS, *NOUNS)


def _noun(generator: random.Random, kind: str, plural: bool) -> str:
    noun = generator.choice(KINDS[kind])
    return with_s(noun) if plural else noun


def _any_noun(generator: random.Random, plural: bool | None = None) -> list[str]:
    plural = generator.random() < 0.5 if plural is None else plural
    return ["the", _noun(generator, generator.choice(list(KINDS)), plural)]


def _place(generator: random.Random, plural: bool | None = None) -> list[str]:
    return [generator.choice(PREPOSITIONS), *_any_noun(generator, plural)]


def _modifier(generator: random.Random, plural: bool | None = None) -> list[str]:
    """near the dogs, that saw the dogs, or that the dogs saw."""
    form = generator.randrange(3)
    if form == 0:
        return _place(generator, plural)
    other, verb = _any_noun(generator, plural), generator.choice(SEEN)
    return ["that", verb, *other] if form == 1 else ["that", *other, verb]


def _opening(generator: random.Random) -> list[str]:
    if generator.random() < 0.5:
        return [*_place(generator), ","]
    return ["when", *_any_noun(generator), generator.choice(RESTED), ","]


def _ending(generator: random.Random) -> list[str]:
    form = generator.randrange(3)
    if form == 0:
        return []
    return [generator.choice(ADVERBS)] if form == 1 else _place(generator)


def _distinct(count: int, seen: set[tuple[str, ...]], make: Callable[[], Sentence]) -> list[Sentence]:
    """``count`` sentences that differ from each other, and from those in ``seen``, which grows, when masked."""
    found = []
    while len(found) < count:
        sentence = make()
        if sentence.masked not in seen:
            seen.add(sentence.masked)
            found.append(sentence)
    return found


def _dataset(sentences: list[Sentence]) -> TensorDataset:
    labels = torch.tensor([VERBS.index(sentence.words[sentence.verb]) for sentence in sentences])
    return TensorDataset(_numbers([sentence.masked for sentence in sentences], VOCABULARY, LENGTH), labels)


def _numbers(sentences: Sequence[Sequence[str]], vocabulary: tuple[str, ...], length: int) -> Tensor:
    """Rows of token numbers, filled up with padding."""
    number = {word: index for index, word in enumerate(vocabulary)}
    rows = torch.full((len(sentences), length), PADDING)
    for row, words in zip(rows, sentences, strict=True):
        unknown = [word for word in words if word not in number]
        if unknown:
            raise ValueError(f"sentences hold {unknown[0]!r}; expected words of the vocabulary, divided by blanks")
        if len(words) > length:
            raise ValueError(f"sentences hold one of {len(words)} words; expected {length} at most")
        row[: len(words)] = torch.tensor([number[word] for word in words])
    return rows
