"""The parts of docs/results.md, in the order of the course: the claims of each, and where its experiments stand."""

from dataclasses import dataclass
from types import ModuleType

from reproduce import (
    features_digits,
    features_mnist,
    hinton_mnist,
    lottery_mnist,
    pruning_digits,
    pruning_encoder,
    pruning_filters,
    pruning_healing,
    pruning_rewinding,
    pruning_weights,
)

HEAD = """# Results

<!-- made by `python -m reproduce page`; do not edit -->

Claims of the papers, and what our own runs say to them. A claim is about a difference, measured once a seed with all
else equal. Its margin and its seeds are written down before the run that is recorded. The outcome follows from the
95% interval of the mean difference (Student's t, paired):

- **✓ confirmed**: the whole interval lies where the claim says;
- **✗ refuted**: none of it does;
- **○ null**: these seeds cannot tell. Null is not "no".

All numbers are from recorded runs in [`reproduce/results/`](../reproduce/results), or from the lessons, which check
them at every run. The ledger is [`course_lib/claims.json`](../course_lib/claims.json). `make reproduce` runs what is
missing.
"""


@dataclass(frozen=True)
class Topic:
    """A part of the page.

    Attributes:
        title, papers: the heading, and where its claims come from.
        claims: how the ids of its claims begin.
        modules: what its experiments stand in: each module lists its own under ``EXPERIMENTS``.
        notes: which of its claims are weaker evidence, and why.
        limits: what a paper claims, and networks of this size cannot test.
    """

    title: str
    papers: str
    claims: tuple[str, ...]
    modules: tuple[ModuleType, ...]
    notes: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


TOPICS = (
    Topic(
        "Soft targets",
        "Hinton, Vinyals and Dean 2015",
        ("F1.",),
        (hinton_mnist,),
        (
            "**F1.1-digits-same** was added after a trial run with the same seeds had shown its numbers, and "
            "**F1.7-digits-parts** after F1.7-digits had come out null.",
            "All other claims of lesson 01 were run once before on the same seeds, with a teacher trained for 60 "
            "epochs in place of 40; every outcome was the same.",
        ),
    ),
    Topic(
        "Features and teachers",
        "Romero et al. 2015 (FitNets), Müller et al. 2019, RepDistiller",
        ("F2.",),
        (features_mnist, features_digits),
        (
            "**F2.4d-digits** and **F2.4e-digits** repeat F2.4a and F2.4b on new seeds with a margin of 0, after "
            "those had come out null at 20.",
            "**F2.4d-mnist** to **F2.4f-mnist** ask the question of F2.4a-mnist for a network trained by SGD, after it "
            "had come out null with Adam; the settings were tried on two other seeds.",
            "**F2.2b-digits** and **F2.5d** to **F2.5f-digits** ask about another pair of teachers on new seeds, "
            "after the first pair (F2.2, F2.5a to F2.5c) had come out partly null.",
        ),
    ),
    Topic(
        "Lottery tickets",
        "Frankle and Carbin 2019; Frankle et al. 2020; Renda et al. 2020",
        ("F3b.", "F3c.", "F3d."),
        (lottery_mnist, pruning_rewinding),
        (
            "**F3c.1c** asks F3c.1a again, on new seeds, as a share: F3c.1a had come out null with three seeds. The "
            "barrier differs much from seed to seed (1.9, 6.5 and 2.4 points).",
        ),
        (
            "Late rewinding (**F3c.2a**) mends tickets that are unstable from the first weights, as those of ResNets "
            "on CIFAR-10 and ImageNet are. With 6.4% of its weights, the ticket of our residual network is stable "
            "from the first weights on, and as good as the dense network: there was nothing to mend. The ticket from "
            "10% also has 10% fewer steps in each round, as in the paper.",
            "**F3c.3b**: tickets are stable and good, the residual network's random masks are neither. But random "
            "masks of LeNet-300-100 are stable and the worst of all: a barrier of 0 is not enough.",
            "**F3d.3** was seen on wide ResNets. Ours has 78,000 weights, and at 20% sparsity it loses no accuracy, "
            "retrained in either way.",
        ),
    ),
    Topic(
        "Pruning",
        "Han et al. 2015; Li et al. 2017; Molchanov et al. 2017, 2019",
        ("F3a.", "F4."),
        (pruning_weights, pruning_filters, pruning_encoder, pruning_digits, pruning_healing),
        (
            "**F3a.6b-digits**, **F4.1e-digits**, **F4.8c-digits** and **F4.8d-digits** ask the questions of F3a.6, "
            "F4.1d, F4.8a and F4.8b-digits of twenty new networks, after five had left them open.",
            "**F4.3f-digits** asks F4.3d-digits of twenty new networks: with five, its outcome hung on how "
            "the processor rounds.",
            "**F4.21e** to **F4.21g**, **F4.22b**, **F4.22c**, **F4.24e** and **F4.24f-encoder** ask fifteen new "
            "encoders what five had left open, or had shown.",
        ),
        (
            "**F3a.2**: the paper asks how many weights AlexNet can lose in rounds and at once until its accuracy "
            "falls. Here the sparsity is fixed, and the rounds share the retraining (a) or have it each (b).",
            "**F3a.5b**: the kept weights are retrained for 4 epochs at a tenth of the rate, as in the paper; those "
            "drawn anew train for 12 at the full rate. Which part of the difference is due to the rate is not tested.",
            "**F4.1-conv**, **F4.2-conv**: batch norm behind each convolution undoes the scale of its filters, which "
            "is what their norms measure. Li et al. prune larger networks; whether the norms say more there is not "
            "tested. LeNet-300-100 has no batch norm.",
            "**F4.20** to **F4.24-encoder**: four blocks, trained for one task that two can do. BERT has twelve, and "
            "learnt from much more text; what its early layers need is not tested.",
            "**F4.24a-encoder** holds for its five encoders. Of all twenty in the table three lose 13 to 37 points: "
            "heads that do the same work are each of no importance alone. With the rest measured again after each, "
            "eight heads cost none of the twenty a point.",
            "**F4.4** is about this course's processor and a small network; GPUs are not timed.",
        ),
    ),
)

# name -> what makes the experiment, in the order of the page
EXPERIMENTS = {make().name: make for topic in TOPICS for module in topic.modules for make in module.EXPERIMENTS}
