"""The command line: names are checked before anything runs, and the results of an experiment bear its name."""

import pytest

from reproduce.__main__ import EXPERIMENTS, main
from reproduce.page import RECORDS


def test_an_unknown_experiment_is_named_beside_the_known():
    with pytest.raises(SystemExit, match="unknown: hinton_tiny; there are: page, record, hinton_big"):
        main(["hinton_tiny"])


def test_the_page_shows_every_experiment():
    assert sorted(RECORDS) == sorted(EXPERIMENTS)
