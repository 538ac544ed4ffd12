import highdicom
import numpy as np
import pytest
import scans

from client.data.dicom import examine
from client.data.series import assemble

OBLIQUE = (0.9541666, -0.2080757, 0.2151061, 0.2785886, 0.880128, -0.3843997)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def assembled(folder):
    return assemble([examine(str(path)) for path in sorted(folder.rglob("*.dcm"))])


def reasons(left_out):
    return {one.reason for one in left_out}


@pytest.mark.parametrize("orientation", [scans.AXIAL, SAGITTAL, OBLIQUE])
def test_slices_become_one_volume_in_geometric_order_whatever_their_names(tmp_path, orientation):
    made = scans.series(tmp_path, orientation=orientation)
    (image,), left_out = assembled(tmp_path)
    assert not left_out
    assert image.picture.shape == (24, 20, 6)
    assert image.picture.spacing == pytest.approx((1.5, 1.25, 3.0), abs=1e-5)
    order = [ds.SOPInstanceUID for ds in made]
    assert [one.instance for one in image.instances] in (order, order[::-1])
    volume = highdicom.get_volume_from_series(made).permute_spatial_axes([1, 2, 0])
    np.testing.assert_allclose(image.picture.affine, volume.get_affine("RAS"), atol=1e-5)


def test_the_affine_takes_a_voxel_to_where_the_header_says_it_is(tmp_path):
    made = scans.series(tmp_path, orientation=OBLIQUE)
    (image,), _ = assembled(tmp_path)
    by_uid = {ds.SOPInstanceUID: ds for ds in made}
    for k, instance in enumerate(image.instances):
        position = np.array(image.picture.affine) @ [0, 0, k, 1]
        expected = np.array(by_uid[instance.instance].ImagePositionPatient, dtype=float) * [-1, -1, 1]
        np.testing.assert_allclose(position[:3], expected, atol=1e-4)


def test_a_missing_slice_is_a_gap(tmp_path):
    scans.series(tmp_path)
    positions = {p: scans.read(p).ImagePositionPatient[2] for p in tmp_path.glob("*.dcm")}
    next(path for path, z in positions.items() if z == 36.0).unlink()
    images, left_out = assembled(tmp_path)
    assert not images
    assert len(left_out) == 5
    assert "a gap (1 of 6 missing" in reasons(left_out).pop()


def test_two_images_at_one_position_are_refused(tmp_path):
    made = scans.series(tmp_path)
    second = made[2].copy()
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = scans.generate_uid()
    scans.save(second, tmp_path / "echo.dcm")
    images, left_out = assembled(tmp_path)
    assert not images
    assert "7 images at 6 positions" in reasons(left_out).pop()


def test_uneven_distances_are_refused(tmp_path):
    for k, made in enumerate(scans.series(tmp_path, slices=4)):
        made.ImagePositionPatient = [0.0, 0.0, [0.0, 3.0, 6.6, 9.0][k]]
        scans.save(made, tmp_path / f"{made.InstanceNumber - 1:03d}.dcm")
    _, left_out = assembled(tmp_path)
    assert "distances from 2.40 to 3.60 mm" in reasons(left_out).pop()


def test_positions_rounded_to_hundredths_are_still_one_volume(tmp_path):
    for k, made in enumerate(scans.series(tmp_path, slices=5)):
        made.ImagePositionPatient = [0.0, 0.0, round(k * 0.625, 2)]
        scans.save(made, tmp_path / f"{made.InstanceNumber - 1:03d}.dcm")
    images, left_out = assembled(tmp_path)
    assert len(images) == 1
    assert not left_out


def test_a_tilted_gantry_is_refused(tmp_path):
    for k, made in enumerate(scans.series(tmp_path, slices=4)):
        made.ImagePositionPatient = [0.0, 1.2 * k, 3.0 * k]
        scans.save(made, tmp_path / f"{made.InstanceNumber - 1:03d}.dcm")
    _, left_out = assembled(tmp_path)
    assert "tilted" in reasons(left_out).pop()


def test_a_copy_of_a_file_is_left_out_once(tmp_path):
    made = scans.series(tmp_path)
    scans.save(made[0], tmp_path / "again.dcm")
    images, left_out = assembled(tmp_path)
    assert len(images) == 1
    assert ["a copy" in one.reason for one in left_out] == [True]


def test_localizers_are_left_out(tmp_path):
    scans.series(tmp_path / "scout", slices=2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    images, left_out = assembled(tmp_path)
    assert not images
    assert reasons(left_out) == {"a localizer"}


def test_a_stray_orientation_does_not_spoil_its_series(tmp_path):
    made = scans.series(tmp_path)
    stray = made[0].copy()
    stray.SOPInstanceUID = stray.file_meta.MediaStorageSOPInstanceUID = scans.generate_uid()
    stray.ImageOrientationPatient = list(SAGITTAL)
    scans.save(stray, tmp_path / "stray.dcm")
    (image,), left_out = assembled(tmp_path)
    assert len(image.instances) == 6
    assert len(left_out) == 1


def test_flat_images_stay_flat_even_several_to_a_series(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for number in range(3):
        ds = scans.dataset("P1", pixels + number, Modality="DX", SeriesInstanceUID="1.2.3", PixelSpacing=[0.2, 0.1])
        scans.save(ds, tmp_path / f"{number}.dcm")
    images, left_out = assembled(tmp_path)
    assert [image.picture.dimensions for image in images] == [2, 2, 2]
    assert images[0].picture.spacing == (0.2, 0.1)
    assert not left_out


def test_one_series_number_under_two_patients_is_two_volumes(tmp_path):
    scans.series(tmp_path / "a", "P1", slices=3, SeriesInstanceUID="1.2.3")
    scans.series(tmp_path / "b", "P2", slices=3, SeriesInstanceUID="1.2.3")
    images, _ = assembled(tmp_path)
    assert {image.patient for image in images} == {"P1", "P2"}
