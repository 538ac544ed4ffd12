import json

import numpy as np
import pytest
import scans
from pydicom.uid import RLELossless

from client.data.registry import Registry, pooled
from shared.errors import BadInput, InsituError, RefusalCode, Refused
from shared.job import Job

SHAPE = (6, 24, 20)
ORGAN = scans.box(SHAPE, slice(1, 5), slice(4, 16), slice(3, 12))
LESION = scans.box(SHAPE, slice(2, 4), slice(6, 9), slice(5, 9))


def count(folder):
    return sum(path.is_file() for path in folder.rglob("*"))


def total(summary):
    return summary["files"]["used"] + summary["files"]["left_out"]


def reasons(registry, name):
    return {one.file.rsplit("/", 1)[-1]: one.reason for one in registry.left_out(name)}


@pytest.fixture
def tree(tmp_path):
    """Four patients with a segmented volume each; one of them compressed."""
    folder = tmp_path / "tree"
    for number in range(4):
        syntax = {"syntax": RLELossless} if number == 3 else {}
        made = scans.series(folder / f"p{number}", f"ID-{number}", seed=number, **syntax)
        scans.segmentation(made, folder / f"p{number}" / "seg.dcm", {"Liver": ORGAN, "Liver tumor": LESION})
    return folder


def job(**changes):
    base = {
        "name": "liver",
        "task": "segmentation",
        "classes": ["background", "liver", "lesion"],
        "images": {"size": [16, 16, 8]},
        "network": {"name": "UNet"},
        "privacy": {"mode": "none"},
    }
    return Job.from_dict({**base, **changes})


LESIONS = {"classes": ["background", "lesion"], "images": {"size": [16, 16]}}


def test_a_dicom_tree_is_volumes_with_their_segmentations(site, tree):
    registry = Registry(site)
    summary = registry.add("ct", tree)
    assert (summary.patients, summary.images, summary.used, summary.left_out) == (4, 4, 28, 0)
    shown = registry.summary("ct")
    assert shown["files"] == {"used": 28, "left_out": 0}
    assert shown["labels"]["segment"]["Liver tumor"] == {"images": 4, "patients": 4, "prevalence": 1.0}
    assert shown["spacings"]["3D"]["median"] == [1.5, 1.25, 3.0]
    assert shown["modalities"] == {"CT": 4}
    item = registry.items("ct")[0]
    assert item.segments == {"Liver": int(ORGAN.sum()), "Liver tumor": int(LESION.sum())}


def test_nothing_that_names_a_patient_is_in_the_registry(site, tree):
    registry = Registry(site)
    registry.add("ct", tree)
    content = b"".join(path.read_bytes() for path in site.home.glob("registry.sqlite*"))
    assert b"ID-" not in content
    assert b"Doe" not in content
    assert {len(item.patient) for item in registry.items("ct")} == {32}
    assert oct((site.home / "registry.sqlite").stat().st_mode)[-3:] == "600"


def test_one_corrupt_file_among_good_ones_is_named_counted_and_left_out(site, tree):
    found = count(tree)
    volume = [path for path in (tree / "p1").glob("0*.dcm") if scans.read(path).ImagePositionPatient[2] == 36.0]
    scans.damage(volume[0])
    registry = Registry(site)
    registry.add("ct", tree)
    summary = registry.summary("ct")
    assert total(summary) == found
    assert summary["patients"] == 3
    # The slice itself, the five others of a volume that now has a gap, and the segmentation of it.
    assert summary["files"]["left_out"] == 7
    why = reasons(registry, "ct")
    assert "cut off" in why[volume[0].name]
    assert why["seg.dcm"] == "the images it refers to were left out"
    assert sum("a gap" in reason for reason in why.values()) == 5


def test_everything_found_is_used_or_left_out_with_a_reason(site, tree):
    (tree / "readme.txt").write_text("hello")
    (tree / "DICOMDIR").write_bytes(b"\0" * 200)
    scans.series(tree / "unlabelled", "ID-9", slices=3)
    made = scans.series(tree.parent / "elsewhere", "ID-8")
    scans.segmentation(made, tree / "dangling.dcm", {"Liver": ORGAN})
    registry = Registry(site)
    registry.add("ct", tree)
    assert total(registry.summary("ct")) == count(tree) == 28 + 2 + 3 + 1
    why = reasons(registry, "ct")
    assert why["dangling.dcm"] == "it refers to images that are not here"
    assert sum(reason.startswith("no label") for reason in why.values()) == 3
    assert all(why.values())


def test_a_segmentation_of_another_patients_images_is_left_out(site, tree):
    ds = scans.read(tree / "p0" / "seg.dcm")
    ds.PatientID = "ID-1"
    ds.save_as(tree / "p0" / "seg.dcm", enforce_file_format=True)
    registry = Registry(site)
    registry.add("ct", tree)
    assert reasons(registry, "ct")["seg.dcm"] == "it refers to images of another patient"


