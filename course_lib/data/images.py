"""Pictures to learn from: one function, four data sets, the same three splits each.

======================  ===========================  ==================  =====================================
name                    pictures                     size                train / validation / test
======================  ===========================  ==================  =====================================
``digits`` (default)    handwritten digits           1 × 8 × 8           1,000 / 297 / 500, built in
``mnist``               handwritten digits           1 × 28 × 28         55,000 / 5,000 / 10,000
``fashion_mnist``       clothes                      1 × 28 × 28         55,000 / 5,000 / 10,000
``cifar10``             animals and vehicles         3 × 32 × 32         45,000 / 5,000 / 10,000
======================  ===========================  ==================  =====================================

``digits`` comes with scikit-learn and needs no network. A data set that cannot be found is an error,
never replaced by another.
"""

import gzip
import math
import pickle
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from course_lib.data.files import OFFLINE, DataFile, DataFileError, find_or_download

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10")
DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# The MD5 checksums are those that torchvision publishes. Order: pictures and labels to train, then to test.
IDX_FILES = {
    "mnist": tuple(
        DataFile(f"MNIST/raw/{name}", md5, (_MNIST + name,))
        for name, md5 in (
            ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
            ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
            ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
        )
    ),
    "fashion_mnist": tuple(
        DataFile(f"FashionMNIST/raw/{name}", md5, (_FASHION + name,))
        for name, md5 in (
            ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        )
    ),
}
CIFAR10_FILE = DataFile(
    "cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
)


@dataclass(frozen=True)
class ImageData:
    """A data set in three splits, each a ``TensorDataset`` of pictures ``(N, C, H, W)`` and labels ``(N,)``.

    Pictures are float32, shifted and scaled by ``mean`` and ``std`` (one number a channel, from the training
    pictures); labels are int64. ``picture`` undoes the scaling.
    """

    name: str
    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def picture(self, images: Tensor) -> Tensor:
        """``images`` (..., C, H, W) with brightness from 0 to 1 again, to be drawn."""
        mean, std = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return images * std + mean


def load_images(
    name: str = "digits", *, root: str | Path | None = None, download: bool = True, seed: int = 0
) -> ImageData:
    """Load a data set by name, split the same way every time.

    Args:
        name: one of ``DATASETS``.
        root: the folder to look in and download to; without it ``COURSE_DATA``, then the cache.
        download: fetch what is missing; if false, a missing file is an error at once.
        seed: which pictures go to which split. Every split has each class in the same share.

    Raises:
        ValueError: ``name`` is unknown, or its files are missing or damaged (``DataFileError``).
    """
    if name not in DATASETS:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(map(repr, DATASETS))}")
    if name == "digits":
        images, labels = _digits()
        rest, test = _split(labels, 500, seed)
        kept, validation = _split(labels[rest], 297, seed)
        parts = [(images[index], labels[index]) for index in (rest[kept], rest[validation], test)]
        return _image_data(name, parts, DIGITS)
    if name == "cifar10":
        (images, labels), test, classes = *_cifar10(root, download), THINGS
    else:
        (images, labels), test = _idx_data(name, root, download)
        classes = DIGITS if name == "mnist" else CLOTHES
    kept, validation = _split(labels, 5000, seed)
    return _image_data(name, [(images[kept], labels[kept]), (images[validation], labels[validation]), test], classes)


def only_classes(data: TensorDataset, classes: Iterable[int]) -> TensorDataset:
    """The examples whose label is in ``classes``; a ``ValueError`` if there are none."""
    return _where(data, _has_class(data, classes), f"a label in {classes}")


def without_classes(data: TensorDataset, classes: Iterable[int]) -> TensorDataset:
    """The examples whose label is not in ``classes``; a ``ValueError`` if there are none."""
    return _where(data, ~_has_class(data, classes), f"a label that is not in {classes}")


