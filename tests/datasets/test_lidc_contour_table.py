"""The shipped LIDC outlines and their rasteriser: row counts, quirks of the database, what an outline encloses."""

from __future__ import annotations

import importlib.util
import shutil
import sqlite3
from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets.contours import (
    DATA_FILE,
    RATINGS,
    ContourTable,
    Volume,
    fill_contour,
    load_contours,
    rasterise,
)
from multirater.datasets.nodules import reading_group


@pytest.fixture(scope="module")
def table() -> ContourTable:
    return load_contours()


def made_table(*contours: tuple[int, bool, int, list[tuple[int, int]]]) -> ContourTable:
    """A table of one scan from (annotation, inclusion, slice, points)."""
    annotations = sorted({c[0] for c in contours})
    chains = [np.array(c[3]) for c in contours]
    return ContourTable(
        scan_patient=np.array([1]),
        scan_study=np.array([b"1"]),
        scan_series=np.array([b"2"]),
        scan_spacing=np.array([0.5]),
        scan_thickness=np.array([1.0]),
        scan_distance=np.array([1.0]),
        scan_matting=np.array([False]),
        annotation_id=np.array([a + 1 for a in annotations]),
        annotation_scan=np.zeros(len(annotations), int),
        annotation_mark=np.array([b"0"] * len(annotations)),
        annotation_ratings=np.ones((len(annotations), len(RATINGS)), np.int8),
        contour_annotation=np.array([c[0] for c in contours]),
        contour_inclusion=np.array([c[1] for c in contours]),
        contour_slice=np.array([c[2] for c in contours]),
        contour_z=np.array([float(c[2]) for c in contours]),
        contour_start=np.array([chain[0] for chain in chains]),
        contour_length=np.array([len(chain) for chain in chains]),
        steps=np.concatenate([np.diff(chain, axis=0) for chain in chains]).astype(np.int8),
    )


def square(low: int, high: int) -> list[tuple[int, int]]:
    return [(low, low), (high, low), (high, high), (low, high), (low, low)]


def test_the_file_holds_the_whole_database_in_less_than_a_megabyte(table: ContourTable) -> None:
    assert len(table.scan_patient) == 1018
    assert len(np.unique(table.scan_patient)) == 1010
    assert len(table.annotation_id) == 6859
    assert len(np.unique(table.annotation_scan)) == 883
    assert len(table.contour_annotation) == 41_406
    assert table.contour_length.sum() == len(table.steps) + 41_406
    assert table.steps.dtype == np.int8
    assert DATA_FILE.stat().st_size < 1_000_000


def test_points_follow_start_and_steps(table: ContourTable) -> None:
    points, offsets = table.points()
    np.testing.assert_array_equal(points[offsets[:-1]], table.contour_start)
    for contour in (0, 20_000, 41_405):
        first_step = offsets[contour] - contour
        chain = points[offsets[contour] : offsets[contour + 1]]
        np.testing.assert_array_equal(np.diff(chain, axis=0), table.steps[first_step : first_step + len(chain) - 1])
    assert (points.min(), points.max()) == (10, 495)


def test_quirks_of_the_database(table: ContourTable) -> None:
    points, offsets = table.points()
    closed = (points[offsets[:-1]] == points[offsets[1:] - 1]).all(1)
    inner_step = np.ones(len(points) - 1, bool)
    inner_step[offsets[1:-1] - 1] = False
    reach = np.abs(np.diff(points, axis=0)).max(1) * inner_step
    assert np.count_nonzero(~closed) == 75
    assert np.count_nonzero(np.maximum.reduceat(np.append(reach, 0), offsets[:-1]) > 1) == 406
    assert np.count_nonzero(table.contour_length <= 3) == 17
    exclusions = table.contour_annotation[~table.contour_inclusion]
    assert (len(exclusions), len(np.unique(exclusions))) == (992, 226)
    annotated = np.unique(table.annotation_scan)
    assert np.count_nonzero(np.abs(table.scan_distance - table.scan_thickness)[annotated] > 1e-3) == 302
    scans = Counter(table.scan_patient.tolist())
    assert sorted(p for p, n in scans.items() if n > 1) == [132, 151, 315, 332, 355, 365, 442, 484]
    assert table.scan_matting.sum() == 214


def test_marks_fall_into_the_reading_groups(table: ContourTable) -> None:
    groups = Counter(reading_group(mark.decode()) for mark in table.annotation_mark)
    assert groups == {"N": 1361, "I": 614, "M": 355, "S": 1312, "L": 3205, "O": 12}


def test_the_impossible_internal_structure_counts_as_soft_tissue(table: ContourTable) -> None:
    (wrong,) = np.flatnonzero(table.annotation_ratings[:, RATINGS.index("internal_structure")] == 5)
    assert table.ratings([wrong])["internal_structure"] == 1
    assert table.annotation_ratings[wrong, RATINGS.index("internal_structure")] == 5


def test_ratings_are_means_over_readers() -> None:
    table = made_table((0, True, 0, square(0, 3)), (1, True, 0, square(0, 3)))
    table.annotation_ratings[0, RATINGS.index("margin")] = 4
    assert table.ratings([0, 1])["margin"] == 2.5


