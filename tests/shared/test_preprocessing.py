import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import BadInput
from shared.job import Images
from shared.preprocessing import Preprocessing

RANDOM = np.random.default_rng(0)
# Stored as sagittal slices, head first: no axis runs where RAS runs.
AFFINE = np.array([[0, 0, 2.0, 5], [-1, 0, 0, 7], [0, -1.5, 0, -3], [0, 0, 0, 1]])


def canonical(array, affine):
    return nibabel.as_closest_canonical(nibabel.Nifti1Image(array, affine)).get_fdata()


def test_a_volume_is_turned_to_right_front_and_head():
    volume = RANDOM.normal(size=(10, 12, 8))
    prepared = Preprocessing(Images(size=(8, 10, 12))).image(volume, AFFINE)
    expected = canonical(volume, AFFINE)
    np.testing.assert_allclose(prepared[0], (expected - expected.mean()) / expected.std(), atol=1e-5)


def test_a_mask_takes_the_same_way():
    mask = RANDOM.integers(0, 3, (10, 12, 8)).astype(np.uint8)
    prepared = Preprocessing(Images(size=(8, 10, 12))).mask(mask, AFFINE)
    assert prepared.dtype == torch.int64
    np.testing.assert_array_equal(prepared[0], canonical(mask, AFFINE))


@pytest.mark.parametrize("images", [Images(size=(30, 20, 25)), Images(size=(30, 20, 25), spacing=(1.0, 1.3, 0.8))])
def test_image_and_mask_stay_on_each_other(images):
    rows, columns, slices = np.indices((20, 18, 22))
    ball = ((rows - 9) ** 2 + ((columns - 8) * 1.5) ** 2 + ((slices - 11) * 2) ** 2 / 2 < 40).astype(np.uint8)
    preprocessing = Preprocessing(images.model_copy(update={"intensity": "unit"}))
    image = preprocessing.image(ball.astype(float), AFFINE)
    mask = preprocessing.mask(ball, AFFINE)
    bright = image > 0.5
    assert float(2 * (bright & (mask > 0)).sum() / (bright.sum() + (mask > 0).sum())) > 0.93


@pytest.mark.parametrize(
    "images",
    [Images(size=(40, 30, 36), window=(50, 100)), Images(size=(60, 40, 40), spacing=(1, 0.8, 1), window=(50, 100))],
)
def test_a_distance_in_the_prepared_image_is_the_distance_in_the_patient(images):
    preprocessing = Preprocessing(images)
    centres = []
    for corner in ((3, 4, 5), (13, 4, 5), (3, 12, 5), (3, 4, 14)):
        volume = np.zeros((20, 18, 22))
        volume[tuple(slice(start, start + 3) for start in corner)] = 100
        prepared = preprocessing.image(volume, AFFINE)[0].numpy()
        weights = prepared / prepared.sum()
        centre = [(weights * axis).sum() for axis in np.indices(prepared.shape)]
        centres.append(np.array(centre) * preprocessing.spacing_after(AFFINE, volume.shape))
    apart = np.abs(np.array(centres[1:]) - centres[0])
    # Stored axes run to front (1 mm), head (1.5 mm) and right (2 mm): 10, 8 and 9 voxels of them.
    np.testing.assert_allclose(apart, [[0, 10, 0], [0, 0, 12], [18, 0, 0]], atol=0.15)


def test_spacing_after_stretching_is_the_extent_over_the_size():
    preprocessing = Preprocessing(Images(size=(4, 5, 6)))
    assert preprocessing.spacing_after(AFFINE, (10, 12, 8)) == (2.0 * 8 / 4, 1.0 * 10 / 5, 1.5 * 12 / 6)
    assert Preprocessing(Images(size=(5, 10))).spacing_after(np.diag([0.5, 0.25, 1]), (20, 20)) == (2.0, 0.5)
    assert Preprocessing(Images(size=(5, 10))).spacing_after(None, (20, 20)) is None