def test_a_segmentation_of_slices_that_are_missing_is_left_out(site, tree):
    last = [path for path in (tree / "p1").glob("0*.dcm") if scans.read(path).ImagePositionPatient[2] in (42.0, 45.0)]
    for path in last:
        path.unlink()
    registry = Registry(site)
    registry.add("ct", tree)
    assert reasons(registry, "ct")["seg.dcm"] == "part of it lies on images that are not here"


def test_without_any_labels_the_images_are_kept_and_it_is_said(site, tmp_path):
    scans.series(tmp_path / "mr", "P1", modality="MR")
    registry = Registry(site)
    registry.add("mr", tmp_path / "mr")
    assert registry.summary("mr")["images"] == 1
    assert any("no labels" in one.text for one in registry.check("mr"))
    with pytest.raises(Refused) as refused:
        registry.select(job())
    assert refused.value.code == RefusalCode.NO_DATASET


def test_labels_come_from_a_table_by_patient_or_series(site, tmp_path):
    folder = tmp_path / "dx"
    lines = ["PatientID,label"]
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 12), dtype=np.uint8)
        scans.save(scans.dataset(f"P{number}", pixels, Modality="DX"), folder / f"{number}.dcm")
        lines += [f"P{number},{'Benign' if number % 2 else 'MALIGNANT'}"] if number < 5 else []
    table = folder / "labels.csv"
    table.write_text("\n".join([*lines, "P99,Benign"]))
    registry = Registry(site)
    registry.add("dx", folder, labels=table)
    summary = registry.summary("dx")
    assert summary["labels"]["label"]["Benign"]["images"] == 2
    assert total(summary) == count(folder) == 7
    assert reasons(registry, "dx") == {"5.dcm": "no label: no segmentation and no row of a table belongs to it"}
    assert any("1 of the 6 PatientID" in note for note in summary["notes"])
    task = job(task="classification", classes=["benign", "malignant"], images={"size": [16, 16]})
    assert registry.select(task) == "dx"
    by_series = tmp_path / "series.csv"
    uid = scans.read(folder / "5.dcm").SeriesInstanceUID
    by_series.write_text(f"SeriesInstanceUID,label\n{uid},benign\n")
    registry.add("one", folder, labels=by_series)
    assert registry.summary("one")["images"] == 1
    table.write_text("PatientID,label\nP77,benign\n")
    with pytest.raises(BadInput, match="none of its 1 PatientID is among the images"):
        registry.add("none", folder, labels=table)


def test_a_manifest_is_registered_with_its_splits(site, tmp_path):
    folder = scans.pictures(tmp_path / "png", 6)
    lines = (folder / "manifest.csv").read_text().splitlines()
    splits = ["split", *(["training"] * 8), *(["validation"] * 2), *(["test"] * 2)]
    (folder / "manifest.csv").write_text(
        "\n".join(f"{line},{split}" for line, split in zip(lines, splits, strict=True))
    )
    registry = Registry(site)
    for path in (folder, folder / "manifest.csv"):
        registry.add(path.name.replace("manifest.csv", "same"), path)
    summary = registry.summary("same")
    assert summary["splits"]["train"] == {"patients": 4, "images": 8}
    assert summary["files"] == {"used": 24, "left_out": 0}
    assert [item.patient for item in registry.items("png", "test")] == [site.pseudonym("patient 5")] * 2
    assert not any(one.severity == "error" for one in registry.check("png"))


def test_a_row_whose_mask_does_not_match_is_left_out_with_both_shapes(site, tmp_path):
    folder = scans.pictures(tmp_path / "png", 4)
    scans.picture(folder / "m2-0.png", np.zeros((10, 10), dtype=np.uint8))
    registry = Registry(site)
    registry.add("png", folder)
    assert registry.summary("png")["files"] == {"used": 14, "left_out": 2}
    why = reasons(registry, "png")
    assert "the mask is 10 × 10, the image 24 × 32 (row 6)" in why["m2-0.png"]
    assert why["i2-0.png"] == "its mask cannot be used (row 6)"


def test_a_damaged_picture_is_left_out_with_its_mask(site, tmp_path):
    folder = scans.pictures(tmp_path / "png", 4)
    scans.damage(folder / "i0-0.png")
    registry = Registry(site)
    registry.add("png", folder)
    assert set(reasons(registry, "png")) == {"i0-0.png", "m0-0.png"}
    assert registry.summary("png")["files"]["used"] == 14