def test_a_damaged_file_is_refused(tmp_path) -> None:
    copy = tmp_path / "lidc_contours.npz"
    shutil.copy(DATA_FILE, copy)
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="damaged: SHA-256"):
        load_contours(copy)
    with pytest.raises(UserError, match="missing"):
        load_contours(tmp_path / "none.npz")


@pytest.mark.parametrize("points", [square(2, 6), square(2, 6)[:-1], square(2, 6)[::-1]])
def test_the_outline_is_outside_whatever_closure_and_orientation(points) -> None:
    filled = fill_contour(np.array(points), (0, 0), (9, 9), outline=False)
    expected = np.zeros((9, 9), bool)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(filled, expected)
    assert fill_contour(np.array(points), (0, 0), (9, 9), outline=True).sum() == 25


def test_x_is_the_column() -> None:
    wide = np.array([(0, 0), (6, 0), (6, 2), (0, 2)])
    np.testing.assert_array_equal(np.argwhere(fill_contour(wide, (0, 0), (3, 7), False)), [(1, x) for x in range(1, 6)])


@pytest.mark.parametrize("points", [[(3, 3), (4, 3)], [(3, 3), (4, 4), (5, 3)]])
def test_tiny_contours_enclose_nothing(points) -> None:
    assert not fill_contour(np.array(points), (0, 0), (8, 8), outline=False).any()


def test_inclusions_join_and_exclusions_cut_whatever_their_order() -> None:
    hole = (0, False, 5, square(4, 8))
    parts = [(0, True, 5, square(0, 12)), (0, True, 5, square(20, 24)), (0, True, 7, square(0, 4))]
    for contours in ([hole, *parts], [*parts, hole]):
        volume = rasterise(made_table(*contours))[0]
        assert volume.origin == (5, 0, 0)
        assert volume.voxels.sum((1, 2)).tolist() == [11 * 11 - 3 * 3 + 3 * 3, 0, 3 * 3]
    whole = rasterise(made_table(*parts, hole), cut_exclusion_outline=True)[0]
    assert whole.voxels.sum((1, 2)).tolist() == [11 * 11 - 5 * 5 + 3 * 3, 0, 3 * 3]


def test_a_window_is_zero_outside_the_volume() -> None:
    volume = Volume(np.ones((2, 3, 4), bool), (10, 20, 30))
    window = volume.window((9, 21, 28), (5, 5, 5))
    expected = np.zeros((5, 5, 5), bool)
    expected[1:3, 0:2, 2:5] = True
    np.testing.assert_array_equal(window, expected)
    assert not volume.window((0, 0, 0), (3, 3, 3)).any()


@pytest.fixture(scope="module")
def packer():
    """The build script, which stands beside the data and is no module of the package."""
    spec = importlib.util.spec_from_file_location("build_lidc_contours", DATA_FILE.parent / "build_lidc_contours.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_packing_loses_nothing_and_gives_the_same_bytes(packer, tmp_path) -> None:
    table = made_table((0, True, 5, square(0, 12)), (0, False, 5, square(4, 8)), (1, True, 7, square(20, 24)[::-1]))
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for path in paths:
        packer.write_table(table, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with np.load(paths[0], allow_pickle=False) as packed:
        assert packed.files == [f.name for f in fields(table)]
        for name in packed.files:
            np.testing.assert_array_equal(packed[name], getattr(table, name))


def test_a_database_is_read_column_by_column(packer, tmp_path) -> None:
    database = tmp_path / "some.sqlite"
    with sqlite3.connect(database) as connection:
        connection.executescript(
            f"""
            create table scans (id, study_instance_uid, series_instance_uid, patient_id, slice_thickness,
                                pixel_spacing);
            create table annotations (id, scan_id, _nodule_id, subtlety, internalStructure, calcification, sphericity,
                                      margin, lobulation, spiculation, texture, malignancy);
            create table contours (id, annotation_id, inclusion, image_z_position, coords);
            create table zvals (id, scan_id, val);
            insert into scans values (5, '{packer.UID_ROOT}11', '{packer.UID_ROOT}12', 'LIDC-IDRI-0042', 1.25, 0.7);
            insert into zvals values (1, 5, -8.0), (2, 5, -10.0), (3, 5, -6.0), (4, 5, -4.0);
            insert into annotations values (9, 5, 'Nodule 003', 1, 2, 3, 4, 5, 1, 2, 3, 4);
            insert into contours values (2, 9, 0, -6.0, '30,40\n33,36'), (1, 9, 1, -8.0, '20,50\n21,50\n21,51');
            """
        )
    read = packer.read_database(database)
    assert read.patient_id(0) == "LIDC-IDRI-0042"
    assert (read.scan_study[0], read.scan_series[0], bool(read.scan_matting[0])) == (b"11", b"12", False)
    assert (read.scan_spacing[0], read.scan_thickness[0], read.scan_distance[0]) == (0.7, 1.25, 2.0)
    assert (read.annotation_id[0], read.annotation_scan[0], read.annotation_mark[0]) == (9, 0, b"Nodule 003")
    assert read.annotation_ratings.tolist() == [[1, 2, 3, 4, 5, 1, 2, 3, 4]]
    assert read.contour_inclusion.tolist() == [True, False]
    assert read.contour_slice.tolist() == [1, 2]
    points, offsets = read.points()
    assert points.tolist() == [[20, 50], [21, 50], [21, 51], [30, 40], [33, 36]]
    assert offsets.tolist() == [0, 3, 5]
