"""A CT-like image made from the readers' outlines and ratings of one nodule: the recipe of `lidc-contours`.

The CT of LIDC-IDRI (125 GB) does not travel with the package, so the image is a function of the masks: slice by slice,
in HU, on the pixel grid of the real scan. The readers' disagreement enters through the width of the nodule's edge.
Networks can gain by inverting the recipe; scores on such images describe behaviour, never clinical merit.

Every stream of random draws belongs to one thing, so that a slice looks the same whatever else is built: a scan (lung
density, gravity, resolution, noise level), a nodule (frame, attenuation, chest wall) or a slice (texture, vessels,
spicules, noise). Nothing depends on the order of the readers, to the last bit: sums over readers run over sorted
values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.special import ndtr

from ..core.seeding import numpy_generator

RECIPE = 1
FRAME = 128  # pixels; smaller images are centre crops of this frame
SHIFT = 8  # largest offset of the frame from the nodule's centre, pixels
FAR = 8.0  # signed distances are clipped to ±8 mm; also the distance of a reader who drew nothing on the slice
HU_RANGE = (-1024.0, 1500.0)
SOFT_TISSUE, WALL = 20.0, 40.0  # HU; blood and solid nodule look alike on purpose
MARGIN_WIDTH = ((1, 2, 3, 4, 5), (1.4, 1.0, 0.7, 0.45, 0.25))  # margin rating → edge width, mm
SUBTLETY_CONTRAST = ((1, 2, 3, 4, 5), (0.55, 0.70, 0.82, 0.92, 1.0))


@dataclass(frozen=True)
class Scene:
    """What the image of a nodule depends on, besides the masks.

    Attributes:
        scan: stable id of the scan; seeds what its slices share.
        nodule: smallest annotation id of the nodule.
        spacing: pixel size, mm.
        thickness: slice thickness, mm.
        distance: distance of neighbouring slices, mm.
        ratings: mean of the readers' ratings, by name.
        first_slice: rank in the scan of the first slice of the nodule's masks.
    """

    scan: str
    nodule: int
    spacing: float
    thickness: float
    distance: float
    ratings: dict[str, float]
    first_slice: int

    def stream(self, part: str, **axes: Any) -> np.random.Generator:
        return numpy_generator(f"simulated ct, {part}", recipe=RECIPE, scan=self.scan, **axes)


def frame_shift(scan: str, nodule: int) -> tuple[int, int]:
    """Offset (rows, columns) of the nodule's frame, uniform in ±8 pixels."""
    rng = numpy_generator("simulated ct, frame", recipe=RECIPE, scan=scan, nodule=nodule)
    dy, dx = rng.integers(-SHIFT, SHIFT + 1, 2).tolist()
    return dy, dx


def simulate(
    scene: Scene, masks: np.ndarray, index: int, ambiguity: float = 1.5, partial_volume: bool = False
) -> np.ndarray:
    """The image of one slice.

    Args:
        scene: the nodule.
        masks: readers×slices×128×128 bool, the whole nodule; a reader who drew nothing on a slice is all False there.
        index: slice of `masks`, drawn by at least one reader.
        ambiguity: gain from the readers' disagreement to the width of the edge; 0 switches the link off.
        partial_volume: average the nodule's fraction over neighbouring slices.

    Returns:
        128×128 float32 in [0, 1]: HU from -1000 to 400.
    """
    hu = simulate_hu(scene, masks, index, ambiguity, partial_volume)
    return unit_of_hu(hu)


def unit_of_hu(hu: np.ndarray) -> np.ndarray:
    """HU from -1000 to 400 as float32 in [0, 1], clipped."""
    return np.clip((hu + 1000) / 1400, 0, 1).astype(np.float32)


def simulate_hu(
    scene: Scene, masks: np.ndarray, index: int, ambiguity: float = 1.5, partial_volume: bool = False
) -> np.ndarray:
    """As `simulate`, in HU (float64, within [-1024, 1500])."""
    rng = scene.stream("slice", nodule=scene.nodule, slice=scene.first_slice + index)
    scanner = _Scanner.of(scene)
    lesion = _Lesion.of(scene)
    field = Consensus.of(masks[:, index], scene.spacing)
    fraction = (
        _through_slices(scene, masks, index, ambiguity)
        if partial_volume
        else field.fraction(scene.ratings["margin"], ambiguity, scene.spacing)
    )
    image = scanner.lung(rng)
    _add_vessels(image, rng, field, scene)
    lesion.add_wall(image, rng, field)
    lesion.add(image, rng, field, fraction)
    return np.clip(scanner.acquire(image, rng, scene), *HU_RANGE)


