"""Paint the organs of a virtual abdomen (T2-weighted, fat-suppressed) in the order in which they cover each other."""

from dataclasses import dataclass

import numpy as np

from tskd.data.phantom.anatomy import LEFT_KIDNEY, LIVER, RIGHT_KIDNEY, SPLEEN, Abdomen

_EVERYWHERE = 1e5  # radius of a structure that runs through all slices, mm


def paint_abdomen(body: Abdomen, half_width: float, half_depth: float) -> None:
    """Paint a whole abdomen.

    Args:
        body: the grid.
        half_width: of the trunk at the skin, mm.
        half_depth: of the trunk at the skin, mm.
    """
    wall = paint_trunk(body, half_width, half_depth)
    size = half_width / 155
    below_lung = paint_chest(body, wall, size)
    cavity = (wall < -2) & below_lung
    paint_bowel(body, cavity, size)
    stomach = paint_stomach(body, cavity, size)
    right, left = place_kidneys(body, size)
    paint_spleen(body, cavity & (stomach > 0.05) & (left.room > 0), wall, size)
    paint_liver(body, cavity & (stomach > 0.08) & (right.room > 0), size)
    paint_kidneys(body, cavity, [right, left])
    paint_middle(body, size)


def paint_trunk(body: Abdomen, half_width: float, half_depth: float) -> np.ndarray:
    """Skin, fat, muscle wall and visceral fat; returns the distance from the cavity's wall, mm, negative inside."""
    fat = body.rng.uniform(6, 22)
    muscle = body.rng.uniform(8, 13)
    trunk = body.blob((0, 0, 0), (half_width, half_depth, _EVERYWHERE), power=body.rng.uniform(2.2, 2.6), wobble=0.01)
    depth = trunk * half_depth  # roughly mm from the skin
    fat_signal = body.vary(0.17, 0.3) * np.exp(0.3 * body.noise(70))
    body.paint(depth < 0, fat_signal)
    body.paint((depth < 0) & (depth > -1.5), body.vary(0.28, 0.2))
    wall = depth + fat + muscle
    muscle_signal = body.vary(0.11, 0.25)
    body.paint(wall < muscle, muscle_signal * np.exp(0.15 * body.noise(14)))
    body.paint(wall < 0, body.vary(0.23, 0.3) * np.exp(0.4 * body.noise(7)))
    for side in (-1, 1):
        for centre, radii in (((33, 73), (32, 21)), ((30, 40), (15, 17))):  # back muscles, psoas
            middle = (side * centre[0], centre[1] * half_depth / 105, 0.0)
            shape = body.blob(middle, (*radii, _EVERYWHERE), turn=side * 10, wobble=0.05)
            body.paint((shape < 0) & (depth < -6), muscle_signal * np.exp(0.2 * body.noise(10)))
    return np.asarray(wall)


def paint_chest(body: Abdomen, wall: np.ndarray, size: float) -> np.ndarray:
    """Lungs and heart above the diaphragm; returns where the abdomen is."""
    x, y, z = body.xyz
    domes = [
        top - 55 * ((x - middle * size) / 110) ** 2 - 45 * ((y + 15) / 90) ** 2
        for top, middle in ((body.rng.uniform(108, 135), -60), (body.rng.uniform(96, 118), 62))
    ]
    below = z < np.maximum(*domes) + 3 * body.noise(50)
    body.paint((wall < 0) & ~below, body.vary(0.05, 0.4) * np.exp(0.35 * body.noise(8)))
    heart = body.blob((30 * size, -32, 150), (58, 45, 55), turn=25, wobble=0.06)
    blood = body.vary(0.25, 0.3) * np.exp(0.6 * body.noise(16))
    body.paint((heart < 0) & (wall < 0) & ~below, blood)
    return below


