"""Pictures: splits, scaling, the files of MNIST read by somebody else, and what is done to pictures."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import time
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from course_lib.data import files, images
from course_lib.data.files import DataFile, DataFileError
from course_lib.data.images import fraction, jitter, load_images, only_classes, without_classes

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def digits():
    return load_images()


def counts(data):
    return torch.bincount(data.tensors[1])


# ---- digits


def test_digits_form(digits):
    assert [len(getattr(digits, split)) for split in SPLITS] == [1000, 297, 500]
    assert digits.name == "digits" and digits.train[0][0].shape == (1, 8, 8) and digits.num_classes == 10
    assert digits.class_names == tuple("0123456789")
    for split in SPLITS:
        pictures, labels = getattr(digits, split).tensors
        assert pictures.dtype == torch.float32 and labels.dtype == torch.int64
        assert pictures.shape[1:] == (1, 8, 8) and labels.shape == pictures.shape[:1]


def test_digits_are_scikit_learn_s_each_once(digits):
    """The multiset of all (picture, label) pairs is the original's: nothing lost, doubled, or relabelled."""
    original = load_digits()
    expected = sorted(
        (bytes(p.astype(np.uint8)), int(y)) for p, y in zip(original.images, original.target, strict=True)
    )
    found = []
    for split in SPLITS:
        pictures, labels = getattr(digits, split).tensors
        grey = (digits.picture(pictures) * 16).round().to(torch.uint8)
        found += [(bytes(p.numpy()), int(y)) for p, y in zip(grey, labels, strict=True)]
    assert sorted(found) == expected


def test_digits_are_the_same_every_time_whatever_came_before(digits):
    torch.manual_seed(8)
    np.random.seed(8)
    again, other = load_images("digits"), load_images("digits", seed=1)
    for split in SPLITS:
        for one, two in zip(getattr(digits, split).tensors, getattr(again, split).tensors, strict=True):
            assert torch.equal(one, two)
        assert not torch.equal(getattr(digits, split).tensors[1], getattr(other, split).tensors[1])


def test_digits_have_each_class_in_its_share(digits):
    whole = sum(counts(getattr(digits, split)) for split in SPLITS)
    for split in SPLITS:
        data = getattr(digits, split)
        assert (counts(data) - whole * len(data) / 1797).abs().max() <= 1


def test_pictures_are_scaled_by_the_training_pictures_alone(digits):
    pictures = digits.train.tensors[0]
    assert pictures.mean().item() == pytest.approx(0, abs=1e-5) and pictures.std().item() == pytest.approx(1, abs=1e-5)
    raw = torch.cat([digits.picture(getattr(digits, split).tensors[0]) for split in SPLITS])
    assert raw.min().item() == pytest.approx(0, abs=1e-6) and raw.max().item() == pytest.approx(1, abs=1e-6)
    assert digits.mean[0] == pytest.approx(digits.picture(pictures).mean().item(), rel=1e-5)
    assert abs(digits.test.tensors[0].mean().item()) > 1e-5  # not scaled by its own mean


def test_picture_of_one_and_of_colours():
    data = images.ImageData("x", None, None, None, ("a",), (0.5, 0.25), (0.5, 0.25))
    grey = torch.tensor([1.0, -1.0])[:, None, None].expand(2, 3, 3)
    assert torch.equal(data.picture(grey), torch.tensor([1.0, 0.0])[:, None, None].expand(2, 3, 3))
    assert data.picture(grey[None]).shape == (1, 2, 3, 3)


def test_an_unknown_name_lists_those_that_there_are():
    with pytest.raises(
        ValueError, match="name is 'minst'; expected one of 'digits', 'mnist', 'fashion_mnist', 'cifar10'"
    ):
        load_images("minst")


# ---- MNIST, real


def read_idx(path):
    """The format's definition, once more: big-endian sizes, then bytes."""
    with gzip.open(path) as stream:
        _, _, kind, ranks = struct.unpack("4B", stream.read(4))
        sizes = struct.unpack(f">{ranks}I", stream.read(4 * ranks))
        assert kind == 8
        return np.frombuffer(stream.read(), np.uint8).reshape(sizes)