@dataclass(frozen=True)
class Consensus:
    """What the readers of one slice agree on, as fields of 128×128 pixels.

    Attributes:
        signed: mean over readers of the signed distance to their edge, mm, positive inside.
        spread: standard deviation over readers of the same, mm.
        nearest: signed distance to the union of all readers, mm.
        drawn: share of the readers who drew something on this slice.
    """

    signed: np.ndarray
    spread: np.ndarray
    nearest: np.ndarray
    drawn: float

    @classmethod
    def of(cls, masks: np.ndarray, spacing: float) -> Consensus:
        distances = np.full(masks.shape, -FAR)
        rows, columns = np.nonzero(masks.any(0))
        reach = int(np.ceil(FAR / spacing)) + 1  # beyond it every distance is clipped: no need to compute it
        box = (
            slice(max(rows.min() - reach, 0), rows.max() + reach + 1),
            slice(max(columns.min() - reach, 0), columns.max() + reach + 1),
        )
        for reader, mask in enumerate(masks):
            if mask.any():
                distances[reader][box] = signed_distance(mask[box], spacing)
        distances.sort(axis=0)  # sums of floats depend on their order; the order of the readers must not matter
        drawn = np.count_nonzero(masks.any((1, 2))) / len(masks)
        return cls(distances.mean(0), distances.std(0), distances[-1], drawn)

    def fraction(self, margin: float, ambiguity: float, spacing: float) -> np.ndarray:
        """Share of nodule in each pixel: a soft edge whose width grows with the disagreement at the boundary."""
        weight = np.exp(-((self.signed / spacing) ** 2) / 2)
        boundary_spread = gaussian_filter(weight * self.spread, 4) / gaussian_filter(weight, 4)
        width = np.sqrt(np.interp(margin, *MARGIN_WIDTH) ** 2 + (ambiguity * boundary_spread) ** 2)
        return ndtr(self.signed / width) * np.sqrt(self.drawn)


def signed_distance(mask: np.ndarray, spacing: float) -> np.ndarray:
    """Distance to the edge of a non-empty 2-D mask, mm, positive inside, zero on the pixel edge, clipped to ±8 mm."""
    inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
    distance = np.where(mask, inside - 0.5, 0.5 - outside) * spacing
    return np.clip(distance, -FAR, FAR)


def _through_slices(scene: Scene, masks: np.ndarray, index: int, ambiguity: float) -> np.ndarray:
    """Nodule fraction averaged over a triangular slice profile of full width at half maximum = slice thickness.

    Between the slices the fraction is interpolated linearly, so a neighbour weighs the overlap integral of two
    triangles; contiguous slices give 1/6, 2/3, 1/6. Beyond the nodule's ends the fraction is zero.
    """
    z = np.linspace(-scene.thickness, scene.thickness, 2001)
    profile = 1 - np.abs(z) / scene.thickness
    profile /= profile.sum()
    total = np.zeros((FRAME, FRAME))
    for other in range(masks.shape[1]):
        away = (other - index) * scene.distance
        weight = float(profile @ np.clip(1 - np.abs(z - away) / scene.distance, 0, None))
        if weight > 0 and masks[:, other].any():
            field = Consensus.of(masks[:, other], scene.spacing)
            total += weight * field.fraction(scene.ratings["margin"], ambiguity, scene.spacing)
    return total


