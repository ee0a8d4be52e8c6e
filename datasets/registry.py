"""The table of built-in data sets: where each lives and what `multirater list` says of it (nothing is imported)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.registry import Registry

if TYPE_CHECKING:
    from .base import Dataset

DATASETS: Registry[type[Dataset]] = Registry("dataset", "multirater.datasets", "multirater.datasets.base:Dataset")

DATASETS.add(
    "lidc-contours",
    "multirater.datasets.lidc_contours:LidcContours",
    summary="outlines of 4 LIDC readers; simulated CT",
    embedded=True,
    identity="by_area|group|group_sparse|persona|as_stored|none",
)
DATASETS.add(
    "synthetic",
    "multirater.datasets.synthetic:Synthetic",
    summary="known rater distribution: exact GED floor and best per-rater Dice",
    embedded=True,
    identity="synthetic",
)
DATASETS.add(
    "hdf5",
    "multirater.datasets.hdf5:Hdf5",
    summary="one HDF5 file of images and masks, as `multirater data convert` writes it",
    embedded=False,
    identity="declared in the file",
)
DATASETS.add(
    "synthetic-confusion",
    "multirater.datasets.synthetic_confusion:SyntheticConfusion",
    summary="raters who err by planted confusion matrices",
    embedded=True,
    identity="synthetic",
)
DATASETS.add(
    "manifest",
    "multirater.datasets.manifest:Manifest",
    summary="your own images, volumes and masks by a JSON list (MONAI decathlon style)",
    embedded=False,
    identity="declared in the file",
)
DATASETS.add(
    "folder",
    "multirater.datasets.folder:Folder",
    summary="your own images, volumes and masks by a YAML pattern (png, tif, jpg, nii.gz, npy)",
    embedded=False,
    identity="declared in the YAML",
)
DATASETS.add(
    "lidc",
    "multirater.datasets.lidc:Lidc",
    summary="LIDC-IDRI as others prepared it (mm, pickle, hdf5, npy, png, jpg) or from the CT (dicom), 4 readers",
    embedded=False,
    identity="none|by_area|by_area_slice|as_stored|group|group_sparse|persona",
)
DATASETS.add(
    "qubiq",
    "multirater.datasets.qubiq:Qubiq",
    summary="QUBIQ 2020/2021: six sets of MRI and CT, 2-7 raters (NIfTI, or MedicalMatting's pickle)",
    embedded=False,
    identity="consistent",
)
DATASETS.add(
    "retina",
    "multirater.datasets.retina:Retina",
    summary="retinal vessels by 2 observers: CHASE_DB1, DRIVE, STARE",
    embedded=False,
    identity="consistent",
)
DATASETS.add(
    "bu-bil",
    "multirater.datasets.bu_bil:BuBil",
    summary="cells in phase contrast, 3-5 persons x 2-3 tools",
    embedded=False,
    identity="consistent",
)
DATASETS.add(
    "riga",
    "multirater.datasets.riga:Riga",
    summary="optic disc and cup, fundus, 6 ophthalmologists (DiscRegion form of MR-Net)",
    embedded=False,
    identity="consistent",
)
DATASETS.add(
    "gleason2019",
    "multirater.datasets.gleason2019:Gleason2019",
    summary="Gleason patterns in prostate tissue cores, 6 pathologists",
    embedded=False,
    identity="consistent",
)
DATASETS.alias("gleason19", "gleason2019")
DATASETS.add(
    "chaksu",
    "multirater.datasets.disc_cup:Chaksu",
    summary="optic disc and cup, fundus of 3 cameras, 5 ophthalmologists",
    embedded=False,
    identity="consistent",
)
DATASETS.add(
    "refuge-mr",
    "multirater.datasets.disc_cup:RefugeMr",
    summary="optic disc and cup, fundus, 7 glaucoma specialists",
    embedded=False,
    identity="consistent",
)
DATASETS.add(
    "imapp",
    "multirater.datasets.imapp:Imapp",
    summary="skin lesions, dermoscopy, sparse named annotators (ISIC MultiAnnot++)",
    embedded=False,
    identity="consistent",
)
DATASETS.add(
    "npc",
    "multirater.datasets.npc:Npc",
    summary="nasopharyngeal carcinoma, MRI T1, T1C, T2, 4 raters (NPC-170, MMIS-2024)",
    embedded=False,
    identity="consistent",
)
DATASETS.alias("npc170", "npc")
DATASETS.alias("mmis2024", "npc")
DATASETS.add(
    "msseg16",
    "multirater.datasets.msseg16:Msseg16",
    summary="multiple sclerosis lesions, 3D MRI, 7 experts",
    embedded=False,
    identity="consistent",
)
DATASETS.add(
    "curvas24",
    "multirater.datasets.curvas:Curvas24",
    summary="pancreas, kidney, liver in CT, 3 radiologists",
    embedded=False,
    identity="consistent",
)
DATASETS.alias("curvas", "curvas24")
DATASETS.add(
    "curvas-pdacvi",
    "multirater.datasets.curvas:CurvasPdacvi",
    summary="pancreatic tumour in CT, PANORAMA's label and 4 readers",
    embedded=False,
    identity="consistent",
)
DATASETS.add(
    "gmseg16",
    "multirater.datasets.gmseg16:Gmseg16",
    summary="grey and white matter of the spinal cord, MRI, 4 raters",
    embedded=False,
    identity="consistent",
)
DATASETS.add(
    "kits21",
    "multirater.datasets.kits21:Kits21",
    summary="kidney, tumour, cyst in CT, 3 annotations of each instance",
    embedded=False,
    identity="none",
)
DATASETS.add(
    "msseg2",
    "multirater.datasets.ms_lesions:Msseg2",
    summary="new multiple sclerosis lesions between two MRI scans, 4 experts",
    embedded=False,
    identity="consistent",
)
DATASETS.add(
    "isbi2015",
    "multirater.datasets.ms_lesions:Isbi2015",
    summary="multiple sclerosis lesions at several visits, MRI, 2 raters",
    embedded=False,
    identity="consistent",
)

for _preparation in ("mm", "pickle", "hdf5", "npy", "png", "jpg", "dicom"):
    DATASETS.alias(f"lidc-{_preparation}", "lidc", preparation=_preparation)
for _set in ("chase_db1", "drive", "stare"):
    DATASETS.alias(_set, "retina", set=_set)