def test_real_mnist():
    folder = Path(os.environ.get("COURSE_DATA", "")) / "MNIST/raw"
    if not os.environ.get("COURSE_DATA") or not folder.is_dir():
        pytest.skip("no MNIST: COURSE_DATA does not name a folder that holds MNIST/raw")
    start = time.process_time()
    mnist = load_images("mnist", download=False)
    assert time.process_time() - start < 5
    assert [len(getattr(mnist, split)) for split in SPLITS] == [55_000, 5_000, 10_000]
    assert mnist.train[0][0].shape == (1, 28, 28) and mnist.num_classes == 10
    raw = {
        part: (read_idx(folder / f"{part}-images-idx3-ubyte.gz"), read_idx(folder / f"{part}-labels-idx1-ubyte.gz"))
        for part in ("train", "t10k")
    }
    grey = (mnist.picture(mnist.test.tensors[0]) * 255).round().to(torch.uint8)
    assert np.array_equal(grey[:, 0].numpy(), raw["t10k"][0])
    assert np.array_equal(mnist.test.tensors[1].numpy(), raw["t10k"][1])
    digests = []
    for split in ("train", "validation"):
        grey = (mnist.picture(getattr(mnist, split).tensors[0]) * 255).round().to(torch.uint8).numpy()
        labels = getattr(mnist, split).tensors[1].numpy()
        digests += [hashlib.md5(p.tobytes() + bytes([y])).digest() for p, y in zip(grey, labels, strict=True)]
        share = np.bincount(raw["train"][1]) * len(labels) / 60_000
        assert np.abs(np.bincount(labels) - share).max() <= 1
    expected = [hashlib.md5(p.tobytes() + bytes([y])).digest() for p, y in zip(*raw["train"], strict=True)]
    assert sorted(digests) == sorted(expected)
    assert mnist.mean[0] == pytest.approx(0.1307, abs=5e-4) and mnist.std[0] == pytest.approx(0.3081, abs=5e-4)


# ---- MNIST, made up


def idx(values):
    header = struct.pack(">4B", 0, 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes())


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """6,000 pictures to train and 20 to test, as ``fashion_mnist`` in a folder of our own; the file names by role."""
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)
    random = np.random.default_rng(0)
    labels = [np.arange(6000) % 10, np.arange(20) % 10]
    pictures = [random.integers(0, 256, (len(part), 4, 4)) for part in labels]
    contents, described = [idx(pictures[0]), idx(labels[0]), idx(pictures[1]), idx(labels[1])], []
    for name, content in zip(("train-images", "train-labels", "test-images", "test-labels"), contents, strict=True):
        path = tmp_path / "data" / "Made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        described.append(DataFile(f"Made/{name}", hashlib.md5(content).hexdigest(), (f"http://127.0.0.1:9/{name}",)))
    monkeypatch.setitem(images.IDX_FILES, "fashion_mnist", tuple(described))
    return tmp_path / "data", pictures, labels


def test_made_up_files_by_root_and_by_course_data(made_up, monkeypatch):
    root, pictures, labels = made_up
    data = load_images("fashion_mnist", root=root)
    assert [len(getattr(data, split)) for split in SPLITS] == [1000, 5000, 20]
    assert data.class_names[5] == "sandal"
    test = (data.picture(data.test.tensors[0]) * 255).round()
    assert np.array_equal(test[:, 0].numpy(), pictures[1]) and data.test.tensors[1].tolist() == labels[1].tolist()
    monkeypatch.setenv("COURSE_DATA", str(root))
    again = load_images("fashion_mnist", download=False)
    assert torch.equal(again.train.tensors[0], data.train.tensors[0])


@pytest.mark.parametrize("name", ["train-images", "test-labels"])
def test_a_damaged_file_is_never_replaced_by_something_else(made_up, name):
    root, _, _ = made_up
    path = root / "Made" / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataFileError, match=f"{path} is damaged.*'digits' works offline"):
        load_images("fashion_mnist", root=root)


