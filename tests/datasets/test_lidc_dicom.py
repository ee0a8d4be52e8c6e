"""LIDC from the CT: a miniature of TCIA's tree under the real outlines of a few nodules."""

from __future__ import annotations

import math
import os
from collections import Counter

import numpy as np
import pydicom
import pytest
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from multirater.datasets.lidc_cases import UID_ROOT
from multirater.datasets.lidc_dicom import DicomCases, _nodules
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

PAD = -2000  # stored outside of the reconstruction circle
pytestmark = pytest.mark.usefixtures("own_cache")


def lidc(root, **options):
    return open_dataset("lidc", root=str(root), preparation="dicom", **options)


def stored(z):
    """Values of a slice: every pixel has its own, and the rim is padding."""
    rows, columns = np.mgrid[:512, :512]
    values = (rows * 3 + columns * 2 + round(z * 7)) % 1800
    values[(rows - 256) ** 2 + (columns - 256) ** 2 > 250**2] = PAD
    return values.astype(np.int16)


def write(path, series, z, spacing, modality="CT", **changes):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(z)])
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", data.file_meta.MediaStorageSOPInstanceUID
    data.Modality, data.SeriesInstanceUID = modality, series
    data.ImagePositionPatient = [-180.0, -180.0, z]
    data.SliceLocation = -z  # in some scanners' own direction
    data.PixelSpacing = [spacing, spacing]
    data.RescaleSlope, data.RescaleIntercept = 1.0, -1024.0
    data.Rows = data.Columns = 512
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.PixelData = stored(z).tobytes()
    for key, value in changes.items():
        setattr(data, key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """CT of the first nodules' scans of the set `mid`, and radiographs; names that do not sort like z."""
    root = tmp_path_factory.mktemp("tcia")
    chosen, scans = [], {}
    for patient, cases in _nodules("mid", "all")[:6]:
        chosen.append((patient, cases))
        wanted = scans.setdefault(cases.scene.scan, (patient, cases, set()))[2]
        z = cases.z[cases.slices[0]]
        wanted |= {z - cases.scene.distance, z, z + cases.scene.distance}
    for scan, (patient, cases, positions) in scans.items():
        study = root / "LIDC-IDRI" / patient / "01-01-2000-NA-NA-30178"
        for k, z in enumerate(sorted(positions, reverse=True)):
            write(study / "3000566-NA-03192" / f"1-{k + 1:03d}.dcm", UID_ROOT + scan, z, cases.scene.spacing)
        (study / "3000566-NA-03192" / "069.xml").write_text("<LidcReadMessage/>")
        write(study / "3000923-NA-62357" / "1-1.dcm", UID_ROOT + "9" + scan[1:], 0.0, 0.2, modality="CR")
    return root, chosen


def test_the_real_crop_under_the_outlines(tree):
    root, chosen = tree
    data = lidc(root, identity="as_stored")
    assert len(data) == len(chosen)
    simulated = open_dataset("lidc-contours")
    images, masks, valid = data.arrays(range(len(data)))
    assert valid.all()
    by_id = {record.case_id: i for i, record in enumerate(data.records)}
    for patient, cases in chosen:
        index = cases.slices[0]
        record = cases.record(patient, index, "")
        i = by_id[record["case_id"]]  # the same id as in lidc-contours
        top, left = cases.corner
        values = stored(cases.z[index]).astype(float) - 1024
        padded = np.pad(values, 128, constant_values=-1024)
        crop = padded[top + 128 : top + 256, left + 128 : left + 256]
        expected = np.clip((np.clip(crop, -1024, 1500) + 1000) / 1400, 0, 1)
        np.testing.assert_allclose(images[i, 0], expected, atol=1e-6)
        np.testing.assert_array_equal(masks[i], cases.masks()[:, index])
        found = data.records[i]
        assert found.patient_id == patient
        assert found.spacing == pytest.approx([cases.scene.spacing] * 2)
        assert found.meta["simulated"] is False
        assert "seed" not in found.meta
    assert "is not below the root" in data.full_notice  # of most scans of the set
    assert "simulated" not in data.full_notice
    assert data.split_name == simulated.split_name == "fixed"
    centre = lidc(root, identity="as_stored", crop=64).arrays([0])
    np.testing.assert_array_equal(centre[1], masks[:1, :, 32:96, 32:96])


def test_identities_are_those_of_lidc_contours(tree):
    root, chosen = tree
    data = lidc(root, identity="by_area")
    volumes = {cases.record(p, cases.slices[0], "")["case_id"]: cases.areas.sum(1) for p, cases in chosen}
    order = data.describe()
    assert (order.identity, order.rater_ids) == ("derived", ("area1", "area2", "area3", "area4"))
    stored_masks = lidc(root, identity="as_stored").arrays(range(len(data)))[1]
    for i, record in enumerate(data.records):
        ranked = np.argsort(volumes[record.case_id], kind="stable")
        np.testing.assert_array_equal(data.arrays([i])[1][0], stored_masks[i][ranked])
    sparse = lidc(root, identity="group_sparse").describe()
    assert (sparse.identity, sparse.raters, sparse.has_missing) == ("consistent", 6, True)
    persona = lidc(root, identity="persona").describe()
    assert (persona.identity, persona.rater_ids[0]) == ("synthetic", "strict")


def test_headers_are_read_once(tree, monkeypatch):
    root, chosen = tree
    lidc(root).prepare()
    read = pydicom.dcmread

    def counted(path, **options):
        assert not options.get("stop_before_pixels"), "a header was read again"
        return read(path, **options)

    monkeypatch.setattr(pydicom, "dcmread", counted)
    assert len(DicomCases(root, "mid", "none").list_cases()) == len(chosen)


def one_scan(root, **changes):
    nodules = _nodules("mid", "all")
    scans = Counter(cases.scene.scan for _, cases in nodules)
    patient, cases = next((p, c) for p, c in nodules if scans[c.scene.scan] == 1)
    z = cases.z[cases.slices[0]]
    options = {"z": z, "spacing": cases.scene.spacing, **changes}
    path = root / patient / "study/series/1-01.dcm"
    write(path, UID_ROOT + cases.scene.scan, **options)
    return path


def test_files_that_are_wrong(tmp_path):
    def refused(match, **options):
        with pytest.raises(UserError, match=match) as caught:
            lidc(tmp_path, **options).prepare()
        assert "\n" not in str(caught.value)

    refused(r"holds no CT series of LIDC-IDRI")
    path = one_scan(tmp_path)
    assert len(lidc(tmp_path)) == 1
    one_scan(tmp_path, z=1e4)
    refused(r"study/series has no slice at z = .*nearest is at 10000")
    one_scan(tmp_path, spacing=1.5)
    refused(r"1-01\.dcm has pixels of 1\.5 mm, but the outlines were drawn on")
    one_scan(tmp_path, RescaleSlope=None)
    refused(r"1-01\.dcm has no pixels in HU that can be read")
    one_scan(tmp_path, ImagePositionPatient=None)
    refused(r"1-01\.dcm has no ImagePositionPatient")
    one_scan(tmp_path, RescaleSlope=math.nan)
    refused(r"1-01\.dcm has no pixels in HU that can be read")
    one_scan(tmp_path, spacing=math.nan)
    refused(r"1-01\.dcm has no pixels in HU that can be read .*spacing nan")
    path = one_scan(tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    refused(r"1-01\.dcm has no pixels in HU that can be read")
    path.write_bytes(b"no dicom at all")
    refused(r"1-01\.dcm is damaged or no DICOM file")
    refused("set dataset.crop, not dataset.size", size=32)
    with pytest.raises(UserError, match=r"identity=group.* of preparation dicom"):
        open_dataset("lidc", root=str(tmp_path), preparation="mm", identity="group")


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (lambda path: path.symlink_to("not/there"), r"1-01\.dcm is damaged or no DICOM file .*; get it again"),
        (os.mkfifo, r"1-01\.dcm is a pipe or a device, not a file; remove it"),
    ],
)
def test_a_link_to_nothing_and_a_pipe_are_told_not_followed(tmp_path, replace, message):
    path = one_scan(tmp_path)
    path.unlink()
    replace(path)
    with pytest.raises(UserError, match=message):
        lidc(tmp_path).prepare()
