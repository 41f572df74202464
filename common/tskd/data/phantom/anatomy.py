"""One patient of the virtual cohort: an abdomen as intensities and labels on a voxel grid.

Coordinates are millimetres in LPS: x grows to the patient's left, y to posterior, z to superior; (0, 0) is the middle
of the trunk and z = 0 the height of the kidneys. An organ is an implicit function, negative inside: a superellipsoid
plus a smooth random field, cut by the neighbours that press on it. Sizes follow the CHAOS subjects (liver 1.3 to 2 l,
kidney 0.16 to 0.3 l, spleen 0.13 to 0.44 l).
"""

import math
from dataclasses import dataclass, field

import numpy as np

LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = 1, 2, 3, 4


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: np.ndarray, length: float
) -> np.ndarray:
    """Smooth random field of about unit variance: cubic B-splines over a lattice of normal numbers.

    Args:
        rng: source of the numbers.
        shape: size of the grid.
        spacing: of the grid, mm.
        length: distance of the lattice points in mm; detail is about this large.
    """
    coordinates = [np.arange(size) * step / length for size, step in zip(shape, spacing, strict=True)]
    values = rng.standard_normal([int(coordinate[-1]) + 4 for coordinate in coordinates], dtype=np.float32)
    for axis in (2, 1, 0):
        first = coordinates[axis].astype(int)
        t = (coordinates[axis] - first).astype(np.float32)
        weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        column = [-1 if dimension == axis else 1 for dimension in range(3)]
        # 0.692: root mean square of the four weights together, so the variance stays about 1
        values = sum(
            values.take(first + k, axis) * (weight.reshape(column) / 6 / np.float32(0.692))
            for k, weight in enumerate(weights)
        )
    return np.asarray(values, dtype=np.float32)


@dataclass
class Abdomen:
    """A grid that organs are painted on, one over the other.

    Attributes:
        rng: source of all randomness of this patient.
        shape: [X, Y, Z].
        spacing: mm.
        z_start: height of the first slice, mm.
        intensity: relative signal, 0 (air) to about 1 (water).
        label: class index.
    """

    rng: np.random.Generator
    shape: tuple[int, int, int]
    spacing: np.ndarray
    z_start: float
    intensity: np.ndarray = field(init=False)
    label: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Make the empty grid and its deformed coordinates."""
        self.intensity = np.zeros(self.shape, np.float32)
        self.label = np.zeros(self.shape, np.uint8)
        starts = [-(n - 1) / 2 * s for n, s in zip(self.shape[:2], self.spacing[:2], strict=True)] + [self.z_start]
        axes = [start + np.arange(n) * s for start, n, s in zip(starts, self.shape, self.spacing, strict=True)]
        grids = np.meshgrid(*axes, indexing="ij")
        self.xyz = [grid.astype(np.float32) + 4 * self.noise(55) for grid in grids]

    def noise(self, length: float) -> np.ndarray:
        """Return a smooth random field on the grid."""
        return smooth_field(self.rng, self.shape, self.spacing, length)

    def vary(self, value: float, share: float) -> float:
        """Return a number drawn around `value`, evenly within plus or minus `share` of it."""
        return float(value * self.rng.uniform(1 - share, 1 + share))

    def blob(
        self,
        centre: tuple[float, float, float],
        radii: tuple[float, float, float],
        turn: float = 0.0,
        power: float = 2.2,
        wobble: float = 0.0,
        lean: float = 0.0,
    ) -> np.ndarray:
        """Implicit superellipsoid: negative inside, 1 at twice the radius.

        Args:
            centre: mm.
            radii: mm.
            turn: rotation in the axial plane, degrees.
            power: 2 is an ellipsoid, more is boxier.
            wobble: strength of the random deformation, share of the radius.
            lean: how far the centre moves in x for one mm in z.
        """
        x, y, z = (axis - c for axis, c in zip(self.xyz, centre, strict=True))
        x = x - lean * z
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        u, v = (cos * x + sin * y) / radii[0], (cos * y - sin * x) / radii[1]
        total = np.abs(u) ** power + np.abs(v) ** power + np.abs(z / radii[2]) ** power
        value = total ** (1 / power) - 1
        return value + wobble * self.noise(max(radii) * 0.7) if wobble else value

    def paint(self, inside: np.ndarray, signal: float | np.ndarray, label: int = 0) -> None:
        """Set intensity and label where `inside` is true."""
        self.intensity[inside] = signal[inside] if isinstance(signal, np.ndarray) else signal
        self.label[inside] = label
