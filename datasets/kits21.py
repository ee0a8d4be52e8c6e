"""`kits21`: kidneys, tumours and cysts in CT, three annotations of each instance (KiTS challenges 2021 and 2023)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from ..core.errors import UserError
from ..core.seeding import numpy_generator
from .curvas import Step, Window
from .file_dataset import Decoded, RawCase
from .image_files import resize_labels
from .orders import Order
from .patterns import files_below, natural
from .volume_dataset import SIZE_HELP, SOFT_TISSUE, Placed, Size, Stack, TrainSlices, VolumeDataset, need
from .volume_files import codes

SLOTS = 3
REGIONS = {"kidney": 1, "tumor": 2, "cyst": 3}
_ORDER = (1, 3, 2)  # the challenge's: a cyst overwrites kidney, a tumour both
_IMAGE = re.compile(r"(?:(?P<above>.*)/)?imaging\.nii\.gz")
_MASK = re.compile(
    r"(?:(?P<above>.*)/)?(?:segmentations|instances)/"
    r"(?P<region>kidney|tumor|cyst)_instance-(?P<instance>\d+)_annotation-(?P<slot>\d+)\.nii\.gz"
)


@dataclass(frozen=True)
class _Instances:
    """Image and, for each slot, the class and mask of every instance."""

    image: Stack
    slots: tuple[tuple[tuple[int, Placed], ...], ...]


class Kits21(VolumeDataset):
    """Kidney, tumour and cyst, by three slots that are not persons.

    Annotation k of one instance and annotation k of another come from different people, so the slots of the instances
    are combined at random (``combine=random``, one draw a case, as the challenge samples its groups) or by number. The
    folders ``segmentations`` of 2021 and ``instances`` of 2023 are read; the aggregated files are not used.
    """

    rater_names = ("1", "2", "3")
    declared = "none"
    class_names = ("kidney", "tumour", "cyst")
    title = "KiTS21: kidney, tumour and cyst in CT, three annotations of each instance"
    citation = (
        "Heller et al., The KiTS21 Challenge: Automatic segmentation of kidneys, renal tumors, and renal cysts in "
        "corticomedullary-phase CT, arXiv:2307.01984, 2023"
    )
    licence = "CC BY-NC-SA 4.0"
    how_to_get = (
        "clone github.com/neheller/kits21, run its get_imaging, and give its kits21/data as FOLDER, so that it holds "
        "case_00000/imaging.nii.gz and case_00000/segmentations; then: multirater prepare kits21 --root FOLDER. Loader "
        "not yet tried on the original files"
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds case_00000, case_00001, ..."] = None,
        combine: Annotated[Literal["random", "as_stored"], "how slots of several instances make one rater"] = "random",
        size: Annotated[Size, SIZE_HELP] = 256,
        window: Window = SOFT_TISSUE,
        slice_step: Step = 1,
        identity: Annotated[Order | None, "null: none (slots shuffled per case)"] = None,
        split: Annotated[str, "cv4 or fixed"] = "cv4",
        train_slices: Annotated[TrainSlices, "slices to train on; tests use whole volumes"] = "foreground",
    ) -> None:
        super().__init__(
            root=root, combine=combine, size=size, window=window, slice_step=slice_step, identity=identity, split=split,
            train_slices=train_slices,
        )  # fmt: skip
        if not window[0] < window[1]:
            raise UserError(f"dataset.window = {list(window)} is not allowed: give two rising numbers")

    def list_cases(self, root: Path) -> list[RawCase]:
        images: dict[str, Path] = {}
        masks: dict[str, dict[tuple[str, int], dict[int, Path]]] = {}
        for relative in files_below(root):
            if found := _IMAGE.fullmatch(relative):
                images[found["above"] or ""] = root / relative
            elif found := _MASK.fullmatch(relative):
                instance = (found["region"], int(found["instance"]))
                slots = masks.setdefault(found["above"] or "", {}).setdefault(instance, {})
                if int(found["slot"]) in slots:
                    raise UserError(f"{root / relative} and {slots[int(found['slot'])]} are one annotation; keep one")
                slots[int(found["slot"])] = root / relative
        need(masks, "case_<NNNNN>/segmentations/kidney_instance-1_annotation-1.nii.gz", root)
        return [self._case(root, folder, images.get(folder), found) for folder, found in masks.items()]

    def _case(
        self, root: Path, folder: str, image: Path | None, instances: dict[tuple[str, int], dict[int, Path]]
    ) -> RawCase:
        name = folder.split("/")[-1] or root.resolve().name
        if image is None:
            raise UserError(f"{root / folder} has masks, but no imaging.nii.gz; fetch it with get_imaging of KiTS")
        for (region, number), slots in instances.items():
            if sorted(slots) != list(range(1, SLOTS + 1)):
                raise UserError(
                    f"{root / folder} has annotations {sorted(slots)} of {region} instance {number}, but 1, 2 and 3 "
                    f"are expected; restore the files"
                )
        draw = numpy_generator("kits21 combination", case=name)
        listed = sorted(instances, key=lambda key: (list(REGIONS).index(key[0]), key[1]))
        chosen: list[list[tuple[int, Path]]] = [[] for _ in range(SLOTS)]
        for instance in listed:
            order = draw.permutation(SLOTS) if self.options["combine"] == "random" else range(SLOTS)
            for slot, stored in enumerate(order):
                chosen[slot].append((REGIONS[instance[0]], instances[instance][int(stored) + 1]))
        flat = [entry for slot in chosen for entry in slot]
        stack, odd = self.place([image], [path for _, path in flat])
        placed = iter(stack.masks)
        slots_of = tuple(tuple((label, _sure(next(placed))) for label, _ in slot) for slot in chosen)
        meta: dict[str, Any] = {"header_differs": odd} if odd else {}
        files = (image, *sorted((path for _, path in flat), key=lambda p: natural(p.name)))
        depth = len(range(0, stack.depth, self.options["slice_step"]))
        handle = _Instances(Stack(stack.channels, ()), slots_of)
        return RawCase(name, name, files, slices=depth, handle=handle, meta=meta)

    def decode(self, raw: RawCase) -> Decoded:
        case: _Instances = raw.handle
        step = self.options["slice_step"]
        found = self.read_stack(case.image, {}, self.window, step)
        size = (found.image.shape[2], found.image.shape[3])
        masks = np.zeros((len(found.image), SLOTS, *size), np.uint8)
        for slot, instances in enumerate(case.slots):
            for label, mask in sorted(instances, key=lambda entry: _ORDER.index(entry[0])):
                for k, plane in mask.volume.planes(mask.layout):
                    inside = codes(plane, {0: 0, 1: 1}, mask.volume.path)
                    if k % step == 0:
                        masks[k // step, slot][resize_labels(inside, size) > 0] = label
        return Decoded(found.image, masks, np.ones(SLOTS, bool), found.spacing)


def _sure(placed: Placed | None) -> Placed:
    assert placed is not None
    return placed
