import logging
import warnings

import numpy as np
import pytest
import scans
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    RTStructureSetStorage,
)

from client.data.dicom import Instance, examine, read
from client.data.pixels import decode
from client.data.records import LeftOut

PIXELS = np.arange(40 * 36, dtype=np.uint16).reshape(40, 36)


def reason(path):
    result = examine(str(path))
    assert isinstance(result, LeftOut)
    assert result.file == str(path)
    return result.reason


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
def test_every_lossless_transfer_syntax_gives_the_same_rescaled_values(tmp_path, syntax):
    ds = scans.dataset("P1", PIXELS, RescaleSlope=2, RescaleIntercept=-1024)
    path = scans.save(ds, tmp_path / "a.dcm", syntax)
    pixels = decode(read(str(path)))
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, 2 * PIXELS.astype(np.float32) - 1024)


def test_big_endian_is_read(tmp_path):
    ds = scans.dataset("P1", PIXELS)
    ds.PixelData = PIXELS.astype(">u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(decode(read(str(tmp_path / "a.dcm"))), PIXELS)


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint16, 12), (np.uint16, 16), (np.uint8, 8), (np.int16, 16)])
def test_monochrome1_is_turned_over_so_that_large_is_bright(tmp_path, dtype, bits):
    values = np.array([[0, 5], [100, 17]], dtype=dtype)
    low = -(1 << (bits - 1)) if dtype == np.int16 else 0
    high = low + (1 << bits) - 1
    turned = (low + high - values.astype(int)).astype(dtype)
    header = {"BitsStored": bits, "HighBit": bits - 1, "RescaleSlope": 3, "RescaleIntercept": 7}
    one = scans.dataset("P1", turned, PhotometricInterpretation="MONOCHROME1", **header)
    two = scans.dataset("P1", values, **header)
    a = decode(read(str(scans.save(one, tmp_path / "1.dcm"))))
    b = decode(read(str(scans.save(two, tmp_path / "2.dcm"))))
    np.testing.assert_array_equal(a, b)


def test_ybr_becomes_rgb(tmp_path):
    grey = np.full((4, 4, 3), 128, dtype=np.uint8)
    grey[..., 0] = np.arange(16).reshape(4, 4) * 10
    ds = scans.dataset("P1", grey, PhotometricInterpretation="YBR_FULL")
    pixels = decode(read(str(scans.save(ds, tmp_path / "a.dcm"))))
    np.testing.assert_allclose(pixels, np.repeat(grey[..., :1], 3, axis=2), atol=1)


def test_a_palette_becomes_rgb(tmp_path):
    indices = np.arange(16, dtype=np.uint8).reshape(4, 4)
    ds = scans.dataset("P1", indices, PhotometricInterpretation="PALETTE COLOR")
    for colour, factor in (("Red", 1), ("Green", 2), ("Blue", 3)):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [16, 0, 8])
        setattr(ds, f"{colour}PaletteColorLookupTableData", bytes(factor * value for value in range(16)))
    pixels = decode(read(str(scans.save(ds, tmp_path / "a.dcm"))))
    np.testing.assert_array_equal(pixels[..., 2], 3 * indices.astype(np.float32))


def test_a_modality_lut_is_applied(tmp_path):
    ds = scans.dataset("P1", np.array([[0, 1], [2, 3]], dtype=np.uint8))
    lut = scans.Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType = [4, 0, 16], "US"
    lut.add_new("LUTData", "US", [10, 20, 40, 80])
    ds.ModalityLUTSequence = [lut]
    np.testing.assert_array_equal(decode(read(str(scans.save(ds, tmp_path / "a.dcm")))), [[10, 20], [40, 80]])


def test_an_image_is_measured_when_it_is_examined(tmp_path):
    ds = scans.dataset("P1", PIXELS, PixelSpacing=[0.5, 0.25])
    found = examine(str(scans.save(ds, tmp_path / "a.dcm")))
    assert isinstance(found, Instance)
    assert (found.rows, found.columns, found.channels) == (40, 36, 1)
    assert (found.minimum, found.maximum) == (0.0, 1439.0)
    assert found.spacing == (0.5, 0.25)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_damaged_pixel_data_is_found_and_named(tmp_path, syntax):
    noise = np.random.default_rng(0).integers(0, 4000, (64, 64), dtype=np.uint16)
    path = scans.save(scans.dataset("P1", noise), tmp_path / "a.dcm", syntax)
    why = reason(scans.damage(path))
    assert "damaged" in why or "cut off" in why


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_compressed_frame_that_ends_too_early_is_found(tmp_path, syntax):
    noise = np.random.default_rng(0).integers(0, 4000, (64, 64), dtype=np.uint16)
    ds = scans.dataset("P1", noise)
    scans.save(ds, tmp_path / "a.dcm", syntax)
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame[: len(frame) // 2]])
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert "damaged" in reason(tmp_path / "a.dcm")


def test_a_damaged_jpeg_ls_frame_is_found(tmp_path):
    noise = np.random.default_rng(0).integers(0, 4000, (64, 64), dtype=np.uint16)
    path = scans.save(scans.dataset("P1", noise), tmp_path / "a.dcm", JPEGLSLossless)
    content = path.read_bytes()
    path.write_bytes(content[:-4000] + b"\xff" * 100 + content[-3900:])
    assert "damaged" in reason(path)


def test_files_that_are_not_images_are_named_as_what_they_are(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert "not a DICOM file" in reason(tmp_path / "notes.txt")
    (tmp_path / "empty.dcm").write_bytes(b"")
    assert "not a DICOM file" in reason(tmp_path / "empty.dcm")
    (tmp_path / "half.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x08\x00\xff")
    assert "damaged" in reason(tmp_path / "half.dcm") or "not an image" in reason(tmp_path / "half.dcm")
    assert "cannot be opened" in reason(tmp_path / "gone.dcm")


def test_contours_are_left_out_and_said_to_be_contours(tmp_path):
    ds = scans.dataset("P1", PIXELS, kind=RTStructureSetStorage, Modality="RTSTRUCT")
    del ds.PixelData
    assert "RT structure set" in reason(scans.save(ds, tmp_path / "a.dcm"))


def test_an_image_without_pixels_is_left_out(tmp_path):
    ds = scans.dataset("P1", PIXELS)
    del ds.PixelData
    assert "no pixel data" in reason(scans.save(ds, tmp_path / "a.dcm"))


def test_a_multi_frame_image_is_left_out_with_its_number_of_frames(tmp_path):
    ds = scans.dataset("P1", np.zeros((4, 4), dtype=np.uint8), NumberOfFrames=3, PixelData=bytes(48))
    assert "3 frames" in reason(scans.save(ds, tmp_path / "a.dcm"))


def test_an_image_of_nobody_is_left_out(tmp_path):
    assert "PatientID" in reason(scans.save(scans.dataset(" ", PIXELS), tmp_path / "a.dcm"))


def test_nothing_of_a_header_reaches_warnings_or_logs(tmp_path, caplog):
    ds = scans.dataset("SECRET-ID", PIXELS, PatientBirthDate="", PatientName="Doe^Jane^" + "x" * 90)
    path = scans.save(ds, tmp_path / "a.dcm")
    content = path.read_bytes().replace(b"20200101", b"SECRET-1")
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        examine(str(path))
    assert not any("SECRET" in str(warning.message) for warning in caught)
    assert "SECRET" not in caplog.text
