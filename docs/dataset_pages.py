"""docs/datasets.md: a section for every data set, from its card, with the layout on disk and the traps of its files."""

from __future__ import annotations

import inspect
from typing import Any

from multirater.benchmark.cards import card
from multirater.datasets import DATASETS, list_datasets

PREFACE = """# Data sets

<!-- made by docs/generate.py; edit docs/dataset_pages.py or the cards of the data sets -->

`multirater prepare NAME --root PATH` takes the files as they lie there, says what is wrong or missing, and caches
arrays; from then on every method, metric and figure runs on them:

```
multirater prepare retina --root ~/data/DRIVE --set set=drive
multirater run --method dpersona --dataset retina --preset quick --set dataset.root=~/data/DRIVE dataset.set=drive
```

`multirater info NAME` prints the card with all options. Your own data: [folder](folder.md), or
[one HDF5 file or a JSON list](generic.md).

Rules that hold everywhere:

* **Absent is not empty.** A rater who drew nothing has an empty mask, which is an answer; one who never saw the case is
  missing (`rater_valid`), and stays out of losses, scores and rater statistics.
* **Identity is declared.** `consistent`: slot r is one person in every case. `none`: slots are exchangeable; methods
  that need raters refuse such data, or take an order derived from the masks: `--set dataset.identity=by_area` (the k-th
  slot is the k-th smallest mask of the case, of a volume by volume; `by_area_slice`: of each slice). Every table says
  which was used.
* **Splits never part a patient.** `cv4` (four folds) and `fixed` (one) follow from the MD5 of the patient's id, and are
  written beside the arrays. Splits that were published are there as `compat` and its kinds; where they leak, or
  select on the test part, every table that uses them says so.
* **A fingerprint** of files, cases, raters and masks goes into every result; rows with different ones never stand in
  one table.
* **Values are checked.** A mask with other values or another size than its image, or an image out of range, ends in one
  sentence with the file's name. Nothing of a pickle is executed, and no archive is unpacked outside of memory.
* Images are resized linearly with antialiasing, masks to the nearest pixel; published faults of resizing are offered
  under their names (`npc`: `resize=order0`, `riga`: `resize=mrnet`).
"""

