"""Sentences: the grammar against a reader of its own, splits, numbers and words, and what can be learnt from them."""

import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from course_lib.data import text
from course_lib.data.text import (
    AGREEMENT_FIT,
    KINDS,
    LENGTH,
    MASK,
    NOUNS,
    PADDING,
    Sentence,
    load_agreement,
    make_sentence,
    with_s,
)
from course_lib.evaluation import evaluate
from course_lib.models.encoder import Encoder
from course_lib.training import fit

SPLITS = ("train", "validation", "test", "hard")


@pytest.fixture(scope="module")
def data():
    return load_agreement()


def verb_of(noun):
    """The verb that goes with a noun, as it is written with it."""
    (verb,) = (verb for verb, nouns in KINDS.items() if noun in nouns or noun in map(with_s, nouns))
    return verb if noun not in KINDS[verb] else with_s(verb)


def answer(sentence):
    """What the masked verb has to be, by reading the words, not by how they were made."""
    before, _, rest = sentence.rpartition(" , ")
    assert before.split(" ")[0] in ("", "when", *text.PREPOSITIONS)
    words = rest.split()
    if words[0] in text.PREPOSITIONS:  # near the dog [mask] the lamps: it is read behind the verb
        words = words[words.index("[mask]") + 1 :]
    return verb_of(next(word for word in words if word in NOUNS))


# ---- the grammar


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("the dog [mask]", "barks"),
        ("the puppies beside the bard [mask] near the wheel", "bark"),
        ("near the sharks , the old lamp that the dogs followed [mask] today", "shines"),
        ("when the horse rested , the eagle [mask]", "flies"),
        ("behind the star [mask] the zebras that saw the dog", "gallop"),
        ("the torches near the coach above the ball [mask] alone", "shine"),
        ("the coach that the torches heard [mask]", "teaches"),
    ],
)
def test_the_reader_of_this_test_reads_sentences_written_by_hand(sentence, expected, data):
    assert answer(sentence) == expected
    assert data.decode(data.encode([sentence])) == [sentence]  # and every word of them is known


def test_every_sentence_is_answered_as_it_reads(data):
    for split in SPLITS:
        tokens, labels = getattr(data, split).tensors
        assert [answer(sentence) for sentence in data.decode(tokens)] == [data.class_names[label] for label in labels]


@pytest.mark.parametrize(
    ("word", "form"),
    [
        ("dog", "dogs"),
        ("puppy", "puppies"),
        ("donkey", "donkeys"),
        ("torch", "torches"),
        ("coach", "coaches"),
        ("eel", "eels"),
        ("fly", "flies"),
        ("teach", "teaches"),
        ("shine", "shines"),
    ],
)
def test_the_form_with_an_s(word, form):
    assert with_s(word) == form


def test_attractors_by_hand():
    def attractors(words, verb, subject):
        return Sentence(tuple(words.split()), verb, subject).attractors

    assert attractors("the dog barks near the lamps", 2, 1) == 0  # behind the verb
    assert attractors("the dog near the lamps barks", 5, 1) == 1
    assert attractors("the dog near the lamp barks", 5, 1) == 0  # the same number
    assert attractors("near the lamps , the dog that the birds near saw barks", 11, 5) == 0  # not a noun of ours
    assert attractors("the dogs near the lamp behind the cart above the stars bark", 11, 1) == 2
    assert attractors("near the lamps bark the dogs", 3, 5) == 0


@given(seed=st.integers(0, 10**6), attractors=st.sampled_from([None, 0, 1, 2, 3]))
def test_what_a_sentence_says_of_itself(seed, attractors):
    sentence = make_sentence(random.Random(seed), attractors=attractors)
    assert len(sentence.words) <= LENGTH
    assert sentence.words[sentence.verb] == verb_of(sentence.words[sentence.subject])
    assert [old for old, new in zip(sentence.words, sentence.masked, strict=True) if old != new] == [
        sentence.words[sentence.verb]
    ]
    assert sentence.masked.count("[mask]") == 1
    if attractors is not None:
        assert sentence.attractors == attractors


@pytest.mark.parametrize("attractors", [-1, 4])
def test_attractors_out_of_range(attractors):
    with pytest.raises(ValueError, match=f"attractors is {attractors}; expected 0 to 3"):
        make_sentence(random.Random(0), attractors=attractors)


# ---- the data set


def test_form(data):
    assert [len(getattr(data, split)) for split in SPLITS] == [10_000, 1_000, 1_000, 1_000]
    assert data.name == "agreement" and data.num_classes == 16 == len(set(data.class_names))
    assert data.length == LENGTH and len(set(data.vocabulary)) == len(data.vocabulary)
    assert data.vocabulary[PADDING] == "[padding]" and data.vocabulary[MASK] == "[mask]"
    for split in SPLITS:
        tokens, labels = getattr(data, split).tensors
        assert tokens.dtype == labels.dtype == torch.int64 and tokens.shape == (len(labels), LENGTH)
        assert torch.equal((tokens == MASK).sum(1), torch.ones(len(tokens), dtype=torch.int64))
        is_padding = tokens == PADDING
        assert torch.equal(is_padding, is_padding.cummax(1).values)  # padding stands behind, nowhere else