def paint_bowel(body: Abdomen, cavity: np.ndarray, size: float) -> None:
    """Loops of bowel: any content from gas to water, so they look like every organ somewhere."""
    rng = body.rng
    loops: list[tuple[tuple[float, float, float], float]]
    loops = [((-98 * size, 2, -45), 21.0), ((100 * size, 8, -30), 17.0), ((102 * size, 14, 5), 14.0)]  # colon
    for _ in range(int(rng.integers(32, 46))):
        centre = (rng.uniform(-95, 105) * size, rng.uniform(-68, -4), rng.uniform(-80, 25))
        loops.append((centre, rng.uniform(9, 21)))
    bend, fine = 0.15 * body.noise(16), body.noise(7)
    for centre, radius in loops:
        radii = (radius * rng.uniform(0.8, 1.8), radius * rng.uniform(0.7, 1.1), radius * rng.uniform(1, 2))
        loop = body.blob(centre, radii, turn=rng.uniform(-60, 60), power=2) + bend
        content = rng.choice(
            [rng.uniform(0.03, 0.15), rng.uniform(0.2, 0.5), rng.uniform(0.4, 0.8), rng.uniform(0.8, 1)]
        )
        body.paint((loop < 0) & cavity, rng.uniform(0.25, 0.5))
        body.paint((loop < -0.22) & cavity, content * np.exp(rng.uniform(0.05, 0.4) * fine))
    pancreas = body.blob((12 * size, -14, 38), (62, 13, 17), turn=-18, wobble=0.15)
    body.paint((pancreas < 0) & cavity, body.vary(0.45, 0.25) * np.exp(0.25 * body.noise(8)))


def paint_stomach(body: Abdomen, cavity: np.ndarray, size: float) -> np.ndarray:
    """Stomach with mixed content; returns its implicit function."""
    rng = body.rng
    centre = (rng.uniform(48, 66) * size, rng.uniform(-38, -18), rng.uniform(62, 82))
    scale = rng.uniform(0.75, 1.1)
    stomach = body.blob(centre, (36 * scale, 46 * scale, 46 * scale), turn=rng.uniform(-30, 10), wobble=0.1)
    body.paint((stomach < 0) & cavity, body.vary(0.32, 0.3) * np.exp(0.2 * body.noise(8)))
    content = rng.uniform(0.15, 0.9) * np.exp(0.6 * body.noise(14))
    body.paint((stomach < -0.2) & cavity, np.clip(content, 0.03, 1.1))
    return stomach


def paint_spleen(body: Abdomen, cavity: np.ndarray, wall: np.ndarray, size: float) -> None:
    """Spleen: a crescent along the left posterior wall."""
    rng = body.rng
    grow = rng.uniform(0.85, 1.2)
    centre = (rng.uniform(88, 100) * size, rng.uniform(28, 44), rng.uniform(50, 72))
    reach = body.blob(centre, (48 * grow, 52 * grow, 52 * grow), turn=-35, wobble=0.06)
    thick = wall + rng.uniform(24, 36) * grow + 4 * body.noise(40)
    body.paint((reach < 0) & (thick > 0) & cavity, body.vary(0.72, 0.24) * np.exp(0.08 * body.noise(9)), SPLEEN)


def paint_liver(body: Abdomen, cavity: np.ndarray, size: float) -> None:
    """Liver with vessels, and the gall bladder at its lower edge."""
    rng = body.rng
    grow = rng.uniform(0.9, 1.1)
    centre = (rng.uniform(-80, -68) * size, rng.uniform(-12, 2), rng.uniform(48, 66))
    right = body.blob(centre, (72 * size * grow, 80 * grow, rng.uniform(85, 105)), power=2.4, wobble=0.05, lean=0.12)
    reach = rng.uniform(55, 90)
    left = body.blob((-8 * size, -44, centre[2] + 22), (reach * size, 36 * grow, 44), turn=-6, power=2.0, wobble=0.08)
    spine = body.blob((6, 38, 0), (48, 40, _EVERYWHERE), power=2.0)
    inside = (np.minimum(right, left) < 0) & cavity & (spine > 0)
    body.paint(inside, body.vary(0.37, 0.2) * np.exp(0.1 * body.noise(6)), LIVER)
    tubes = np.hypot(body.noise(20), body.noise(20))
    body.paint(inside & (tubes < 0.24), body.vary(0.68, 0.2), LIVER)
    gall = body.blob(
        (rng.uniform(-58, -38) * size, rng.uniform(-66, -48), rng.uniform(0, 28)), (14, 19, 22), wobble=0.05
    )
    body.paint((gall < 0) & cavity, rng.uniform(0.85, 1.1))