@dataclass(frozen=True)
class _Scanner:
    """What all slices of a scan share."""

    base: float  # HU of the lung
    gravity: float  # HU from top to bottom of the frame
    fwhm: float  # mm
    noise: float  # HU, at 1.8 mm slice thickness

    @classmethod
    def of(cls, scene: Scene) -> _Scanner:
        rng = scene.stream("scanner")
        return cls(
            base=rng.normal(-860, 25),
            gravity=rng.normal(20, 10),
            fwhm=rng.uniform(0.9, 1.5),
            noise=float(np.clip(rng.normal(26, 8), 12, 48)),
        )

    def lung(self, rng: np.random.Generator) -> np.ndarray:
        parenchyma = _random_field(rng, _gaussians((1.2, 18), (4.0, 16), (14.0, 22)))
        return self.base + parenchyma + np.linspace(-0.5, 0.5, FRAME)[:, None] * self.gravity

    def acquire(self, image: np.ndarray, rng: np.random.Generator, scene: Scene) -> np.ndarray:
        sharp = gaussian_filter(image, self.fwhm / scene.spacing / np.sqrt(8 * np.log(2)), mode="nearest")
        level = self.noise * (1.8 / scene.thickness) ** 0.25
        return sharp + level * _random_field(rng, _noise_spectrum())


@dataclass(frozen=True)
class _Lesion:
    """What all slices of a nodule share."""

    solid: float  # HU
    ground_glass: float  # HU
    calcium: float  # HU on top, where calcified
    wall: bool
    wall_edge: float  # pixels from the frame's centre
    wall_angle: float
    ratings: dict[str, float]
    spacing: float

    @classmethod
    def of(cls, scene: Scene) -> _Lesion:
        rng = scene.stream("nodule", nodule=scene.nodule)
        return cls(
            solid=rng.normal(SOFT_TISSUE, 15),
            ground_glass=rng.normal(-610, 40),
            calcium=rng.uniform(150, 500),
            wall=bool(rng.random() < 0.3),
            wall_edge=rng.uniform(22, 60),
            wall_angle=rng.uniform(0, 2 * np.pi),
            ratings=scene.ratings,
            spacing=scene.spacing,
        )

    def add_wall(self, image: np.ndarray, rng: np.random.Generator, field: Consensus) -> None:
        """Chest wall beyond an arc of radius 180 pixels, at least 2 mm away from the nodule."""
        if not self.wall:
            return
        y, x = _grid()
        radius = 180.0
        away = radius - self.wall_edge
        beyond = np.hypot(y + away * np.sin(self.wall_angle), x + away * np.cos(self.wall_angle)) - radius
        # The wall is moved back until it leaves 2 mm to every reader's outline; cutting it out around the outline
        # instead would print a reader's contour into the image.
        beyond = beyond - max(0.0, float(beyond[field.nearest > -2].max()) + 2)
        image += ndtr(beyond / 0.7) * (WALL + _random_field(rng, _gaussians((2.0, 15))) - image)

    def attenuation(self, signed: np.ndarray) -> np.ndarray:
        """HU of pure nodule without texture: solid, ground glass, or a solid core in a ground-glass rim; inclusions."""
        top = signed.max()
        texture = self.ratings["texture"]
        if texture >= 4.5:
            hu = np.full(signed.shape, self.solid)
        elif texture <= 1.5:
            hu = np.full(signed.shape, self.ground_glass)
        else:
            core = ndtr((signed - (1 - (texture - 1) / 4) * top) / 0.8)
            hu = self.ground_glass + core * (self.solid - self.ground_glass)
        centre = signed > top / 2
        inner = round(self.ratings["internal_structure"])
        if inner > 1:  # fluid, fat, air
            hu = np.where(centre, {2: 10.0, 3: -80.0, 4: -900.0}[inner], hu)
        if self.ratings["calcification"] <= 5:
            everywhere = round(self.ratings["calcification"]) == 3  # the "solid" pattern; all others lie in the centre
            hu = hu + self.calcium * (everywhere | centre)
        return hu

    def add(self, image: np.ndarray, rng: np.random.Generator, field: Consensus, fraction: np.ndarray) -> None:
        hu = self.attenuation(field.signed) + _random_field(rng, _gaussians((2.0, 20)))
        contrast = np.interp(self.ratings["subtlety"], *SUBTLETY_CONTRAST)
        image += contrast * fraction * (hu - image)
        rays = self._spicules(rng, field) * (fraction < 0.5) * np.sqrt(field.drawn)
        image += contrast * 0.5 * rays * (hu - image)

    def _spicules(self, rng: np.random.Generator, field: Consensus) -> np.ndarray:
        """Rays of half-width 0.6 pixels from the nodule's centre to 2-5 mm beyond its edge, from spiculation 2 on."""
        rays = np.zeros((FRAME, FRAME))
        q = self.ratings["spiculation"]
        if q < 2:
            return rays
        y, x = _grid()
        inside = field.nearest > 0
        y, x = y - y[inside].mean(), x - x[inside].mean()
        for _ in range(round(3 * (q - 1))):
            angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(2, 5)
            along = x * np.cos(angle) + y * np.sin(angle)
            across = y * np.cos(angle) - x * np.sin(angle)
            ray = np.exp(-np.log(2) * (across / 0.6) ** 2) * (along > 0) * (field.nearest > -reach)
            rays = np.maximum(rays, ray)
        return rays