def test_no_sentence_is_there_twice(data):
    rows = [tuple(row) for split in SPLITS for row in getattr(data, split).tensors[0].tolist()]
    assert len(rows) == len(set(rows)) == 13_000


def test_every_word_is_learnt_and_the_answer_is_not_among_them(data):
    seen = data.train.tensors[0].unique().tolist()
    assert seen == list(range(len(data.vocabulary)))
    assert not set(data.vocabulary) & set(data.class_names)


def test_all_classes_are_about_as_frequent(data):
    for split in SPLITS:
        labels = getattr(data, split).tensors[1]
        share = torch.bincount(labels, minlength=16) / len(labels)
        assert share.min() > 0.035 and share.max() < 0.095  # 1/16 is 0.0625


def test_the_hard_test_has_three_attractors_in_every_sentence_and_the_others_seldom(data):
    def attractors(sentence):
        words = sentence.split()
        subject = next(place for place, word in enumerate(words) if word in NOUNS)
        return Sentence(tuple(words), words.index("[mask]"), subject).attractors

    assert {attractors(sentence) for sentence in data.decode(data.hard.tensors[0])} == {3}
    plain = [s for s in data.decode(data.train.tensors[0]) if " , " not in s and s.split()[0] == "the"]
    counts = Counter(map(attractors, plain))
    assert 0 < counts[3] < 0.05 * len(plain) and counts[0] > counts[1] > counts[2] > counts[3]


def test_the_same_seed_the_same_sentences(data):
    random.seed(5)
    torch.manual_seed(5)
    again, other, longer = load_agreement(), load_agreement(seed=1), load_agreement(train=50)
    for split in SPLITS:
        assert torch.equal(getattr(again, split).tensors[0], getattr(data, split).tensors[0])
        assert not torch.equal(getattr(other, split).tensors[0], getattr(data, split).tensors[0])
    for split in SPLITS[1:]:
        assert torch.equal(getattr(longer, split).tensors[0], getattr(data, split).tensors[0])
    assert torch.equal(longer.train.tensors[0], data.train.tensors[0][:50])


@pytest.mark.parametrize("sizes", [{"train": 0}, {"held_out": 0}, {"train": -1, "held_out": 5}])
def test_sizes_out_of_range(sizes):
    with pytest.raises(ValueError, match="train is .* and held_out .*; expected 1 or more of each"):
        load_agreement(**sizes)


def test_words_and_numbers(data):
    sentences = ["the dog [mask]", "near the lamps [mask] the old dogs"]
    tokens = data.encode(sentences)
    assert tokens.shape == (2, LENGTH) and tokens[0, 3:].eq(PADDING).all() and tokens[0, 2] == MASK
    assert data.decode(tokens) == sentences
    with pytest.raises(ValueError, match="sentences hold 'cat'; expected words of the vocabulary"):
        data.encode(["the cat [mask]"])
    with pytest.raises(ValueError, match="sentences hold one of 21 words; expected 20 at most"):
        data.encode(["the " * 21])
    with pytest.raises(TypeError, match="expected a list of sentences"):
        data.encode("the dog [mask]")


# ---- what can be learnt


def counts_of_words(tokens, vocabulary):
    """(N, L) -> (N, V): which words there are, not where."""
    counts = torch.zeros(len(tokens), vocabulary).scatter_add_(1, tokens, torch.ones(tokens.shape))
    return counts[:, MASK + 1 :].numpy()


def test_counts_of_words_get_half_right_and_an_encoder_nearly_all(data):
    """Without the order of the words, every noun may be the subject; behind three attractors it is one of four."""
    size = len(data.vocabulary)
    counted = LogisticRegression(max_iter=100)
    counted.fit(counts_of_words(data.train.tensors[0], size), data.train.tensors[1])
    by_counts = {
        split: counted.score(counts_of_words(getattr(data, split).tensors[0], size), getattr(data, split).tensors[1])
        for split in ("test", "hard")
    }
    assert 0.4 < by_counts["test"] < 0.6 and by_counts["hard"] < 0.25

    encoder = Encoder(size, data.num_classes, layers=2, max_length=data.length)
    fit(encoder, data.train, AGREEMENT_FIT, progress=False, device="cpu")
    assert evaluate(encoder, data.test, device="cpu").accuracy > 0.95
    assert evaluate(encoder, data.hard, device="cpu").accuracy > 0.9
