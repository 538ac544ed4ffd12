import os
import subprocess
import sys

import numpy as np
import pytest
import scans
import torch

from client.data.cache import MEMORY, DiskCache, Memory
from client.data.loading import Cohort
from client.data.records import SPLITS
from client.data.registry import Registry
from shared.errors import InsituError, RefusalCode, Refused
from shared.job import Job

SHAPE = (6, 24, 20)
ORGAN = scans.box(SHAPE, slice(1, 5), slice(4, 16), slice(3, 12))
LESION = scans.box(SHAPE, slice(2, 4), slice(6, 9), slice(5, 9))


@pytest.fixture(autouse=True)
def empty_memory():
    """What an earlier test left in memory is given up."""
    MEMORY._pairs.clear()
    MEMORY.size = 0


@pytest.fixture
def registered(site, tmp_path):
    """A site with forty patients of two pictures each."""
    Registry(site).add("data", scans.pictures(tmp_path / "png", 40))
    return site


def cached(site):
    return sorted(path.name for path in (site.home / "cache").iterdir())


def test_patients_are_sorted_and_every_one_is_in_one_split(registered, job):
    cohorts = [Cohort(registered, "data", job, split) for split in SPLITS]
    patients = [patient for cohort in cohorts for patient in cohort.patients]
    assert len(patients) == len(set(patients)) == 40
    for cohort in cohorts:
        assert cohort.patients == sorted(cohort.patients)
        assert len(cohort) == len(cohort.patients)
        assert all(cohort.images(i) == 2 for i in range(len(cohort)))


def test_an_image_comes_with_its_mask_in_the_size_of_the_job(registered, job):
    cohort = Cohort(registered, "data", job, "train")
    image, target = cohort.load(0, 1)
    assert (image.dtype, tuple(image.shape)) == (torch.float32, (1, 16, 16))
    assert (target.dtype, tuple(target.shape)) == (torch.int64, (1, 16, 16))
    assert set(target.unique().tolist()) == {0, 1}
    assert float(image[target > 0].mean()) > float(image[target == 0].mean()) + 1
    assert cohort.spacing(0, 1) is None
    assert cohort.prevalence() == {"background": 1.0, "lesion": 1.0}


def test_the_second_time_nothing_is_read_but_the_cache(registered, job, tmp_path):
    first = [Cohort(registered, "data", job, "test").load(i, j) for i in range(3) for j in range(2)]
    assert len(cached(registered)) == 6
    for path in (tmp_path / "png").glob("i*.png"):
        stamp = path.stat()
        path.write_bytes(bytes(stamp.st_size))
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    again = [Cohort(registered, "data", job, "test").load(i, j) for i in range(3) for j in range(2)]
    MEMORY._pairs.clear()
    from_disk = [Cohort(registered, "data", job, "test").load(i, j) for i in range(3) for j in range(2)]
    for one, other, third in zip(first, again, from_disk, strict=True):
        for position in (0, 1):
            assert torch.equal(one[position], other[position])
            assert torch.equal(one[position], third[position])


def test_another_preprocessing_or_changed_files_are_prepared_anew(registered, job, tmp_path):
    Cohort(registered, "data", job, "test").load(0, 0)
    Cohort(registered, "data", job.varied(images={"size": [8, 8]}), "test").load(0, 0)
    assert len(cached(registered)) == 2
    for path in (tmp_path / "png").glob("m*.png"):
        scans.picture(path, np.zeros((24, 32), dtype=np.uint8))
    _, target = Cohort(registered, "data", job, "test").load(0, 0)
    assert not target.any()
    assert len(cached(registered)) == 3


def test_a_damaged_cache_file_is_made_again(registered, job):
    before, _ = Cohort(registered, "data", job, "test").load(0, 0)
    (name,) = cached(registered)
    for content in (b"", b"nonsense", (registered.home / "cache" / name).read_bytes()[:200]):
        (registered.home / "cache" / name).write_bytes(content)
        MEMORY._pairs.clear()
        after, _ = Cohort(registered, "data", job, "test").load(0, 0)
        assert torch.equal(before, after)


def test_cached_images_are_for_the_site_alone_and_leave_no_drafts(registered, job):
    Cohort(registered, "data", job, "test").load(0, 0)
    (path,) = (registered.home / "cache").iterdir()
    assert oct(path.stat().st_mode)[-3:] == "600"


ANOTHER_PROCESS = """
import sys
from pathlib import Path
from client.data.loading import Cohort
from client.site import Site
from shared.job import Job
site, job = Site.open(Path(sys.argv[1])), Job.load(Path(sys.argv[2]))
cohort = Cohort(site, "data", job, "train")
print("ready", flush=True)
sys.stdin.readline()
print(sum(float(cohort.load(i, j)[0].abs().sum()) for i in range(len(cohort)) for j in range(2)))
"""


