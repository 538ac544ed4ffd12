import highdicom
import numpy as np
import pytest
import scans

from client.data.dicom import examine
from client.data.records import Unusable
from client.data.segmentation import lay
from client.data.series import assemble

SHAPE = (6, 24, 20)
ORGAN = scans.box(SHAPE, slice(1, 5), slice(4, 16), slice(3, 12))
LESION = scans.box(SHAPE, slice(2, 4), slice(6, 9), slice(5, 9))


@pytest.fixture
def volume(tmp_path):
    made = scans.series(tmp_path / "ct")
    (image,), _ = assemble([examine(str(path)) for path in (tmp_path / "ct").iterdir()])
    return made, image


def on_grid(masks, made, image):
    """[slice, row, column] in the order of `made` → [row, column, slice] in the order of the image."""
    order = [ds.SOPInstanceUID for ds in made]
    return np.stack([masks[order.index(instance.instance)] for instance in image.instances], axis=-1)


def laid(path, image):
    return lay(str(path), [instance.instance for instance in image.instances], image.picture)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segments_lie_on_the_voxels_they_were_drawn_on(tmp_path, volume, kind):
    made, image = volume
    organ = ORGAN & ~LESION  # a label map cannot hold overlaps
    dtype = np.float32 if kind == "FRACTIONAL" else np.uint8
    masks = {"Liver": organ.astype(dtype), "Liver tumor": LESION.astype(dtype)}
    if kind == "LABELMAP":
        whole = (organ + 2 * LESION).astype(np.uint8)
        _label_map(made, tmp_path / "seg.dcm", whole)
    else:
        scans.segmentation(made, tmp_path / "seg.dcm", masks, kind)
    found = laid(tmp_path / "seg.dcm", image)
    assert found.placed == found.marked == organ.sum() + LESION.sum()
    np.testing.assert_array_equal(found.masks["Liver"], on_grid(organ, made, image))
    np.testing.assert_array_equal(found.masks["Liver tumor"], on_grid(LESION, made, image))


def _label_map(made, path, whole):
    described = [
        highdicom.seg.SegmentDescription(number, label, scans.codes.SCT.Organ, scans.codes.SCT.Liver, "MANUAL")
        for number, label in ((1, "Liver"), (2, "Liver tumor"))
    ]
    uid = scans.generate_uid
    highdicom.seg.Segmentation(
        made, whole, "LABELMAP", described, uid(), 1, uid(), 1, "Acme", "model", "1", "1"
    ).save_as(path)


def test_overlapping_segments_keep_all_their_voxels(tmp_path, volume):
    made, image = volume
    scans.segmentation(made, tmp_path / "seg.dcm", {"Liver": ORGAN, "Liver tumor": LESION})
    found = laid(tmp_path / "seg.dcm", image)
    assert found.masks["Liver"].sum() == ORGAN.sum()
    assert found.masks["Liver tumor"].sum() == LESION.sum()


def test_a_segmentation_stored_the_other_way_round_comes_out_the_right_way(tmp_path, volume):
    made, image = volume
    scans.segmentation(made[::-1], tmp_path / "seg.dcm", {"Liver": ORGAN[::-1]})
    np.testing.assert_array_equal(laid(tmp_path / "seg.dcm", image).masks["Liver"], on_grid(ORGAN, made, image))


def test_a_segmentation_of_some_slices_is_empty_on_the_others(tmp_path, volume):
    made, image = volume
    scans.segmentation(made[2:4], tmp_path / "seg.dcm", {"Liver": ORGAN[2:4]})
    expected = np.zeros_like(ORGAN)
    expected[2:4] = ORGAN[2:4]
    np.testing.assert_array_equal(laid(tmp_path / "seg.dcm", image).masks["Liver"], on_grid(expected, made, image))


def test_without_references_the_positions_say_where_a_frame_lies(tmp_path, volume):
    made, image = volume
    scans.segmentation(made, tmp_path / "seg.dcm", {"Liver": ORGAN})
    ds = scans.read(tmp_path / "seg.dcm")
    for group in ds.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    ds.save_as(tmp_path / "seg.dcm")
    found = laid(tmp_path / "seg.dcm", image)
    np.testing.assert_array_equal(found.masks["Liver"], on_grid(ORGAN, made, image))


def test_a_segmentation_of_a_part_of_the_picture_lands_on_that_part(tmp_path, volume):
    made, image = volume
    source = highdicom.get_volume_from_series(made)
    mask = source.with_array(ORGAN.astype(np.uint8) if _same_order(source, made) else ORGAN[::-1].astype(np.uint8))
    part = mask[1:5, 3:20, 2:14]
    described = highdicom.seg.SegmentDescription(1, "Liver", scans.codes.SCT.Organ, scans.codes.SCT.Liver, "MANUAL")
    uid = scans.generate_uid
    highdicom.seg.Segmentation(
        made, part, "BINARY", [described], uid(), 1, uid(), 1, "Acme", "model", "1", "1"
    ).save_as(tmp_path / "seg.dcm")
    found = laid(tmp_path / "seg.dcm", image)
    np.testing.assert_array_equal(found.masks["Liver"], on_grid(ORGAN, made, image))


def _same_order(source, made):
    return np.allclose(source.affine[:3, 3], np.array(made[0].ImagePositionPatient, dtype=float))


def test_it_agrees_with_highdicom_on_the_same_grid(tmp_path, volume):
    made, image = volume
    scans.segmentation(made[1:], tmp_path / "seg.dcm", {"Liver": ORGAN[1:], "Liver tumor": LESION[1:]})
    theirs = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=False)
    theirs = theirs.match_geometry(highdicom.get_volume_from_series(made)).permute_spatial_axes([1, 2, 0])
    if not np.allclose(theirs.get_affine("RAS"), image.picture.affine):
        theirs = theirs.flip_spatial(2)
    np.testing.assert_allclose(theirs.get_affine("RAS"), image.picture.affine, atol=1e-6)
    found = laid(tmp_path / "seg.dcm", image)
    for channel, label in enumerate(("Liver", "Liver tumor")):
        np.testing.assert_array_equal(found.masks[label], theirs.array[..., channel].astype(bool))


def test_a_segmentation_on_another_grid_is_refused_with_both_shapes(tmp_path, volume):
    _, image = volume
    other = scans.series(tmp_path / "other", size=(12, 10), spacing=(3.0, 2.5, 3.0))
    scans.segmentation(other, tmp_path / "seg.dcm", {"Liver": np.ones((6, 12, 10), dtype=bool)})
    with pytest.raises(Unusable, match=r"\[12, 10\].*\[24, 20\]"):
        laid(tmp_path / "seg.dcm", image)


def test_a_damaged_segmentation_is_refused(tmp_path, volume):
    made, image = volume
    scans.segmentation(made, tmp_path / "seg.dcm", {"Liver": ORGAN})
    with pytest.raises(Unusable):
        laid(scans.damage(tmp_path / "seg.dcm"), image)


def test_a_flat_image_without_a_place_in_space_can_be_segmented(tmp_path):
    ds = scans.dataset("P1", np.zeros((16, 12), dtype=np.uint8), Modality="DX", PixelSpacing=[1, 1])
    scans.save(ds, tmp_path / "a.dcm")
    (image,), _ = assemble([examine(str(tmp_path / "a.dcm"))])
    mask = scans.box((1, 16, 12), slice(0, 1), slice(2, 5), slice(3, 9))
    scans.segmentation([ds], tmp_path / "seg.dcm", {"Lung": mask})
    np.testing.assert_array_equal(laid(tmp_path / "seg.dcm", image).masks["Lung"], mask[0])