LAYOUTS: dict[str, str] = {
    "lidc": """mm      lidc_attributes.pkl
pickle  data_lidc.pickle (all files *.pickle*)
hdf5    data_lidc.hdf5: groups train, val, test with images, labels (raters last), uids
npy     {train,val,test}/{images,labels}/<i>.npy
png     {train,val,test}/images/LIDC-IDRI-NNNN/z-<z>_c<c>.png
                        /gt/LIDC-IDRI-NNNN/z-<z>_c<c>_l{0,1,2,3}.png   (also lidc_crops_{train,val,test}/)
jpg     {training,testing}/<n>/image_<n+1>.jpg, label{0,1,2,3}_.jpg
dicom   LIDC-IDRI-NNNN/<study>/<series>/*.dcm, under any names""",
    "retina": """chase_db1  Image_01L.jpg, Image_01L_1stHO.png, Image_01L_2ndHO.png
drive      {test,training}/images/NN_test.tif, {1st,2nd}_manual/NN_manual{1,2}.gif, mask/NN_test_mask.gif
stare      stare-images/im0001.ppm.gz, labels-ah/im0001.ah.ppm.gz, labels-vk/im0001.vk.ppm.gz""",
    "bu-bil": """BU-BIL_Dataset1/RawImages/B01.png
BU-BIL_Dataset1/ExpertsAnnotations/Person1_Amira/seg_B01.png
BU-BIL_Dataset2/ExpertsAnnotations/{2A,2B}/Person1_Amira/seg_P01.png""",
    "riga": """Glaucoma_multirater_{BinRushed,MESSIDOR,Magrabia}.csv     (gbk; imgName, maskName, rater, ...)
<the pictures that imgName and maskName name, relative to the table>""",
    "gleason2019": """Train Imgs/slide001_core003.jpg                                (or Train_imgs/)
Maps{1..6}_T/slide001_core003_classimg_nonconvex.png           (or slide001_core003.png)""",
    "chaksu": """Train.zip, Test.zip                                            (left packed), or unpacked:
{Train,Test}/1.0_Original_Fundus_Images/<camera>/<name>.(jpg|png)
{Train,Test}/3.0_Doctors_Annotations_Binary_OD_OC/Expert <n>/<camera>/{Disc,Cup}/<name>.tif""",
    "refuge-mr": """{Training,Validation,Test}-400/<id>/<id>.jpg
                                   /<id>_seg_{disc,cup}_{1..7}.png     (or <id>/... without that level)""",
    "imapp": """seg_metadata.csv, img_metadata.csv, train.csv, val.csv, test.csv
segs.zip                                                       (or segs/)
images/<ISIC id>.jpg""",
    "npc": """training_2d/Sample_<id>_slice_<k>.h5                          (or training/<id>.h5, volumes)
validation/<id>.h5, testing/<id>.h5                            each with t1, t1c, t2, label_a1 ... label_a4""",
    "qubiq": """training_data_v3_QC/<set>/Training/case<NN>/image.nii.gz, task<TT>_seg<RR>.nii.gz
validation_data_qubiq2021_QC/<set>/Validation/case<NN>/...
brain_growth_alpha.pkl                                         (preparation=matting)""",
    "msseg16": """Training/Center_<CC>/Patient_<PP>/Masks/ManualSegmentation_{1..7}.nii.gz
                                 /Raw_Data/FLAIR.nii.gz or /Preprocessed_Data/FLAIR_preprocessed.nii.gz
<patient>/3DFLAIR.nii.gz, ManualSegmentation_{1..7}.nii.gz     (the older, flat delivery)""",
    "curvas24": "{training,validation,testing}_set/UKCHLL<NNN>/image.nii.gz, annotation_{1,2,3}.nii.gz",
    "curvas-pdacvi": "<case>/image.nii.gz, annotation_{1..5}.nii.gz",
    "kits21": "case_<NNNNN>/imaging.nii.gz, segmentations/{kidney,tumor,cyst}_instance-<i>_annotation-<1..3>.nii.gz",
    "gmseg16": "site{1..4}-sc<NN>-image.nii.gz, site{1..4}-sc<NN>-mask-r{1..4}.nii.gz",
    "msseg2": "<id>/flair_time0{1,2}_on_middle_space.nii.gz, ground_truth_expert{1..4}.nii.gz",
    "isbi2015": "training<NN>/masks/training<NN>_<TT>_mask{1,2}.nii, training<NN>/preprocessed/...",
}

