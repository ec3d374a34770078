"""Batches that are dicts, logits (N, L, V) with padding, and models of Hugging Face, against their own losses."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.distillation.hinton import distill, distillation_loss, soft_target_loss
from course_lib.evaluation import answer, check_labels, count_labels, evaluate, labels_of, logits_of, predict_logits
from course_lib.models.vision import mlp
from course_lib.training import FitConfig, fit, hard_label_loss

SGD = FitConfig(epochs=2, batch_size=4, optimizer="sgd", momentum=0.0, learning_rate=0.1)


class Tagger(nn.Module):
    """A class for each token: (N, L) -> (N, L, V)."""

    def __init__(self, vocabulary=7, classes=5, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Embedding(vocabulary, 6), nn.Linear(6, classes)).double()

    def forward(self, tokens):
        return self.body(tokens)


def tokens_and_labels(count=10, length=6, vocabulary=7, classes=5):
    """Sequences of different lengths: padding at the end of most, and nothing but padding in the fourth."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(vocabulary, (count, length), generator=generator)
    labels = torch.randint(classes, (count, length), generator=generator)
    for row in range(count):
        labels[row, length - row % length :] = -100
    labels[3] = -100
    return tokens, labels


def by_hand(logits, labels):
    """Losses and right answers of the tokens that count, one by one."""
    losses, right = [], []
    for row, own in zip(logits.double().log_softmax(-1), labels, strict=True):
        for scores, label in zip(row, own, strict=True):
            if label != -100:
                losses.append(-scores[label].item())
                right.append(scores.argmax() == label)
    return losses, right


# ---- tuples


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_evaluate_counts_each_token_once_and_no_padding(batch_size):
    tokens, labels = tokens_and_labels()
    losses, right = by_hand(Tagger()(tokens), labels)
    result = evaluate(Tagger(), TensorDataset(tokens, labels), batch_size=batch_size)
    assert result.loss == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert result.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-6)
    assert (result.count, result.errors) == (len(losses), len(losses) - sum(right))
    assert result.accuracy == pytest.approx(sum(right) / len(right))
    assert predict_logits(Tagger(), TensorDataset(tokens), batch_size=3).shape == (10, 6, 5)