def _add_vessels(image: np.ndarray, rng: np.random.Generator, field: Consensus, scene: Scene) -> None:
    """Vessels: ellipses where the slice cuts across, else tapering rods; a quarter of them at the nodule's edge."""
    rim = np.argwhere((field.nearest < 0) & (field.nearest >= -4 * scene.spacing)) - (FRAME - 1) / 2
    y, x = _grid()
    for _ in range(rng.poisson(4) + 2 * (scene.ratings["subtlety"] <= 3)):
        radius = rng.uniform(0.4, 1.3) / scene.spacing
        peak = rng.uniform(0.6, 1.0)
        angle = rng.uniform(0, 2 * np.pi)
        across_slice = rng.random() < 0.45
        attached = rng.random() < 0.25 and len(rim) > 0
        centre = rim[rng.integers(len(rim))] if attached else rng.uniform(-FRAME / 2, FRAME / 2, 2)
        along = (x - centre[1]) * np.cos(angle) + (y - centre[0]) * np.sin(angle)
        across = (y - centre[0]) * np.cos(angle) - (x - centre[1]) * np.sin(angle)
        if across_slice:
            stretch = rng.uniform(1.0, 2.0)
            weight = ndtr((radius - np.hypot(along / stretch, across)) / 0.5)
        else:
            length, bend = rng.uniform(12, 60), rng.uniform(-0.012, 0.012)
            if not attached:
                along = along + length / 2  # an attached vessel begins at the nodule
            part = np.clip(along / length, 0, 1)
            beyond = along - part * length
            offset = across - bend * along**2 / 2
            weight = ndtr((radius * (1 - 0.6 * part) - np.hypot(offset, beyond)) / 0.5)
        image += peak * weight * (SOFT_TISSUE - image)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns from the frame's centre, broadcastable."""
    axis = np.arange(FRAME) - (FRAME - 1) / 2
    return np.broadcast_to(axis[:, None], (FRAME, FRAME)), np.broadcast_to(axis, (FRAME, FRAME))


def _random_field(rng: np.random.Generator, spectrum: np.ndarray) -> np.ndarray:
    """A Gaussian random field whose Fourier amplitude is `spectrum` (FRAME × FRAME/2+1)."""
    return np.fft.irfft2(np.fft.rfft2(rng.standard_normal((FRAME, FRAME))) * spectrum, s=(FRAME, FRAME))


def _smoothing(sigma: float) -> np.ndarray:
    """Transfer function of a Gaussian blur on the periodic frame."""
    fy, fx = np.fft.fftfreq(FRAME)[:, None], np.fft.rfftfreq(FRAME)
    return np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))


def _normalised(transfer: np.ndarray) -> np.ndarray:
    """Scaled so that filtered white noise of unit variance keeps unit variance."""
    power = transfer**2
    mean = (2 * power.sum() - power[:, 0].sum() - power[:, -1].sum()) / FRAME**2  # half spectrum: inner columns twice
    return transfer / np.sqrt(mean)


@lru_cache(maxsize=8)
def _gaussians(*parts: tuple[float, float]) -> np.ndarray:
    """Amplitude of the sum of independent smoothed noises, each of (sigma in pixels, standard deviation in HU).

    Their variances add frequency by frequency, so one draw and one transform serve for all of them.
    """
    return np.sqrt(sum((deviation * _normalised(_smoothing(sigma))) ** 2 for sigma, deviation in parts))


@lru_cache(maxsize=1)
def _noise_spectrum() -> np.ndarray:
    """CT noise is band-limited: G(0.6 px) - 0.6 G(1.8 px), unit variance."""
    return _normalised(_smoothing(0.6) - 0.6 * _smoothing(1.8))