def test_a_manifest_may_name_nifti_dicom_files_and_folders_of_slices(site, tmp_path):
    volume = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    scans.nifti(tmp_path / "v.nii.gz", volume)
    scans.nifti(tmp_path / "m.nii.gz", (volume > 0).astype(np.uint8))
    made = scans.series(tmp_path / "slices", "")
    scans.segmentation(made, tmp_path / "seg.dcm", {"lesion": LESION})
    scans.nifti(tmp_path / "made.nii", np.zeros((24, 20, 6), dtype=np.uint8))
    flat = scans.dataset("anybody", np.arange(64, dtype=np.uint8).reshape(8, 8), Modality="DX")
    scans.save(flat, tmp_path / "flat.dcm")
    scans.picture(tmp_path / "flat.png", np.eye(8, dtype=np.uint8))
    (tmp_path / "manifest.csv").write_text(
        "patient,image,mask\nA,v.nii.gz,m.nii.gz\nB,slices,seg.dcm\nC,flat.dcm,flat.png\n"
    )
    registry = Registry(site)
    registry.add("mixed", tmp_path / "manifest.csv")
    summary = registry.summary("mixed")
    assert summary["kinds"] == {"nifti": 1, "dicom-series": 1, "dicom-image": 1}
    assert summary["files"] == {"used": 2 + 7 + 2, "left_out": 0}
    assert any(one.what == "mixed" for one in registry.check("mixed"))


def test_adding_again_reads_again_and_keeps_the_splits(site, tree):
    registry = Registry(site)
    registry.add("ct", tree)
    before = registry.items("ct")
    registry.add("ct", tree)
    assert registry.items("ct") == before
    scans.segmentation(scans.series(tree / "new", "ID-7"), tree / "new" / "seg.dcm", {"Liver": ORGAN})
    registry.add("ct", tree)
    splits = {item.patient: item.split for item in registry.items("ct")}
    assert len(splits) == 5
    assert all(splits[item.patient] == item.split for item in before)


def test_a_name_belongs_to_one_path(site, tree, tmp_path):
    registry = Registry(site)
    registry.add("ct", tree)
    with pytest.raises(BadInput, match="already the name"):
        registry.add("ct", scans.pictures(tmp_path / "png", 2))
    assert registry.summary("ct")["images"] == 4


def test_an_add_that_fails_leaves_the_dataset_as_it_was(site, tree):
    registry = Registry(site)
    registry.add("ct", tree)
    before = registry.summary("ct")
    for path in tree.rglob("*.dcm"):
        scans.damage(path)
    with pytest.raises(BadInput, match="nothing in it can be used"):
        registry.add("ct", tree)
    assert registry.summary("ct") == before


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "../up"])
def test_names_of_datasets_are_plain(site, tree, name):
    with pytest.raises(BadInput, match="no name for a dataset"):
        Registry(site).add(name, tree)


def test_a_folder_that_is_missing_or_empty_or_full_of_something_else_is_refused(site, tmp_path):
    registry = Registry(site)
    with pytest.raises(BadInput, match="no such file or folder"):
        registry.add("x", tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="the folder is empty"):
        registry.add("x", tmp_path / "empty")
    (tmp_path / "empty" / "a.txt").write_text("a")
    with pytest.raises(BadInput, match=r"1 files, 1 × not a DICOM file"):
        registry.add("x", tmp_path / "empty")
    with pytest.raises(BadInput, match="expected a folder with DICOM files, or a CSV"):
        registry.add("x", tmp_path / "empty" / "a.txt")
    assert registry.list() == []


def test_a_dataset_that_is_not_there_is_named_with_those_that_are(site, tree):
    registry = Registry(site)
    registry.add("ct", tree)
    with pytest.raises(BadInput, match="there is no dataset 'mr' here; there are: ct"):
        registry.summary("mr")


