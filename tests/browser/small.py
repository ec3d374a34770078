"""Small notebooks, one cell each, for widgets whose lesson is still to come: tag -> source."""

SMALL = {
    "widget-sparsity": """
from course_lib.data.images import load_images
from course_lib.models.vision import mlp
from course_lib.pruning.criteria import magnitude, random_scores
from course_lib.pruning.taylor import taylor
from course_lib.training import FitConfig, fit
from course_lib.widgets.sparsity import sparsity_widget

digits = load_images("digits")
model = mlp([64, 32, 10])
fit(model, digits.train, FitConfig(epochs=10, learning_rate=3e-3), progress=False)
scores = {
    "magnitude": magnitude(model),
    "Taylor, order 2": taylor(model, digits.train, order=2),
    "random": random_scores(model, seed=0),
}
sparsity_widget(model, digits.test, scores, sparsity=0.8)
""",
    "widget-rounds": """
from course_lib.data.images import load_images
from course_lib.evaluation import evaluate
from course_lib.models.vision import mlp
from course_lib.pruning.lottery import PruningConfig, iterative_pruning, random_masks, rewind
from course_lib.training import FitConfig, fit
from course_lib.widgets.rounds import MaskRounds, rounds_widget

digits, config = load_images("digits"), FitConfig(epochs=5, learning_rate=3e-3)
accuracies = {"ticket": [], "random mask": []}


def record(model, round):
    accuracies["ticket"].append(evaluate(model, digits.test).accuracy)


ticket = mlp([64, 32, 10])
pruning = PruningConfig(rounds=10, rate=0.2, scope="global")
run = iterative_pruning(ticket, digits.train, config, pruning, after_round=record, progress=False)
for round in run.rounds:
    other = rewind(mlp([64, 32, 10]), run.start, random_masks(round.masks, seed=0))
    fit(other, digits.train, config, progress=False)
    accuracies["random mask"].append(evaluate(other, digits.test).accuracy)
mean = digits.picture(digits.train.tensors[0]).mean(dim=0)
record = MaskRounds([round.masks for round in run.rounds], (8, 8), accuracies=accuracies, picture=mean)
rounds_widget(record)
""",
}