def fraction(data: TensorDataset, share: float, *, seed: int = 0) -> TensorDataset:
    """A random ``share`` of the examples, each class in its proportion (at least one example a class).

    Raises:
        ValueError: ``share`` is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected a number above 0 and at most 1")
    labels = data.tensors[1]
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for value in labels.unique():
        places = (labels == value).nonzero().squeeze(1)
        order = torch.randperm(len(places), generator=generator)
        chosen.append(places[order[: max(1, round(share * len(places)))]])
    return TensorDataset(*(tensor[torch.cat(chosen).sort().values] for tensor in data.tensors))


def jitter(images: Tensor, generator: torch.Generator, *, pixels: int = 2) -> Tensor:
    """Move each picture (N, C, H, W) by up to ``pixels`` in both directions; the border fills with the darkest value.

    For ``training.fit(augment=jitter)``; Hinton et al. 2015, section 3, jitter by up to two pixels.

    Raises:
        ValueError: ``pixels`` is negative.
    """
    if pixels < 0:
        raise ValueError(f"pixels is {pixels}; expected 0 or more")
    count, _, height, width = images.shape
    framed = torch.nn.functional.pad(images, [pixels] * 4, value=images.min().item())
    down, right = (
        torch.randint(0, 2 * pixels + 1, (count, 1), generator=generator).to(images.device) for _ in range(2)
    )
    rows = down + torch.arange(height, device=images.device)  # (N, H): which rows of the frame to keep
    columns = right + torch.arange(width, device=images.device)  # (N, W)
    picture = torch.arange(count, device=images.device)[:, None, None]
    return framed[picture, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def _has_class(data: TensorDataset, classes: Iterable[int]) -> Tensor:
    try:
        wanted = torch.tensor(sorted(classes), dtype=torch.int64)
    except TypeError as error:
        raise TypeError(f"classes is {classes!r}; expected several class numbers, such as [3]") from error
    return torch.isin(data.tensors[1], wanted)


def _where(data: TensorDataset, mask: Tensor, wanted: str) -> TensorDataset:
    if not mask.any():
        raise ValueError(f"no example has {wanted}; the labels are {data.tensors[1].unique().tolist()}")
    return TensorDataset(*(tensor[mask] for tensor in data.tensors))


def _split(labels: Tensor, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Places of the rest and of ``held_out`` examples, each class in its share, both in the order of the data."""
    from sklearn.model_selection import train_test_split

    rest, held = train_test_split(np.arange(len(labels)), test_size=held_out, stratify=labels, random_state=seed)
    return torch.from_numpy(np.sort(rest)), torch.from_numpy(np.sort(held))


def _image_data(name: str, parts: list[tuple[Tensor, Tensor]], class_names: tuple[str, ...]) -> ImageData:
    """Scale the pictures (uint8 or float, 0 to 1 after division) by the training split's mean and deviation."""
    train = parts[0][0]
    mean, std = train.mean((0, 2, 3)), train.std((0, 2, 3))
    scaled = [
        TensorDataset((images - mean[:, None, None]) / std[:, None, None], labels.long()) for images, labels in parts
    ]
    return ImageData(name, *scaled, class_names, tuple(mean.tolist()), tuple(std.tolist()))


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()  # brightness from 0 to 16
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)


def _idx_data(name: str, root: str | Path | None, download: bool) -> list[tuple[Tensor, Tensor]]:
    """The pictures and labels of the four IDX files: [to train, to test]."""
    files = [_read_idx(find_or_download(file, root=root, download=download)) for file in IDX_FILES[name]]
    return [(images[:, None] / 255, labels) for images, labels in (files[:2], files[2:])]


def _read_idx(path: Path) -> Tensor:
    """Read a gzipped IDX file: two zero bytes, the type (8: bytes), the number of sizes, the sizes, the values."""
    try:
        content = gzip.decompress(path.read_bytes())
        ranks = content[3]
        sizes = np.frombuffer(content, ">i4", count=ranks, offset=4).tolist()
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * ranks)
        if content[:3] != b"\0\0\x08" or len(values) != math.prod(sizes):
            raise ValueError("not an IDX file of bytes")
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataFileError(
            f"{path} is damaged ({error}). Delete it; it is then downloaded again. Meanwhile {OFFLINE}."
        ) from error
    return torch.from_numpy(values.reshape(sizes).copy())


def _cifar10(root: str | Path | None, download: bool) -> list[tuple[Tensor, Tensor]]:
    """The pictures and labels of the archive's batches: [to train, to test]."""
    with tarfile.open(find_or_download(CIFAR10_FILE, root=root, download=download)) as packed:
        # The checksum says that this is the published file, so unpickling it is safe.
        batches = {
            member.name: pickle.load(packed.extractfile(member), encoding="latin1")
            for member in packed
            if "_batch" in member.name
        }
    found = []
    for kind in ("data_batch", "test_batch"):
        parts = [batches[name] for name in sorted(batches) if kind in name]
        images = torch.from_numpy(np.concatenate([part["data"] for part in parts])).view(-1, 3, 32, 32)
        found.append((images / 255, torch.tensor([label for part in parts for label in part["labels"]])))
    return found