@dataclass(frozen=True)
class Kidney:
    """Implicit functions of a kidney, its hilum, and the room around it that liver and spleen keep clear."""

    label: int
    shape: np.ndarray
    hilum: np.ndarray
    room: np.ndarray


def place_kidneys(body: Abdomen, size: float) -> list[Kidney]:
    """Right and left kidney: long axis to the back and side, upper pole to the middle, hilum open to the middle."""
    rng = body.rng
    kidneys = []
    for side, label, height in ((-1, RIGHT_KIDNEY, rng.uniform(-16, 4)), (1, LEFT_KIDNEY, rng.uniform(-4, 16))):
        grow, turn, lean = rng.uniform(0.88, 1.12), side * rng.uniform(20, 50), -0.16 * side
        x, y = side * rng.uniform(64, 76) * size, rng.uniform(31, 42)
        radii = (32 * grow, 24 * grow, rng.uniform(50, 62))
        shape = body.blob((x, y, height), radii, turn=turn, wobble=0.05, lean=lean)
        hilum = body.blob((x - side * 26, y - 13, height), (18, 10, 20), turn=side * 40, wobble=0.1)
        wide = (1.35 * radii[0], 1.5 * radii[1], 1.1 * radii[2])
        room = body.blob((x - side * 8, y + 16, height), wide, turn=turn, lean=lean)
        kidneys.append(Kidney(label, shape, hilum, np.minimum(shape - 0.1, room)))
    return kidneys


def paint_kidneys(body: Abdomen, cavity: np.ndarray, kidneys: list[Kidney]) -> None:
    """Bright cortex, mottled medulla, a rim of dark fat."""
    rng = body.rng
    signal = body.vary(0.82, 0.22)
    for kidney in kidneys:
        body.paint((kidney.room < 0) & cavity & (body.label == 0), body.vary(0.13, 0.2))
    for kidney in kidneys:
        inside = (kidney.shape < 0) & (kidney.hilum > 0) & cavity
        body.paint(inside, signal * rng.uniform(0.95, 1.05) * np.exp(0.12 * body.noise(8)), kidney.label)
        medulla = inside & (kidney.shape < -0.25) & (body.noise(8) > 0.4)
        body.paint(medulla, signal * rng.uniform(0.65, 0.9), kidney.label)


def paint_middle(body: Abdomen, size: float) -> None:
    """Spine with its canal, aorta and vena cava, which run through all slices."""
    rng = body.rng
    bone = body.vary(0.2, 0.3) * np.exp(0.15 * body.noise(9))
    y_spine = rng.uniform(22, 30)
    body.paint(body.blob((0, y_spine, 0), (23 * size, 18 * size, _EVERYWHERE), wobble=0.04) < 0, bone)
    body.paint(body.blob((0, y_spine + 42, 0), (5, 22, _EVERYWHERE)) < 0, bone * 0.6)
    body.paint(body.blob((0, y_spine + 23, 0), (10, 8, _EVERYWHERE)) < 0, bone * 0.3)
    body.paint(body.blob((0, y_spine + 23, 0), (8.5, 6.5, _EVERYWHERE)) < 0, rng.uniform(0.9, 1.15))
    for centre, radius in (((14, y_spine - 27), 11.0), ((-22, y_spine - 22), 12.0)):
        vessel = body.blob((*centre, 0), (radius, radius * rng.uniform(0.75, 1), _EVERYWHERE), wobble=0.05)
        body.paint(vessel < 0, 0.08)
        body.paint(vessel < -0.22, rng.choice([0.06, 0.3, 0.6]) * np.exp(0.3 * body.noise(6)))
