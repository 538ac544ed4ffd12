import numpy as np
import pytest
import scans

from client.data import images
from client.data.labels import class_index, class_mask, count, index_mask
from client.data.records import Item, Picture, Unusable
from shared.errors import InsituError, RefusalCode, Refused

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def item(path, mask, **more):
    return Item(
        patient="p",
        split="train",
        kind="nifti" if images.is_nifti(str(path)) else "picture",
        files=(str(path),),
        picture=images.examine(str(path)),
        masks=(str(mask),),
        **more,
    )


def test_labels_match_classes_by_name_without_capitals_and_through_the_mapping():
    classes = ("background", "Liver", "lesion")
    assert class_index(" LIVER ", classes, {}) == 1
    assert class_index("Liver tumor", classes, {"liver TUMOR ": "Lesion"}) == 2
    assert class_index("Spleen", classes, {}) is None
    assert class_index("liver", classes, {"liver": "nothing of the sort"}) is None


@pytest.mark.parametrize("bright", [1, 255])
def test_a_black_and_white_mask_has_two_classes(tmp_path, bright):
    image = scans.picture(tmp_path / "i.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    values = np.zeros((8, 8), dtype=np.uint8)
    values[2:4] = bright
    mask = scans.picture(tmp_path / "m.png", values)
    np.testing.assert_array_equal(class_mask(item(image, mask), ("background", "lesion"), {}), values > 0)


@pytest.mark.parametrize(("values", "classes"), [([0, 2], 2), ([0, 1, 255], 2), ([0, 1, 3], 3), ([0, 255], 3)])
def test_an_index_outside_the_classes_is_refused_with_pseudonym_and_value(tmp_path, values, classes):
    image = scans.picture(tmp_path / "i.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    mask = scans.picture(tmp_path / "m.png", np.resize(np.array(values, dtype=np.uint8), (8, 8)))
    drawn = item(image, mask)
    with pytest.raises(Refused) as refused:
        class_mask(drawn, [f"class {n}" for n in range(classes)], {})
    assert refused.value.code == RefusalCode.LABELS
    assert f"patient {drawn.patient} " in refused.value.detail
    assert "m.png" not in refused.value.detail
    assert str(values[-1]) in refused.value.detail


def test_a_palette_mask_is_read_as_its_indices(tmp_path):
    from PIL import Image

    values = np.resize(np.array([0, 1, 2], dtype=np.uint8), (8, 8))
    mask = Image.fromarray(values)
    mask.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10])
    mask.save(tmp_path / "m.png")
    np.testing.assert_array_equal(images.read_indices(str(tmp_path / "m.png")), values)


def test_a_coloured_mask_and_a_jpeg_mask_are_refused(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    with pytest.raises(Unusable, match="coloured"):
        images.read_indices(str(scans.picture(tmp_path / "m.png", colours)))
    with pytest.raises(Unusable, match="PNG"):
        images.read_indices(str(scans.picture(tmp_path / "m.jpg", colours)))


def test_masks_stored_as_floats_are_class_indices_if_they_are_whole(tmp_path):
    picture = images.examine(str(scans.nifti(tmp_path / "i.nii.gz", np.zeros((4, 5, 6), dtype=np.float32), AFFINE)))
    values = np.resize([0.0, 1.0, 2.0], (4, 5, 6)).astype(np.float64)
    mask = scans.nifti(tmp_path / "m.nii.gz", values, AFFINE)
    np.testing.assert_array_equal(index_mask(str(mask), picture), values)
    halves = scans.nifti(tmp_path / "h.nii.gz", values / 2, AFFINE)
    with pytest.raises(Unusable, match="whole numbers"):
        index_mask(str(halves), picture)


def test_a_mask_of_another_shape_is_refused_with_both_shapes(tmp_path):
    picture = images.examine(str(scans.nifti(tmp_path / "i.nii", np.zeros((4, 5, 6), dtype=np.uint8), AFFINE)))
    mask = scans.nifti(tmp_path / "m.nii", np.zeros((4, 5, 7), dtype=np.uint8), AFFINE)
    with pytest.raises(Unusable, match=r"4 × 5 × 7.*4 × 5 × 6"):
        index_mask(str(mask), picture)


def test_a_mask_elsewhere_in_space_is_refused_though_its_shape_fits(tmp_path):
    picture = images.examine(str(scans.nifti(tmp_path / "i.nii", np.zeros((4, 5, 6), dtype=np.uint8), AFFINE)))
    moved = AFFINE.copy()
    moved[0, 3] = 10.0
    mask = scans.nifti(tmp_path / "m.nii", np.zeros((4, 5, 6), dtype=np.uint8), moved)
    with pytest.raises(Unusable, match="different places"):
        index_mask(str(mask), picture)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_a_mask_with_turned_axes_is_turned_to_its_image(tmp_path, axes, flips):
    values = np.random.default_rng(1).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    picture = images.examine(str(scans.nifti(tmp_path / "i.nii", values, AFFINE)))
    turned = np.flip(values.transpose(axes), flips)
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for new, old in enumerate(axes):
        step[old, new] = -1 if new in flips else 1
        step[old, 3] = values.shape[old] - 1 if new in flips else 0
    mask = scans.nifti(tmp_path / "m.nii", np.ascontiguousarray(turned), AFFINE @ step)
    np.testing.assert_array_equal(index_mask(str(mask), picture), values)


def test_a_later_class_wins_where_segments_overlap(tmp_path):
    made = scans.series(tmp_path)
    organ = scans.box((6, 24, 20), slice(1, 5), slice(4, 16), slice(3, 12))
    lesion = scans.box((6, 24, 20), slice(2, 4), slice(6, 9), slice(5, 9))
    scans.segmentation(made, tmp_path / "seg.dcm", {"Lesion": lesion, "Liver": organ, "Spine": ~organ})
    files = [str(p) for p in sorted(tmp_path.glob("0*.dcm"), key=lambda p: scans.read(p).ImagePositionPatient[2])]
    picture = Picture(
        shape=(24, 20, 6), channels=1, affine=tuple(map(tuple, np.eye(4))), minimum=0, maximum=1, fingerprint=""
    )
    volume = Item(
        patient="p",
        split="train",
        kind="dicom-series",
        files=tuple(files),
        picture=picture,
        masks=(str(tmp_path / "seg.dcm"),),
        segments={"Lesion": 1, "Liver": 1, "Spine": 1},
    )
    mask = class_mask(volume, ("background", "liver", "tumour"), {"lesion": "tumour"})
    np.testing.assert_array_equal(np.moveaxis(mask, 2, 0), np.where(lesion, 2, organ))


def test_a_mask_that_is_gone_says_to_add_again(tmp_path):
    image = scans.picture(tmp_path / "i.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    with pytest.raises(InsituError, match="add"):
        class_mask(item(image, tmp_path / "gone.png"), ("background", "lesion"), {})


def test_hundreds_of_values_are_no_class_indices():
    with pytest.raises(Unusable, match="300 different values"):
        count(np.arange(300))
