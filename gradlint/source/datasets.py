"""The shapes of the entries of well-known data sets, and which of them a file reads or names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from gradlint.source.constants import constant, normal
from gradlint.source.names import dotted
from gradlint.source.shapes import Dim, ShapeHint

# Images as channels, height, width.
IMAGES: Mapping[str, tuple[int, int, int]] = {
    **dict.fromkeys(("MNIST", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST"), (1, 28, 28)),
    **dict.fromkeys(("CIFAR10", "CIFAR100", "SVHN", "CIFAR"), (3, 32, 32)),
    "USPS": (1, 16, 16),
    "STL10": (3, 96, 96),
    **dict.fromkeys(("ImageNet", "ImageFolder", "Flowers102", "Food101", "OxfordIIITPet", "Caltech101"), (3, 224, 224)),
    "CelebA": (3, 64, 64),
    "Omniglot": (1, 105, 105),
}

# scikit-learn's tables: the number of features.
TABLES: Mapping[str, int] = {
    "load_digits": 64,
    "load_iris": 4,
    "load_wine": 13,
    "load_breast_cancer": 30,
    "load_diabetes": 10,
    "fetch_california_housing": 8,
    "load_boston": 13,
    "make_moons": 2,
    "make_circles": 2,
}

RESIZING = {"Resize", "CenterCrop", "RandomCrop", "RandomResizedCrop"}
MENTION = re.compile(r"(fashion)?[-_ ]?mnist|cifar(-?10{1,2})?", re.IGNORECASE)


def dataset_shapes(
    tree: ast.Module, aliases: Mapping[str, str], mentions: str, options: Mapping[str, object]
) -> tuple[str, list[ShapeHint]]:
    """(the data set, the shapes of a batch of its entries, whole and flat); one that is only named counts last."""
    name, line = next(_read(tree, aliases), ("", 0))
    if name in TABLES:
        return name, [_hint(("N", TABLES[name]), line)]
    image = IMAGES.get(name)
    if image is not None:
        image = _transformed(image, tree, options)
    elif match := MENTION.search(mentions):
        name = "MNIST" if "mnist" in match[0].lower() else "CIFAR10"
        image = IMAGES[name]
    if image is None:
        return "", []
    channels, height, width = image
    flat = channels * height * width
    shapes: list[tuple[Dim, ...]] = [("N", channels, height, width), ("N", flat)]
    return name, [_hint(shape, line) for shape in shapes]


def _hint(shape: tuple[Dim, ...], line: int) -> ShapeHint:
    return ShapeHint(shape, "float32", origin="dataset", line=line)


def _read(tree: ast.Module, aliases: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """The data sets that calls in the file make."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            path = dotted(node.func, aliases)
            name = path.rsplit(".", 1)[-1]
            if name in TABLES or (name in IMAGES and ("dataset" in path or "torchvision" in path)):
                yield name, node.lineno


def _transformed(image: tuple[int, int, int], tree: ast.Module, options: Mapping[str, object]) -> tuple[int, int, int]:
    """The image after the file's transforms: the last one that fixes a size wins, Grayscale leaves one channel."""
    channels, height, width = image
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "Grayscale":
            channels = 1
        elif name in RESIZING and (size := _size(node, options)):
            height, width = size
    return channels, height, width


def _size(call: ast.Call, options: Mapping[str, object]) -> tuple[int, int] | None:
    value = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "size"), None)
    try:
        size = options.get(normal(value.attr)) if isinstance(value, ast.Attribute) else constant(value)
    except ValueError:
        return None
    if isinstance(size, int):
        return size, size
    if isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(s, int) for s in size):
        return size[0], size[1]
    return None