def test_cropping_and_padding_keep_the_centre_and_pad_with_the_darkest():
    image = np.full((10, 10), 5.0)
    image[4:6, 4:6] = 9.0
    image[0, 0] = 1.0
    prepared = Preprocessing(Images(size=(14, 6), spacing=(1, 1), intensity="unit")).image(image, np.eye(3))
    assert prepared.shape == (1, 14, 6)
    assert prepared[0, 6:8, 2:4].eq(1).all()
    assert prepared[0, :2].eq(0).all()
    mask = Preprocessing(Images(size=(14, 6), spacing=(1, 1))).mask((image == 9).astype(int), np.eye(3))
    assert torch.equal(mask[0], (prepared[0] == 1).long())


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-3, 1e6), shift=st.floats(-1e4, 1e4), seed=st.integers(0, 9))
def test_zscore_and_percentile_do_not_depend_on_a_scanners_scale(scale, shift, seed):
    image = np.random.default_rng(seed).normal(size=(12, 14))
    for intensity in ("zscore", "percentile", "unit"):
        preprocessing = Preprocessing(Images(size=(8, 8), intensity=intensity))
        one = preprocessing.image(image, None)
        other = preprocessing.image((image + shift / 1e3) * scale, None)
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_intensities_are_what_the_job_says():
    image = RANDOM.normal(50, 30, (40, 40))
    zscore = Preprocessing(Images(size=(20, 20))).image(image, None)
    assert abs(float(zscore.mean())) < 1e-5
    assert float(zscore.std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    unit = Preprocessing(Images(size=(20, 20), intensity="unit")).image(image, None)
    assert (float(unit.min()), float(unit.max())) == (0, 1)
    percentile = Preprocessing(Images(size=(20, 20), intensity="percentile")).image(image, None)
    assert 0.005 < float((percentile == 0).float().mean()) < 0.02
    window = Preprocessing(Images(size=(2000, 4), window=(40, 400)))
    prepared = window.image(np.linspace(-500, 500, 2000)[:, None].repeat(4, 1), None)
    assert (float(prepared.min()), float(prepared.max())) == (0, 1)
    assert float(prepared[0, 1080, 0]) == pytest.approx((40.27 + 160) / 400, abs=1e-3)


@pytest.mark.parametrize("intensity", ["zscore", "unit", "percentile"])
def test_a_constant_image_becomes_zeros(intensity):
    assert not Preprocessing(Images(size=(4, 4), intensity=intensity)).image(np.full((9, 9), 7.0), None).any()


def test_making_an_image_coarser_takes_noise_away_and_leaves_the_edge_as_it_was():
    noise = RANDOM.normal(size=(256, 256))
    window = Preprocessing(Images(size=(32, 32), window=(0, 20)))
    assert float(window.image(noise, None).std()) * 20 < 0.2
    flat = Preprocessing(Images(size=(8, 8), window=(0, 200))).image(np.full((64, 64), -50.0), None)
    np.testing.assert_allclose(flat, 0.25, atol=1e-6)


def test_channels_come_first_and_colours_are_scaled_together():
    image = np.stack([np.full((6, 6), value) for value in (0.0, 5.0, 10.0)], axis=-1)
    prepared = Preprocessing(Images(size=(4, 4), channels=3, intensity="unit")).image(image, None)
    assert prepared[:, 0, 0].tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("images", "shape", "said"),
    [
        (Images(size=(4, 4), channels=3), (8, 8), "1 channels, the job wants 3"),
        (Images(size=(4, 4)), (8, 8, 3), "3 channels, the job wants 1"),
        (Images(size=(4, 4)), (8, 8, 8, 1), "2 dimensions"),
        (Images(size=(4, 4), spacing=(1, 1)), (8, 8), "spacing"),
        (Images(size=(4, 4, 4)), (8, 8, 8), "affine"),
    ],
)
def test_an_image_that_does_not_fit_the_job_is_bad_input(images, shape, said):
    with pytest.raises(BadInput, match=said):
        Preprocessing(images).image(np.zeros(shape), None)


def test_the_digest_changes_with_the_job_and_with_nothing_else():
    one = Preprocessing(Images(size=(4, 4)))
    assert one.digest == Preprocessing(Images(size=(4, 4))).digest
    assert one.digest != Preprocessing(Images(size=(4, 5))).digest
    assert one.digest != Preprocessing(Images(size=(4, 4), intensity="unit")).digest


def test_the_input_is_left_as_it_was():
    image = RANDOM.normal(size=(8, 8)).astype(np.float32)
    before = image.copy()
    Preprocessing(Images(size=(8, 8))).image(image, None)
    np.testing.assert_array_equal(image, before)