def test_a_missing_file_is_named(made_up):
    root, _, _ = made_up
    path = root / "Made/test-labels"
    path.unlink()
    for download in (True, False):
        with pytest.raises(DataFileError, match=f"{path}.*'digits' works offline"):
            load_images("fashion_mnist", root=root, download=download)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        idx(np.zeros((2, 2)))[:-9],
        gzip.compress(b""),
        gzip.compress(b"\0\0\x08"),
        gzip.compress(b"\0\0\x08\x02\0\0\0\x02"),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x02abc"),
        gzip.compress(b"\0\0\x0d\x01\0\0\0\x03abc"),
        gzip.compress(b"\x01\0\x08\x01\0\0\0\x03abc"),
    ],
    ids=lambda content: f"{len(content)} bytes",  # the content holds the time of day; the workers need the same names
)
def test_content_that_is_no_idx_file(tmp_path, content):
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=f"{path} is damaged .*Delete it.*'digits' works offline"):
        images._read_idx(path)


def test_idx_by_hand(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03\x01\x02\x03\x04\x05\xff"))
    assert images._read_idx(path).tolist() == [[1, 2, 3], [4, 5, 255]]


# ---- CIFAR-10


@pytest.fixture
def made_up_cifar(monkeypatch, tmp_path):
    """An archive with the layout of CIFAR-10, 5,050 pictures to train and 20 to test, as torchvision and we know it."""
    datasets = pytest.importorskip("torchvision.datasets", exc_type=ImportError)
    random, parts = np.random.default_rng(0), {}
    for name, count in [(f"data_batch_{number}", 1010) for number in range(1, 6)] + [("test_batch", 20)]:
        pixels = random.integers(0, 256, (count, 48), dtype=np.uint8).repeat(64, axis=1)  # coarse, so quick to pack
        parts[name] = pickle.dumps({"data": pixels, "labels": [number % 10 for number in range(count)]})
    parts["batches.meta"] = pickle.dumps({"label_names": list(images.THINGS)})
    sums = {name: hashlib.md5(content).hexdigest() for name, content in parts.items()}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, sums[name]] for name in list(parts)[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    (tmp_path / "data").mkdir()
    archive = tmp_path / "data" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        for name, content in parts.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    described = DataFile(archive.name, hashlib.md5(archive.read_bytes()).hexdigest(), ("http://127.0.0.1:9/cifar",))
    monkeypatch.setattr(images, "CIFAR10_FILE", described)
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("COURSE_DATA", raising=False)
    return archive, {name: pickle.loads(content) for name, content in parts.items()}


def test_made_up_cifar10(made_up_cifar):
    archive, parts = made_up_cifar
    data = load_images("cifar10", root=archive.parent)
    assert [len(getattr(data, split)) for split in SPLITS] == [50, 5000, 20]
    assert data.train[0][0].shape == (3, 32, 32) and data.class_names == images.THINGS and len(data.mean) == 3
    test = (data.picture(data.test.tensors[0]) * 255).round().numpy()
    assert np.array_equal(test.reshape(20, 3072), parts["test_batch"]["data"])
    assert data.test.tensors[1].tolist() == parts["test_batch"]["labels"]
    spread = data.train.tensors[0].std((0, 2, 3))
    torch.testing.assert_close(spread, torch.ones(3), rtol=1e-4, atol=1e-4)


def test_cifar10_as_torchvision_reads_it(made_up_cifar):
    archive, _ = made_up_cifar
    ours = images._cifar10(archive.parent, download=False)
    assert os.listdir(archive.parent) == [archive.name]  # nothing is unpacked: the folder may be somebody else's
    with tarfile.open(archive) as packed:
        packed.extractall(archive.parent, filter="data")
    for train, (pictures, labels) in zip((True, False), ours, strict=True):
        theirs = pytest.importorskip("torchvision.datasets", exc_type=ImportError).CIFAR10(archive.parent, train=train)
        assert np.array_equal((pictures * 255).round().permute(0, 2, 3, 1).numpy(), theirs.data)
        assert labels.tolist() == theirs.targets


def test_a_damaged_archive(made_up_cifar):
    archive, _ = made_up_cifar
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(DataFileError, match=f"{archive} is damaged"):
        load_images("cifar10", root=archive.parent)


def test_no_data_set_needs_a_working_torchvision(broken_torchvision, made_up_cifar):
    archive, _ = made_up_cifar
    with broken_torchvision(RuntimeError):
        assert len(load_images("cifar10", root=archive.parent).test) == 20


# ---- parts of a data set


def small():
    return TensorDataset(torch.arange(7.0), torch.tensor([0, 1, 2, 1, 0, 2, 2]), torch.arange(7) * 10)


def test_classes_by_hand():
    assert [t.tolist() for t in only_classes(small(), [1]).tensors] == [[1, 3], [1, 1], [10, 30]]
    assert [t.tolist() for t in without_classes(small(), {1, 0}).tensors] == [[2, 5, 6], [2, 2, 2], [20, 50, 60]]
    assert len(only_classes(small(), (number for number in (0, 2)))) == 5
    assert len(without_classes(small(), [])) == len(without_classes(small(), [9])) == 7


def test_classes_that_leave_nothing():
    with pytest.raises(ValueError, match=r"no example has a label in \[7\]; the labels are \[0, 1, 2\]"):
        only_classes(small(), [7])
    with pytest.raises(ValueError, match="no example has a label that is not in"):
        without_classes(small(), range(10))
    with pytest.raises(TypeError, match=r"classes is 3; expected several class numbers, such as \[3\]"):
        only_classes(small(), 3)


def test_a_fraction_keeps_the_shares_and_the_order():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    data = TensorDataset(torch.arange(100), labels)
    tenth = fraction(data, 0.1)
    assert counts(tenth).tolist() == [6, 3, 1]
    places = tenth.tensors[0]
    assert torch.equal(places, places.sort().values) and torch.equal(tenth.tensors[1], labels[places])
    assert len(places.unique()) == 10
    assert counts(fraction(data, 0.001)).tolist() == [1, 1, 1]
    assert torch.equal(fraction(data, 1).tensors[0], data.tensors[0])


def test_a_fraction_follows_its_seed_alone():
    data = TensorDataset(torch.arange(100), torch.arange(100) % 2)
    torch.manual_seed(1)
    first = fraction(data, 0.2).tensors[0]
    torch.manual_seed(2)
    assert torch.equal(fraction(data, 0.2).tensors[0], first)
    assert not torch.equal(fraction(data, 0.2, seed=1).tensors[0], first)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_a_fraction_out_of_range(share):
    with pytest.raises(ValueError, match="share is"):
        fraction(small(), share)


# ---- jitter


def moved(picture, down, right, fill):
    """A picture (C, H, W) moved by loops."""
    result = torch.full_like(picture, fill)
    channels, height, width = picture.shape
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                if 0 <= row - down < height and 0 <= column - right < width:
                    result[channel, row, column] = picture[channel, row - down, column - right]
    return result


@pytest.mark.parametrize("shape", [(40, 1, 5, 6), (40, 3, 6, 5)])
def test_jitter_is_a_move_by_up_to_two_pixels(shape):
    pictures = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = jitter(pictures, torch.Generator().manual_seed(0))
    fill, found = pictures.min().item(), []
    for before, after in zip(pictures, result, strict=True):
        moves = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(moved(before, down, right, fill), after)
        ]
        assert len(moves) == 1  # one move of the 25, the border filled with the darkest value
        found += moves
    assert {down for down, _ in found} == {right for _, right in found} == {-2, -1, 0, 1, 2}
    assert len(set(found)) > 12  # the two directions are independent
    assert result.shape == shape


def test_jitter_follows_its_generator():
    pictures = torch.randn(8, 1, 5, 5)
    one, two, three = (jitter(pictures, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, three)
    generator = torch.Generator().manual_seed(1)
    jitter(pictures, generator)
    assert not torch.equal(jitter(pictures, generator), one)


def test_jitter_by_nothing_and_by_less_than_nothing():
    pictures = torch.randn(4, 1, 5, 5)
    assert torch.equal(jitter(pictures, torch.Generator(), pixels=0), pictures)
    with pytest.raises(ValueError, match="pixels is -1"):
        jitter(pictures, torch.Generator(), pixels=-1)