def test_the_loss_is_a_mean_over_the_tokens_that_count_and_so_is_its_gradient():
    tokens, labels = tokens_and_labels()
    model, other = Tagger(), Tagger()
    loss = hard_label_loss(model, (tokens, labels))
    losses, _ = by_hand(other(tokens), labels)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    loss.backward()
    peer = nn.functional.cross_entropy(other(tokens).transpose(1, 2), labels)  # PyTorch's own way with padding
    peer.backward()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_nothing_but_padding_is_a_loss_of_zero_and_no_evaluation():
    tokens, labels = tokens_and_labels()
    loss = hard_label_loss(model := Tagger(), (tokens, torch.full_like(labels, -100)))
    loss.backward()
    assert loss.item() == 0 and all((parameter.grad == 0).all() for parameter in model.parameters())
    with pytest.raises(ValueError, match="all labels of data are padding"):
        evaluate(Tagger(), TensorDataset(tokens, torch.full_like(labels, -100)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_class_156_is_no_padding_in_any_type(dtype):
    generator = torch.Generator().manual_seed(0)
    tokens, labels = torch.randint(7, (4, 6), generator=generator), torch.full((4, 6), 156)
    model = Tagger(classes=200)
    losses, _ = by_hand(model(tokens), labels)
    batch = (tokens, labels.to(dtype))
    assert hard_label_loss(model, batch).item() == pytest.approx(sum(losses) / 24)
    assert evaluate(model, TensorDataset(*batch)).loss == pytest.approx(sum(losses) / 24, rel=1e-6)
    assert count_labels(model, batch) == 24
    flat = nn.Sequential(model, nn.Flatten(0, 1))
    assert hard_label_loss(flat, (tokens, batch[1].flatten())).item() == pytest.approx(sum(losses) / 24)


def test_fit_on_sequences_is_a_loop_by_hand():
    data, model, other, order = TensorDataset(*tokens_and_labels(), torch.arange(10)), Tagger(), Tagger(), []

    def loss(model, batch):
        order.append(batch[2])
        return hard_label_loss(model, batch)

    fit(model, data, SGD, loss=loss, progress=False)
    steps = torch.optim.SGD(other.parameters(), lr=0.1)
    for index in order:
        steps.zero_grad()
        tokens, labels = data.tensors[0][index], data.tensors[1][index]
        nn.functional.cross_entropy(other(tokens).transpose(1, 2), labels).backward()
        steps.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("label", [5, -1, -99])
def test_labels_of_sequences_out_of_range(label):
    tokens, labels = tokens_and_labels()
    labels[2, 0] = label
    for call in (
        lambda: fit(Tagger(), TensorDataset(tokens, labels), SGD, progress=False),
        lambda: fit(Tagger(), DataLoader(TensorDataset(tokens, labels), batch_size=10), SGD, progress=False),
        lambda: evaluate(Tagger(), TensorDataset(tokens, labels)),
    ):
        with pytest.raises(ValueError, match=f"labels hold {label}; expected 0 to 4, .* or -100 for padding"):
            call()


def test_shapes_that_do_not_fit():
    logits = torch.zeros(2, 3, 5)
    for labels in (torch.zeros(2).long(), torch.zeros(2, 4).long(), torch.zeros(6).long()):
        with pytest.raises(ValueError, match=r"labels are .* and the logits \(2, 3, 5\); expected"):
            check_labels(labels, logits)
        with pytest.raises(ValueError, match=r"labels are .* and the logits \(2, 3, 5\); expected"):
            hard_label_loss(nn.Identity(), (logits, labels))


def test_labels_of_sequences_that_are_no_integers():
    tokens, labels = tokens_and_labels()
    for batch in ((tokens, labels.float()), {"tokens": tokens, "labels": labels.float()}):
        with pytest.raises(TypeError, match="labels are torch.float32; expected class numbers"):
            hard_label_loss(Tagger(), batch)


# ---- dicts, and what a model gives


class ByName(nn.Module):
    """Takes its inputs by name and gives an object with ``logits``, as a model of Hugging Face does."""

    def __init__(self, output=lambda logits: SimpleNamespace(loss=None, logits=logits)):
        super().__init__()
        self.net, self.output, self.seen = mlp([6, 8, 3]), output, set()

    def forward(self, values, scale):
        self.seen.add(self.training)
        return self.output(self.net(values) * scale[:, None])


def dicts(count=20):
    generator = torch.Generator().manual_seed(0)
    values, scale = torch.randn(count, 6, generator=generator), torch.rand(count, generator=generator) + 0.5
    return [{"labels": torch.tensor(i % 3), "values": values[i], "scale": scale[i]} for i in range(count)]


@pytest.mark.parametrize(
    "output",
    [lambda t: t, lambda t: (t, "state"), lambda t: {"loss": 0, "logits": t}, lambda t: SimpleNamespace(logits=t)],
)
def test_a_loader_of_dicts_and_every_kind_of_output(output):
    loader, model, other = DataLoader(dicts(), batch_size=8), ByName(output), ByName()
    history = fit(model, loader, SGD, validation=loader, progress=False)
    steps = torch.optim.SGD(other.parameters(), lr=0.1)
    for _ in range(2):
        for batch in loader:
            steps.zero_grad()
            logits = other.net(batch["values"]) * batch["scale"][:, None]
            nn.functional.cross_entropy(logits, batch["labels"]).backward()
            steps.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert history.validation_loss[-1] == pytest.approx(evaluate(other, loader).loss, rel=1e-4)
    assert predict_logits(model, loader).shape == (20, 3) and evaluate(model, loader).count == 20


def test_distillation_on_a_loader_of_dicts_from_a_teacher_that_gives_a_tuple():
    loader, teacher = DataLoader(dicts(), batch_size=8), ByName(lambda logits: (logits, None))
    with torch.no_grad():
        teacher.net[1].weight.mul_(2)
    model, other = ByName(), ByName()
    loss = soft_target_loss(temperature=2.0, alpha=0.5, teacher=teacher)
    fit(model, loader, SGD, loss=loss, progress=False)
    steps = torch.optim.SGD(other.parameters(), lr=0.1)
    for _ in range(2):
        for batch in loader:
            steps.zero_grad()
            ours, theirs = (net.net(batch["values"]) * batch["scale"][:, None] for net in (other, teacher))
            distillation_loss(ours, theirs, batch["labels"], temperature=2.0, alpha=0.5).backward()
            steps.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_teacher_that_gives_a_tuple_answers_a_tensor_data_set_too():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp([6, 8, 3], seed=5)

        def forward(self, inputs):
            return self.net(inputs), None

    generator = torch.Generator().manual_seed(0)
    data, students = TensorDataset(torch.randn(8, 6, generator=generator), torch.arange(8) % 3), []
    for teacher in (Pair(), mlp([6, 8, 3], seed=5)):
        students.append(mlp([6, 3]))
        distill(students[-1], teacher, data, SGD, temperature=4.0, alpha=0.9, progress=False)
    assert torch.equal(students[0][1].weight, students[1][1].weight)


def test_errors_name_what_came():
    with pytest.raises(TypeError, match="the model gives a list; expected a tensor of logits"):
        logits_of(["a"])
    with pytest.raises(TypeError, match="the model gives a SimpleNamespace"):
        logits_of(SimpleNamespace(last_hidden_state=torch.zeros(1)))
    with pytest.raises(TypeError, match="the model gives a dict"):
        logits_of({"out": torch.zeros(1)})
    unlabelled = DataLoader([{k: v for k, v in item.items() if k != "labels"} for item in dicts()], batch_size=4)
    with pytest.raises(ValueError, match="data holds no labels; expected 'labels' beside 'values', 'scale'"):
        evaluate(ByName(), unlabelled)
    with pytest.raises(ValueError, match="the batch holds no labels; expected batches of"):
        hard_label_loss(nn.Identity(), (torch.zeros(2, 3),))
    with pytest.raises(TypeError, match="a batch is a Tensor; expected"):
        evaluate(nn.Identity(), DataLoader(torch.zeros(4, 2)))
    with pytest.raises(TypeError, match="augment changes the inputs of .* train gives dicts"):
        fit(ByName(), DataLoader(dicts(), 4), SGD, augment=lambda inputs, generator: inputs, progress=False)


# ---- Hugging Face

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TEXT = {"vocab_size": 30, "max_position_embeddings": 16, **SIZES}


def hugging_face(kind, **options):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "T5ForConditionalGeneration":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
        return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=30, **sizes)).eval()
    if kind.startswith("GPT2"):
        config = transformers.GPT2Config(vocab_size=30, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    else:
        family = kind.split("For")[0].removesuffix("LMHeadModel")
        config = getattr(transformers, f"{family}Config")(**TEXT, **options)
    return getattr(transformers, kind)(config).eval()


def text(count=6, length=9, *, each_one=False):
    """Sequences of different lengths; in the labels -100 where they are padded, and in some places inside."""
    generator = torch.Generator().manual_seed(3)
    items = []
    for row in range(count):
        tokens, mask = torch.randint(1, 30, (length,), generator=generator), torch.ones(length, dtype=torch.long)
        mask[length - row :] = 0
        labels = torch.where(mask == 1, tokens, -100)
        labels[:2] = -100  # as of a prompt
        items.append({"input_ids": tokens, "attention_mask": mask, "labels": labels})
        if each_one:
            items[-1]["labels"] = torch.tensor(row % 2)
    return items


CAUSAL = ["LlamaForCausalLM", "GPT2LMHeadModel"]
ALIGNED = ["BertForMaskedLM", "BertForTokenClassification", "T5ForConditionalGeneration"]


@pytest.mark.parametrize("kind", CAUSAL + ALIGNED)
def test_the_loss_is_the_models_own(kind):
    model = hugging_face(kind, **({"num_labels": 30} if "Token" in kind else {}))
    batch = next(iter(DataLoader(text(), batch_size=6)))
    own = model(**batch)
    torch.testing.assert_close(hard_label_loss(model, batch), own.loss)
    torch.testing.assert_close(answer(model, batch), own.logits)
    moved = kind in CAUSAL
    counted = int((batch["labels"][:, 1:] if moved else batch["labels"]).ne(-100).sum())
    assert count_labels(model, batch) == counted
    result = evaluate(model, DataLoader(text(), batch_size=2))  # batches with different numbers of tokens
    assert result.loss == pytest.approx(own.loss.item(), rel=1e-5) and result.count == counted
    assert result.perplexity == pytest.approx(own.loss.exp().item(), rel=1e-5)
    logits, labels = (own.logits[:, :-1], batch["labels"][:, 1:]) if moved else (own.logits, batch["labels"])
    _, right = by_hand(logits, labels)
    assert result.accuracy == pytest.approx(sum(right) / len(right))


def test_a_class_for_each_sequence():
    model = hugging_face("BertForSequenceClassification", num_labels=2)
    batch = next(iter(DataLoader(text(each_one=True), batch_size=6)))
    own = model(**batch)
    torch.testing.assert_close(hard_label_loss(model, batch), own.loss)
    result = evaluate(model, DataLoader(text(each_one=True), batch_size=4))
    assert result.loss == pytest.approx(own.loss.item(), rel=1e-5) and result.count == 6
    assert result.accuracy == (own.logits.argmax(-1) == batch["labels"]).float().mean().item()


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "BertForSequenceClassification"])
def test_fit_trains_as_a_loop_by_hand_with_the_models_own_loss(kind):
    loader = DataLoader(text(each_one="Sequence" in kind), batch_size=4)
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if kind.startswith("Bert") else {}
    model, other = (hugging_face(kind, **options).double() for _ in range(2))
    history = fit(model, loader, SGD, validation=loader, progress=False)
    steps, losses = torch.optim.SGD(other.parameters(), lr=0.1), []
    other.train()
    for _ in range(2):
        for batch in loader:
            steps.zero_grad()
            loss = other(**batch).loss
            loss.backward()
            steps.step()
            losses.append(loss.item())
    assert history.train_loss == pytest.approx([sum(losses[:2]) / 2, sum(losses[2:]) / 2], rel=1e-5)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)  # the model's own loss is computed in float32


def test_labels_of_a_language_model_are_moved_by_one_place():
    labels = torch.tensor([[1, 2, 3], [4, 5, -100]])
    moved = torch.tensor([[2, 3, -100], [5, -100, -100]])
    model = nn.Linear(1, 1)
    assert torch.equal(labels_of(model, {"input_ids": labels, "labels": labels}), moved)
    assert torch.equal(labels_of(model, (labels, labels)), labels)  # a tuple says where they stand