def test_two_processes_may_fill_one_cache_at_once(registered, job, tmp_path):
    (tmp_path / "job.toml").write_text(job.to_toml())
    command = [sys.executable, "-c", ANOTHER_PROCESS, str(registered.home), str(tmp_path / "job.toml")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        cohort = Cohort(registered, "data", job, "train")
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        here = sum(float(cohort.load(i, j)[0].abs().sum()) for i in range(len(cohort)) for j in range(2))
        there = other.communicate(timeout=120)[0]
    assert float(there) == here
    assert len(cached(registered)) == 2 * len(cohort)


def test_a_file_that_is_gone_is_said_by_its_patients_pseudonym(registered, job, tmp_path):
    for path in (tmp_path / "png").glob("i*.png"):
        path.unlink()
    with pytest.raises(InsituError, match=r"patient [0-9a-f]{32}: .*add") as gone:
        Cohort(registered, "data", job, "test")
    assert "png" not in str(gone.value)


def test_a_mask_that_changed_to_a_value_outside_the_classes_is_refused(registered, job, tmp_path):
    for path in (tmp_path / "png").glob("m*.png"):
        scans.picture(path, np.full((24, 32), 9, dtype=np.uint8))
    with pytest.raises(Refused) as refused:
        Cohort(registered, "data", job, "test").load(0, 0)
    assert refused.value.code == RefusalCode.LABELS


def test_a_label_becomes_the_index_of_its_class(site, tmp_path, job):
    folder = scans.pictures(tmp_path / "png", 12)
    rows = [f"p{n},i{n}-0.png,{'Mel' if n % 3 == 0 else 'benign'},test" for n in range(12)]
    (folder / "manifest.csv").write_text("\n".join(["patient,image,label,split", *rows]))
    Registry(site).add("data", folder, mapping={"mel": "malignant"})
    wanted = Job.from_dict(
        {
            **job.model_dump(mode="json", exclude_none=True),
            "task": "classification",
            "classes": ["benign", "malignant"],
        }
    )
    cohort = Cohort(site, "data", wanted, "test")
    targets = [cohort.load(i, 0)[1] for i in range(len(cohort))]
    assert all(target.dtype == torch.int64 and target.shape == () for target in targets)
    assert sum(map(int, targets)) == 4
    assert cohort.prevalence() == {"benign": 8 / 12, "malignant": 4 / 12}


def test_a_volume_and_its_segmentation_are_turned_and_resampled_together(site, tmp_path, job):
    for number in range(3):
        made = scans.series(tmp_path / "ct" / str(number), f"P{number}", seed=number)
        for k, ds in enumerate(made):
            # The organ is bright, so that image and mask can be compared.
            pixels = np.frombuffer(ds.PixelData, dtype=np.uint16).reshape(24, 20) + (2000 * ORGAN[k]).astype(np.uint16)
            ds.PixelData = pixels.tobytes()
            scans.save(ds, tmp_path / "ct" / str(number) / f"{ds.InstanceNumber - 1:03d}.dcm")
        scans.segmentation(made[::-1], tmp_path / "ct" / str(number) / "seg.dcm", {"Liver": ORGAN[::-1]})
    Registry(site).add("data", tmp_path / "ct")
    images = {"size": [24, 36, 18], "spacing": [1.25, 1.0, 1.0], "window": [1000, 2000]}
    wanted = Job.from_dict(
        {
            **job.model_dump(mode="json", exclude_none=True),
            "classes": ["background", "liver"],
            "images": images,
        }
    )
    cohorts = [Cohort(site, "data", wanted, split) for split in SPLITS]
    cohort = next(cohort for cohort in cohorts if len(cohort))
    image, target = cohort.load(0, 0)
    assert tuple(image.shape) == tuple(target.shape) == (1, 24, 36, 18)
    assert cohort.spacing(0, 0) == (1.25, 1.0, 1.0)
    assert int(target.sum()) == pytest.approx(ORGAN.sum() * 1.5 * 3.0, rel=0.05)
    bright = image > 0.5
    overlap = 2 * (bright & (target > 0)).sum() / (bright.sum() + (target > 0).sum())
    assert float(overlap) > 0.9


def test_memory_gives_up_what_was_used_longest_ago():
    pair = (torch.zeros(10), torch.zeros(2, dtype=torch.uint8))
    memory = Memory(limit=100)
    memory.put("a", pair)
    memory.put("b", pair)
    assert memory.get("a") is not None
    memory.put("c", pair)
    assert memory.get("b") is None
    assert memory.get("a") is not None
    assert memory.size == 84
    memory.put("large", (torch.zeros(1000), torch.zeros(1)))
    assert memory.get("large") is None
    assert memory.size == 84


def test_a_failed_preparation_leaves_no_file(tmp_path):
    from monai.transforms.transform import Transform

    class Failing(Transform):
        def __call__(self, data):
            raise ValueError(data)

    cache = DiskCache(["key"], Failing(), tmp_path / "cache")
    with pytest.raises(ValueError, match="key"):
        cache[0]
    assert list((tmp_path / "cache").iterdir()) == []