TRAPS: dict[str, tuple[str, ...]] = {
    "lidc": (
        "Seven preparations, seven case lists: scores of one say nothing about another.",
        "mm: the part of `series_uid` before `_` is a study, which gives patient and pixel size. D-Persona's folds "
        "have no validation part and select on the test fold; `compat-dpersona-val` holds one back from training.",
        "pickle: the PyTorch port merges all files, so that a later one silently replaces cases; a case in two files "
        "is refused here. Its random split by slices leaks patients.",
        "hdf5 and npy: images are stored less a half, which is added again; raters are the last axis; the original "
        "parts were drawn without a seed, so no two copies agree. `uids` are salted hashes: they group, they name "
        "nobody.",
        "png: z may be negative (`z--105.0_c0.png`); an empty mask is a file too, so a missing one is a loss.",
        "jpg: masks hold ten to fifteen greys and are cut at 127; patients are unknown, so neighbouring slices of one "
        "nodule may stand in several parts; every table says so.",
        "dicom: chest radiographs lie beside the CT; z is taken from ImagePositionPatient; padding of -2000 outside of "
        "the reconstruction becomes air; eight patients have two scans and stay together.",
    ),
    "retina": (
        "The second masks of DRIVE are palette GIFs (indices 0 and 1, greys 3 and 253); its training half has one "
        "observer, so the second is missing there.",
        "STARE's labels are PGM inside `.ppm`, packed by gzip.",
        "Both eyes of a child of CHASE_DB1 stay together.",
        "The first observer of CHASE_DB1 draws up to a few hundred pixels beyond the field of view.",
    ),
    "bu-bil": (
        "The cell is black, the background white; `Seg_` and `seg_` are mixed; one mask has a stray grey pixel.",
        "Person2 copies the gold standard in sets 1 (both tools), 2A and 3 (ImageJ), Person3_Amira most of 2B: left "
        "out unless `copies=keep`.",
        "Sets 4-6 cannot be read: their pictures are crops whose place in the masks is not stored.",
    ),
    "riga": (
        "Paths have backslashes, rows no order: a row is found by `rater`.",
        "Disc and cup are read before a mask is resized. The other way round, as in MR-Net's loader under Pillow 7 and "
        "later, the cup shrinks (`resize=mrnet`, with a notice).",
    ),
    "gleason2019": (
        "1 and 6 are benign, 3-5 Gleason patterns; 0 is background and tissue that nobody graded. The value 2 means "
        "nothing: a few such pixels are background and counted, many are refused.",
        "Patients are not recorded: splits never part a slide.",
        "Maps that Pionono's script remapped hold 0-4 with other meanings: `values=pionono`.",
    ),
    "chaksu": (
        "The archives stay packed: 70 GB otherwise. `Remidio` is also spelled `Remedio`, `Disc` also `disc`.",
        "Remidio's photographs are upright; some masks have an extra channel; the cup is not always inside the disc.",
    ),
    "refuge-mr": (
        "`<id>_cropped.jpg` is turned and is not the image of the masks; the `.bmp` masks are fused: neither is used.",
    ),
    "imapp": (
        "Rows of STAPLE (`ST`) and majority vote (`MV`) are no annotators.",
        "Most pairs of annotators share few images: scores of one rater need `min_images=20` or more.",
    ),
    "npc": (
        "The slices of `training_2d` are those with tumour; D-Persona zooms by order 0, images included "
        "(`resize=order0`).",
    ),
    "qubiq": (
        "Affines and axes of image and mask differ: a mask is turned only if that alone makes it fit.",
        "Rater numbers mean the same person within a set only.",
    ),
    "curvas24": ("In case 007 a header is odd, in 082 a reader left out the pancreas (`faulty=drop` leaves it out).",),
    "curvas-pdacvi": ("Reader 1 is PANORAMA's label, drawn by another protocol.",),
    "kits21": ("Annotation numbers are no persons: they are combined at random, a draw for each case.",),
}


def page() -> str:
    names = [name for name in list_datasets() if name not in ("folder", "hdf5", "manifest")]
    cards = {name: card("datasets", name) for name in names}
    names.sort(key=lambda name: (not cards[name]["embedded"], name))
    rows = [
        [f"[`{name}`](#{name})", cards[name]["title"], cards[name]["identity"].replace("|", ", "), _state(cards[name])]
        for name in names
    ]
    from generate import table  # beside this file

    head = table(["Name", "What", "Identity", "Tried on original files"], rows)
    return "\n".join([PREFACE, head, *(_section(name, cards[name]) for name in names)]).rstrip() + "\n"


def _plain(text: str) -> str:
    """Without what Markdown would take for tags."""
    return text.replace("<", "\\<")


def _state(facts: dict[str, Any]) -> str:
    if facts["embedded"]:
        return "made by the package"
    text = facts["how_to_get"]
    start = max(text.rfind(". "), 0) + 2
    last = text[start:]
    return "no" if "not yet tried" in last else last


def _section(name: str, facts: dict[str, Any]) -> str:
    cls = DATASETS.get(name)
    doc = inspect.cleandoc(cls.__doc__ or "").replace("``", "`")  # names with <…> stand in these as code
    lines = [f"## {name}\n", f"{facts['title']}.\n", doc + "\n"]
    aliases = sorted(alias for alias, target in DATASETS.aliases().items() if target == name)
    entries = [("Get it", facts["how_to_get"]), ("Licence", facts.get("licence")), ("Cite", facts.get("citation"))]
    entries += [("Also called", ", ".join(f"`{alias}`" for alias in aliases))]
    entries += [("Splits", ", ".join(f"`{split}`" for split in facts["splits"]))]
    entries += [(f"`{split}`", text) for split, text in cls.compat_splits.items()]
    lines += [f"* **{key}.** {_plain(text)}" for key, text in entries if text]
    if name in LAYOUTS:
        lines += ["", "```", LAYOUTS[name], "```"]
    if name in TRAPS:
        lines += ["", "Traps of the files:", "", *(f"* {trap}" for trap in TRAPS[name])]
    return "\n".join(lines) + "\n"
