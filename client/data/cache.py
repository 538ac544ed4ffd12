"""Preprocessed images, kept on disk and in memory.

On disk they are MONAI's persistent cache, in the site's home, one file an image, named by a hash of everything the
result depends on. In memory there is one bounded store for the whole process, however many cohorts share it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from threading import Lock

import torch
from monai.data.dataset import PersistentDataset
from monai.transforms.transform import Transform

# A preprocessed image (float32) and its target (uint8: a class of each voxel, or of the image).
Pair = tuple[torch.Tensor, torch.Tensor]


class DiskCache(PersistentDataset):
    """MONAI's PersistentDataset, made safe for several processes and for patients' images.

    As MONAI ships it, a file is written to the system's temporary folder and moved: across file systems another
    process can read half of it, and a patient's image lies outside the home for a while. Here it is written beside
    its final name, readable by the site alone, and renamed, which is atomic.
    """

    def __init__(self, keys: Sequence[str], prepare: Transform, folder: Path) -> None:
        super().__init__(data=list(keys), transform=prepare, cache_dir=folder, hash_func=lambda key: str(key).encode())
        self.prepare = prepare

    def _cachecheck(self, item_transformed: str) -> Pair:
        file = Path(self.cache_dir or ".") / f"{self.hash_func(item_transformed).decode()}.pt"
        try:
            image, target = torch.load(file, weights_only=True)
            return image, target
        except FileNotFoundError:
            pass
        except (RuntimeError, UnpicklingError, EOFError, ValueError):
            # A file damaged by a full disk or a power cut: made again.
            file.unlink(missing_ok=True)
        # Not through MONAI's Compose: it logs the input and wraps what is raised, a refusal for instance.
        pair: Pair = self.prepare(item_transformed)
        handle, draft = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".draft")  # only its owner can read it
        try:
            with os.fdopen(handle, "wb") as out:
                torch.save(pair, out)
            os.replace(draft, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        return pair


class Memory:
    """Pairs by key, the least recently used given up when there is more than `limit` bytes of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._pairs: OrderedDict[str, Pair] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> Pair | None:
        """The pair, or None."""
        with self._lock:
            pair = self._pairs.get(key)
            if pair is not None:
                self._pairs.move_to_end(key)
            return pair

    def put(self, key: str, pair: Pair) -> None:
        """Keep a pair, if it is not larger than the whole limit."""
        size = _bytes(pair)
        with self._lock:
            if key in self._pairs or size > self.limit:
                return
            self._pairs[key] = pair
            self.size += size
            while self.size > self.limit:
                _, given_up = self._pairs.popitem(last=False)
                self.size -= _bytes(given_up)


def _bytes(pair: Pair) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in pair)


def _share_of_memory() -> int:
    """A quarter of the machine's memory, 4 GiB at most."""
    return min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4, 4 << 30)


MEMORY = Memory(_share_of_memory())
