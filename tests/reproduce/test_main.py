"""The command line: names are checked before anything runs, and the results of an experiment bear its name."""

import pytest

from reproduce.__main__ import AT_FULL_SCALE, main
from reproduce.topics import EXPERIMENTS, TOPICS


def test_an_unknown_experiment_is_named_beside_the_known():
    with pytest.raises(SystemExit, match="unknown: hinton_tiny; there are: page, record, hinton_big"):
        main(["hinton_tiny"])


def test_names_of_experiments_are_unique():
    assert len(EXPERIMENTS) == sum(len(module.EXPERIMENTS) for topic in TOPICS for module in topic.modules)


def test_the_full_scale_leaves_out_what_it_makes_needless():
    assert set(AT_FULL_SCALE) < set(EXPERIMENTS) and "hinton_small_long" not in AT_FULL_SCALE