def test_a_damaged_registry_is_said_to_be_one(site):
    (site.home / "registry.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 40)
    with pytest.raises(InsituError, match="cannot be used"):
        Registry(site).list()


def test_a_summary_is_json_and_names_nobody(site, tree):
    registry = Registry(site)
    registry.add("ct", tree)
    text = json.dumps(registry.summary("ct"))
    assert site.pseudonym("ID-0") not in text


class TestSelecting:
    def test_the_one_dataset_that_fits_is_taken(self, site, tree, tmp_path):
        registry = Registry(site)
        registry.add("ct", tree, mapping={"Liver tumor": "lesion"})
        registry.add("png", scans.pictures(tmp_path / "png", 4))
        assert registry.select(job()) == "ct"
        assert registry.select(job(**LESIONS)) == "png"

    def refused(self, registry, wanted):
        with pytest.raises(Refused) as refused:
            registry.select(wanted)
        return refused.value.code, refused.value.detail

    def test_without_any_dataset_there_is_none(self, site):
        assert self.refused(Registry(site), job())[0] == RefusalCode.NO_DATASET

    def test_a_class_that_no_segment_has_is_refused_and_no_label_is_quoted(self, site, tree):
        registry = Registry(site)
        registry.add("ct", tree)
        code, detail = self.refused(registry, job())
        assert code == RefusalCode.LABELS
        assert "'lesion'" in detail
        assert "`insitu-client data show ct` lists the labels" in detail
        assert "Liver tumor" not in detail

    def test_a_class_less_than_the_segments_is_background(self, site, tree):
        registry = Registry(site)
        registry.add("ct", tree)
        assert registry.select(job(classes=["background", "liver"])) == "ct"

    def test_an_index_outside_the_classes_is_refused_with_the_file(self, site, tmp_path):
        folder = scans.pictures(tmp_path / "png", 4)
        scans.picture(folder / "m1-1.png", np.full((24, 32), 7, dtype=np.uint8))
        registry = Registry(site)
        registry.add("png", folder)
        code, detail = self.refused(registry, job(**LESIONS))
        assert code == RefusalCode.LABELS
        assert "has the value 7" in detail or "has the value 255" in detail

    def test_a_label_outside_the_classes_is_refused(self, site, tmp_path):
        folder = scans.pictures(tmp_path / "png", 4)
        rows = [f"p{n},i{n}-0.png,{label}" for n, label in enumerate(["benign", "malignant", "benign", "unsure"])]
        (folder / "manifest.csv").write_text("\n".join(["patient,image,label", *rows]))
        registry = Registry(site)
        registry.add("png", folder)
        wanted = job(task="classification", classes=["benign", "malignant"], images={"size": [16, 16]})
        code, detail = self.refused(registry, wanted)
        assert code == RefusalCode.LABELS
        assert "a label of 1 images" in detail
        assert "unsure" not in detail

    def test_dimensions_channels_and_spacing_have_to_agree(self, site, tmp_path):
        registry = Registry(site)
        registry.add("png", scans.pictures(tmp_path / "png", 4))
        for images, said in (
            ({"size": [16, 16, 8]}, "2 dimensions, the job wants 3"),
            ({"size": [16, 16], "channels": 3}, "1 channels, the job wants 3"),
            ({"size": [16, 16], "spacing": [1, 1]}, "spacing"),
        ):
            code, detail = self.refused(registry, job(**{**LESIONS, "images": images}))
            assert code == RefusalCode.NO_DATASET
            assert said in detail

    def test_two_that_fit_are_ambiguous_until_the_site_opens_only_one(self, make_site, tmp_path):
        folder = scans.pictures(tmp_path / "png", 4)
        north = make_site("north")
        registry = Registry(north)
        registry.add("one", folder)
        registry.add("two", folder)
        assert self.refused(registry, job(**LESIONS))[0] == RefusalCode.AMBIGUOUS_DATASET
        south = make_site("south", datasets={"one": {"jobs": ["liver*"]}, "two": {"jobs": ["skin-*"]}})
        registry = Registry(south)
        registry.add("one", folder)
        registry.add("two", folder)
        assert registry.select(job(**LESIONS)) == "one"
        assert registry.select(job(**LESIONS, name="skin-2")) == "two"
        assert self.refused(registry, job(**LESIONS, name="heart"))[0] == RefusalCode.NO_DATASET

    def test_a_patient_in_two_splits_is_never_trained_on(self, site, tmp_path):
        folder = scans.pictures(tmp_path / "png", 4)
        lines = (folder / "manifest.csv").read_text().splitlines()
        split = ["split", "training", "test", *(["training"] * 6)]
        (folder / "manifest.csv").write_text(
            "\n".join(f"{line},{part}" for line, part in zip(lines, split, strict=True))
        )
        registry = Registry(site)
        registry.add("png", folder)
        assert [one.what for one in registry.check("png") if one.severity == "error"] == ["patient-in-two-splits"]
        code, detail = self.refused(registry, job(**LESIONS))
        assert code == RefusalCode.NO_DATASET
        assert "two splits" in detail


def test_pooled_is_the_union_with_patients_and_splits_kept(make_site, tmp_path):
    sources = []
    for number, name in enumerate(("north", "south")):
        site = make_site(name)
        Registry(site).add("data", scans.pictures(tmp_path / name, 8, seed=number))
        sources.append(site)
    target = make_site("pooled")
    summary = pooled(target, "data", sources)
    assert (summary.patients, summary.images) == (16, 32)
    together = {(item.patient, item.split, item.files) for item in Registry(target).items("data")}
    apart = {(item.patient, item.split, item.files) for site in sources for item in Registry(site).items("data")}
    assert together == apart
    assert Registry(target).select(job(**LESIONS)) == "data"
