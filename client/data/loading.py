"""A cohort: the patients of one split of a dataset, with their images as the network sees them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from monai.transforms.transform import Transform

from client.data import images, labels
from client.data.cache import MEMORY, DiskCache, Pair
from client.data.records import Item, Split
from client.data.registry import Registry
from client.site import Site
from shared.errors import InsituError, RefusalCode, Refused
from shared.job import Job
from shared.preprocessing import Preprocessing


@dataclass(frozen=True)
class _Recipe:
    """All that a preprocessed image depends on besides its files."""

    task: str
    classes: tuple[str, ...]
    mapping: Mapping[str, str]
    preprocessing: Preprocessing

    @cached_property
    def digest(self) -> str:
        what = [self.task, self.classes, self.mapping, self.preprocessing.digest]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def class_of(self, item: Item) -> int:
        """The class of a whole image."""
        index = labels.class_index(item.label or "", self.classes, self.mapping)
        if index is None:
            detail = f"an image of patient {item.patient} has a label that is none of {', '.join(self.classes)}"
            raise Refused(RefusalCode.LABELS, detail)
        return index

    def classes_shown(self, item: Item) -> set[int]:
        """The classes that occur in the mask as it is stored, or the class of the whole image."""
        if self.task == "classification":
            return {self.class_of(item)}
        if item.segments is not None:
            marked = [label for label, voxels in item.segments.items() if voxels]
            found = {labels.class_index(label, self.classes, self.mapping) for label in marked}
            return {0, *(index for index in found if index is not None)}
        values = {value for value, voxels in (item.indices or {}).items() if voxels}
        return {min(value, 1) for value in values} if len(self.classes) == 2 else values


class _Prepare(Transform):
    """From a key to the preprocessed image and its target."""

    def __init__(self, items: Mapping[str, Item], recipe: _Recipe) -> None:
        self.items = items
        self.recipe = recipe

    def __call__(self, data: str) -> Pair:
        item, recipe = self.items[data], self.recipe
        array, affine = images.read(item)
        image = recipe.preprocessing.image(array, affine)
        if recipe.task == "classification":
            return image, torch.tensor(recipe.class_of(item), dtype=torch.uint8)
        mask = labels.class_mask(item, recipe.classes, recipe.mapping)
        return image, recipe.preprocessing.mask(mask, affine).to(torch.uint8)


class Cohort:
    """Patients of one split, and their preprocessed images.

    Each image is preprocessed once and then kept: on disk in the site's home, and in memory as far as there is room.

    Attributes:
        patients: pseudonyms, sorted.
    """

    def __init__(self, site: Site, dataset: str, job: Job, split: Split) -> None:
        registry = Registry(site)
        self._recipe = _Recipe(job.task, job.classes, registry.mapping(dataset), Preprocessing(job.images))
        by_patient: dict[str, list[tuple[Item, str]]] = defaultdict(list)
        for item in registry.items(dataset, split):
            if item.has_mask if job.task == "segmentation" else item.label is not None:
                by_patient[item.patient].append((item, _key(item, self._recipe)))
        self.patients: list[str] = sorted(by_patient)
        self._images = [by_patient[patient] for patient in self.patients]
        items = {key: item for group in self._images for item, key in group}
        self._disk = DiskCache(list(items), _Prepare(items, self._recipe), site.home / "cache")
        self._position = {key: position for position, key in enumerate(items)}

    def __len__(self) -> int:
        """Patients."""
        return len(self.patients)

    def images(self, i: int) -> int:
        """Images of patient i."""
        return len(self._images[i])

    def load(self, i: int, j: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image j of patient i, preprocessed.

        The image is the cache's own tensor: read it, copy it, never write into it.

        Returns:
            float32 (channels, *size), and int64 (1, *size) of class indices, or int64 () for classification.

        Raises:
            Refused: `labels`, where a mask or label is none of the job's classes.
            InsituError: if a file is gone, or is not what it was when it was added.
        """
        key = self._images[i][j][1]
        pair = MEMORY.get(key)
        if pair is None:
            pair = self._disk[self._position[key]]
            MEMORY.put(key, pair)
        image, target = pair
        return image, target.to(torch.int64)

    def spacing(self, i: int, j: int) -> tuple[float, ...] | None:
        """Millimetres between the voxels of the preprocessed image, in the order of `size`; None if unknown."""
        picture = self._images[i][j][0].picture
        affine = None if picture.affine is None else np.array(picture.affine)
        return self._recipe.preprocessing.spacing_after(affine, picture.shape)

    def prevalence(self) -> dict[str, float]:
        """Of each class: the share of images that show it (segmentation: in their mask as it is stored)."""
        counted = Counter(
            index for group in self._images for item, _ in group for index in self._recipe.classes_shown(item)
        )
        total = max(1, sum(map(len, self._images)))
        return {name: counted[index] / total for index, name in enumerate(self._recipe.classes)}


def _key(item: Item, recipe: _Recipe) -> str:
    """A name for a preprocessed image: a hash over the recipe and over paths, sizes and times of the files."""
    sha = hashlib.sha256(recipe.digest.encode())
    sha.update(json.dumps([item.kind, item.label, item.picture.affine]).encode())
    for file in (*item.files, *item.masks):
        try:
            status = os.stat(file)
        except OSError as error:
            what = f"a file of patient {item.patient}: {error.strerror}"
            raise InsituError(f"{what}; put it back, or {images.ADD_AGAIN}") from None
        sha.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return sha.hexdigest()
