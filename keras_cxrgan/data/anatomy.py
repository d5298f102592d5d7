"""The digital patient: a random thorax and the line integrals of X-rays through it.

Frame of reference, in cm: x to the patient's left (the right of a frontal film), y down from the
lung apex, z forward.  Rays run parallel to z, so a quadric is crossed over a closed-form depth
interval and every tissue is a length in cm.  Attenuation is linear, in 1/cm, near 60 keV.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SOFT = 0.195  # water and muscle
LUNG = 0.055  # aerated lung, about 0.28 g/cm3
BONE = 0.38  # compact bone, above the soft tissue it replaces
ARM_OUT = 1.7  # cm from the chest wall to the axis of the arm


# --- Physics primitives ---------------------------------------------------------------------


def half_chord(x, y, centre, semi_axes, tilt: float = 0.0, column: bool = False) -> np.ndarray:
    """Half the length in cm of a ray through an ellipsoid, 0 where the ray misses it.

    `x`, `y` are arrays in cm, `centre` is (x, y), `semi_axes` is (a, b, c) along x, y, z and `tilt`
    turns the ellipsoid in the image plane (radians, clockwise on the film).  With `column` the
    lower half is replaced by an upright elliptic cylinder: a dome, such as the diaphragm's.

    >>> float(half_chord(np.zeros(1), np.zeros(1), (0, 0), (2, 3, 5))[0])
    5.0
    """
    dx, dy = x - centre[0], y - centre[1]
    if tilt:
        cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
    if column:
        dy = np.minimum(dy, 0)
    inside = 1 - (dx / semi_axes[0]) ** 2 - (dy / semi_axes[1]) ** 2
    return semi_axes[2] * np.sqrt(np.maximum(inside, 0))


def uncovered_length(half, cover, shift: float) -> np.ndarray:
    """Length in cm of the depth interval [-half, half] outside [shift - cover, shift + cover].

    >>> float(uncovered_length(np.float64(5), np.float64(2), 1.0))
    6.0
    """
    covered = np.minimum(half, shift + cover) - np.maximum(-half, shift - cover)
    return 2 * half - np.maximum(covered, 0)


def tube_chords(segments: np.ndarray, size: int, pitch: float) -> np.ndarray:
    """Lengths in cm through a chain of round tubes, drawn on a `size` x `size` grid.

    `segments` has rows (x0, y0, x1, y1, radius0, radius1) in cm from the grid's upper left corner;
    `pitch` is the grid step in cm.  Where segments overlap the longer chord counts, so joints
    leave no seam.  A tube thinner than the grid is widened at equal cross-section.
    """
    chords = np.zeros(size * size, np.float32)
    if not len(segments):
        return chords.reshape(size, size)
    x0, y0, x1, y1, r0, r1 = (column[:, None] for column in segments.astype(np.float32).T)
    reach = np.maximum(np.abs(x1 - x0), np.abs(y1 - y0)) / 2 + np.maximum(r0, r1) + pitch
    window = np.arange(int(np.ceil(2 * reach.max() / pitch)) + 1)
    columns = np.floor(((x0 + x1) / 2 - reach.max()) / pitch).astype(np.int64) + window
    rows = np.floor(((y0 + y1) / 2 - reach.max()) / pitch).astype(np.int64) + window
    px = ((columns + 0.5) * pitch).astype(np.float32)[:, None, :]
    py = ((rows + 0.5) * pitch).astype(np.float32)[:, :, None]
    x0, y0, x1, y1, r0, r1 = (v[:, :, None] for v in (x0, y0, x1, y1, r0, r1))
    dx, dy = x1 - x0, y1 - y0
    along = ((px - x0) * dx + (py - y0) * dy) / np.maximum(dx**2 + dy**2, 1e-9)
    along = np.clip(along, 0, 1)
    distance2 = (px - x0 - along * dx) ** 2 + (py - y0 - along * dy) ** 2
    radius = r0 + along * (r1 - r0)
    drawn = np.maximum(radius, 0.75 * pitch)
    chord = 2 * np.sqrt(np.maximum(drawn**2 - distance2, 0)) * (radius / drawn) ** 2
    hit = (chord > 0) & ((columns >= 0) & (columns < size))[:, None, :]
    hit &= ((rows >= 0) & (rows < size))[:, :, None]
    cells = rows[:, :, None] * size + columns[:, None, :]
    np.maximum.at(chords, cells[hit], chord[hit])
    return chords.reshape(size, size)


def path_segments(x, y, radius) -> np.ndarray:
    """Rows for `tube_chords` along the polyline x, y with the given radius or radii (cm)."""
    radius = np.broadcast_to(radius, np.shape(x))
    return np.stack([x[:-1], y[:-1], x[1:], y[1:], radius[:-1], radius[1:]], axis=1)


# --- Anatomy sampling -----------------------------------------------------------------------


@dataclass(frozen=True)
class Anatomy:
    """One patient; lengths in cm, angles in radians."""

    cage_half_width: float
    cage_half_depth: float
    dome_right: float  # y of the right hemidiaphragm's top
    dome_left: float
    dome_height: float  # dome top to the level where it meets the chest wall
    medial_border: float  # of the lungs, from the midline
    heart: tuple[float, float, float, float]  # x, y, long and short semi-axis
    heart_tilt: float
    atrium: tuple[float, float, float, float]  # x, y, semi-axes
    aorta: tuple[float, float, float]  # knob: x, y, radius
    carina: float  # y
    wall: float  # soft tissue and fat outside the ribs
    body_half_depth: float
    neck: float  # half-width
    shoulder_y: float
    arm_angle: float
    breast: float  # thickness, 0 for none
    breast_y: float
    rib_tilt: float
    rib_spacing: float
    rib_half_width: float  # as a fraction of the spacing
    rib_phase: float
    bone: float  # mineral density, 1 is average
    spine_bend: float
    stomach: tuple[float, float, float, float]  # x, y, semi-axes of the gas bubble
    vessels: np.ndarray  # segments
    bones: np.ndarray  # segments: clavicles, scapulae, humeri
    airways: np.ndarray  # segments


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient from `rng`."""

    def normal(mean: float, sd: float) -> float:
        return float(mean + sd * np.clip(rng.standard_normal(), -2, 2))

    build = normal(1.0, 0.07)
    inspiration = normal(0.0, 1.0)
    fat = abs(normal(0.0, 1.0))
    width = normal(13.8, 1.0) * build
    dome = (normal(20.6, 1.4) + 2.0 * inspiration) * build
    drop = normal(1.2, 0.6)
    heart_size = normal(1.02, 0.11) * build * (1 - 0.04 * inspiration)
    carina = 8.6 * build + normal(0, 0.5)
    heart_x = normal(2.1, 0.4)
    heart_y = dome - normal(2.3, 0.6) * build
    shoulder = normal(-0.8, 1.2)
    anatomy = dict(
        cage_half_width=width,
        cage_half_depth=normal(8.6, 0.7) * build,
        dome_right=dome,
        dome_left=dome + drop,
        dome_height=normal(7.8, 0.8),
        medial_border=normal(2.3, 0.25),
        heart=(heart_x, heart_y, 7.4 * heart_size, 5.0 * heart_size),
        heart_tilt=normal(0.62, 0.1) + 0.08 * inspiration,
        atrium=(-1.1 * build, heart_y - 0.2, 2.9 * heart_size, 5.4 * heart_size),
        aorta=(normal(1.6, 0.25), carina - normal(2.4, 0.4), normal(1.9, 0.25)),
        carina=carina,
        wall=2.8 + 1.2 * fat,
        body_half_depth=(normal(10.4, 0.6) + 1.1 * fat) * build,
        neck=normal(6.0, 0.5) + 0.4 * fat,
        shoulder_y=shoulder,
        arm_angle=abs(normal(0.06, 0.1)),
        breast=max(0.0, normal(-0.3, 1.6)) * (0.6 + 0.4 * fat),
        breast_y=normal(17.0, 1.2) * build,
        rib_tilt=normal(0.5, 0.07) - 0.03 * inspiration,
        rib_spacing=normal(2.35, 0.1) * build,
        rib_half_width=normal(0.27, 0.02),
        rib_phase=rng.random(),
        bone=normal(1.0, 0.12),
        spine_bend=normal(0.0, 0.35),
        stomach=(
            normal(6.0, 0.8),
            dome + drop + normal(2.6, 0.4),
            abs(normal(2.0, 0.8)) + 0.3,
            abs(normal(0.9, 0.4)) + 0.2,
        ),
    )
    return Anatomy(
        **anatomy,
        vessels=_sample_vessels(rng, width, carina, dome, build),
        bones=_sample_bones(rng, shoulder, anatomy["arm_angle"], build, width + anatomy["wall"]),
        airways=_sample_airways(rng, carina, anatomy["spine_bend"]),
    )


def _sample_vessels(rng, width: float, carina: float, dome: float, build: float) -> np.ndarray:
    """Both pulmonary trees, each branch thinning outward (Murray's law at a fork)."""
    # Angles are measured from straight up, outward; the lower lobes' vessels are the widest.
    angle = np.tile([0.3, 0.6, 1.0, 1.45, 1.9, 2.25, 2.55, 2.8], 2)
    radius = np.tile([0.42, 0.36, 0.34, 0.36, 0.45, 0.52, 0.62, 0.55], 2)
    side = np.repeat([-1.0, 1.0], 8)
    angle = angle + rng.normal(0, 0.12, 16)
    radius = radius * rng.uniform(0.8, 1.15, 16)
    x = side * (3.0 * build + rng.normal(0, 0.4, 16))
    y = carina + np.where(side < 0, 2.2, 1.3) + rng.normal(0, 0.8, 16)
    age = np.zeros(16)
    segments = []
    while len(x):
        angle = angle + rng.normal(0, 0.16, len(x))
        step = rng.uniform(0.7, 1.2, len(x))
        x1, y1, thinner = x + side * step * np.sin(angle), y - step * np.cos(angle), 0.93 * radius
        segments.append(np.stack([x, y, x1, y1, radius, thinner], axis=1))
        fork = (rng.random(len(x)) < 0.42) & (age > 0)
        spread = np.where(fork, rng.uniform(0.25, 0.6, len(x)), 0)
        # A fork leaves a main branch in place and adds a thinner one outward.
        x, y, side = (np.concatenate([v, v[fork]]) for v in (x1, y1, side))
        angle = np.concatenate([angle - 0.5 * spread, (angle + spread)[fork]])
        radius = np.concatenate([np.where(fork, 0.86, 1) * thinner, 0.68 * thinner[fork]])
        age = np.concatenate([np.where(fork, 0, age + 1), np.zeros(fork.sum())])
        inside = (np.abs(x) < 0.95 * width) & (np.abs(x) > 1.5) & (y < dome + 3) & (y > 0)
        keep = inside & (radius > 0.06)
        x, y, side, angle, radius, age = (v[keep] for v in (x, y, side, angle, radius, age))
    return np.concatenate(segments)


def _sample_bones(rng, shoulder: float, arm_angle: float, build: float, wall: float) -> np.ndarray:
    """Clavicles, the borders of the scapulae, and the humeri."""
    parts = []
    slope = rng.normal(0.16, 0.07)
    for side in (-1, 1):
        medial = 3.2 + rng.normal(0, 0.4)
        t = np.linspace(0, 1, 12)
        x = 1.6 + (15.6 * build - 1.6) * t
        y = medial - slope * (x - 1.6) + 0.75 * np.sin(2 * np.pi * (t - 0.08)) - 0.6 * t
        radius = 0.55 + 0.25 * (1 - t) ** 3 + 0.1 * t
        parts.append(path_segments(side * x, y, radius))
        joint = (wall + ARM_OUT, shoulder + 2.6)
        x = np.array([11.5, 11.0, 11.4, 12.4, 13.6, 14.4, 15.2, 15.8]) * build
        y = shoulder + np.array([0.5, 3.0, 7.0, 11.0, 13.0, 11.0, 7.0, 3.0])
        parts.append(path_segments(side * (x + rng.normal(0, 0.4)), y, 0.28))
        x = np.array([12.0, 15.0, 17.6, 18.8]) * build
        parts.append(path_segments(side * x, shoulder + np.array([0.6, -0.6, -1.2, -0.4]), 0.55))
        t = np.linspace(0, 1, 8)
        x = joint[0] - 0.8 * (1 - t) ** 4 + np.sin(arm_angle) * 30 * t
        y = joint[1] + np.cos(arm_angle) * 30 * t
        parts.append(path_segments(side * x, y, np.maximum(2.2 - 9 * t, 1.15)))
    return np.concatenate(parts)


def _sample_airways(rng, carina: float, bend: float) -> np.ndarray:
    """Trachea and the two main bronchi."""
    y = np.linspace(-9, carina, 8)
    x = 0.2 + bend * 0.5 * np.sin(y / 5)
    parts = [path_segments(x, y, 0.82 + rng.normal(0, 0.08))]
    for side, steep, length in ((-1, 1.25, 3.4), (1, 0.85, 4.6)):
        t = np.linspace(0, 1, 4)
        out, down = x[-1] + side * length * t, carina + 0.8 * steep * length * t
        parts.append(path_segments(out, down, 0.62 - 0.2 * t))
    return np.concatenate(parts)


# --- Line integrals -------------------------------------------------------------------------


def cage_half_width(anatomy: Anatomy, y: np.ndarray) -> np.ndarray:
    """Half-width in cm of the inner chest wall at height y: narrow at the apex, wide below."""
    t = np.clip(y / (1.05 * anatomy.dome_right), 0, 1)
    rise = np.sqrt(1 - (1 - t) ** 2)
    return anatomy.cage_half_width * (0.25 * rise + 0.75 * np.sqrt(rise))


def lung_length(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Length in cm of aerated lung on each ray: the pleural cavities less what lies in them.

    Heart, great vessels and diaphragm share one mid-depth, forward of the lungs', so that their
    union is the longest of them; lung remains behind and below the domes as it does in a patient.
    """
    away = np.abs(x)
    border = cage_half_width(anatomy, y + 1.0)
    apex2 = (np.maximum(5.5 - y, 0) / 5.5) ** 2
    medial = anatomy.medial_border + 1.2 * apex2
    middle, half_width = (border + medial) / 2, np.maximum((border - medial) / 2, 1e-3)
    across = (away - middle) / half_width
    inside = 1 - np.maximum(across, 0) ** 2 - np.minimum(across, 0) ** 4 - apex2
    depth = np.sqrt(np.maximum(inside, 0) * border / anatomy.cage_half_width)
    depth *= anatomy.cage_half_depth

    width, drop = anatomy.cage_half_width, anatomy.dome_height
    dome = (0.61 * width, drop, 1.05 * anatomy.cage_half_depth)
    heart_x, heart_y, long, short = anatomy.heart
    atrium_x, atrium_y, wide, tall = anatomy.atrium
    knob_x, knob_y, knob = anatomy.aorta
    organs = [
        half_chord(x, y, (-0.45 * width, anatomy.dome_right + drop), dome, column=True),
        half_chord(x, y, (0.45 * width, anatomy.dome_left + drop), dome, column=True),
        half_chord(x, y, (heart_x, heart_y), (long, short, 5.5), tilt=anatomy.heart_tilt),
        half_chord(x, y, (atrium_x, atrium_y), (wide, tall, 4.5)),
        half_chord(x, y, (knob_x, knob_y), (knob, 1.2 * knob, 4.0)),
        # The pulmonary trunk, and the superior vena cava as a long upright spindle.
        half_chord(x, y, (knob_x, knob_y + 2.2 * knob), (2.3, 3.2, 4.0), tilt=-0.25),
        half_chord(x, y, (-1.4, knob_y + 1.0), (1.8, 9.0, 4.0)),
    ]
    return uncovered_length(depth, np.maximum.reduce(organs), shift=1.2)


def body_length(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Length in cm of body on each ray.

    Trunk, neck, shoulders and arms share their mid-depth, so their depth intervals are nested and
    the union is the longest; a 4-norm in place of the maximum rounds the folds between them.
    """
    width = anatomy.cage_half_width + anatomy.wall
    deep = anatomy.body_half_depth
    away = np.abs(x)
    # Stretched so that the cross-section is a rounded box, as chests are, and no ellipse.
    boxed = away * (0.5 + (0.5 / width) * away)
    trunk = half_chord(boxed, y, (0, 9.0), (width, 13.0, deep), column=True)
    neck = half_chord(away, np.float32(0), (0, 0), (anatomy.neck, 1, 6.2))
    joint_x, joint_y = width + ARM_OUT, anatomy.shoulder_y + 3.6
    girdle = (0.5 * joint_x, joint_y + 0.4)
    shoulder = half_chord(away, y, girdle, (0.85 * joint_x, 7.6, 8.0), tilt=0.42)
    outward = joint_x + np.sin(anatomy.arm_angle) * np.maximum(y - joint_y, 0)
    arm = half_chord(away - outward, y, (0, joint_y), (4.9, 5.0, 6.2), column=True)
    return 2 * np.sqrt(np.sqrt(trunk**4 + neck**4 + shoulder**4 + arm**4))


def rib_length(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Effective length in cm of cortical bone in the ribs on each ray.

    The cage is a bony shell between two tubes; each ray crosses its back and its front.  A rib is
    where a plane tilted forward and down meets the shell, so one phase function of the crossing
    point draws all twelve pairs, their turn at the chest wall included.
    """
    inner = cage_half_width(anatomy, y + 0.6) + 0.1
    outer = inner + 0.75
    ratio = anatomy.cage_half_depth / anatomy.cage_half_width
    outer_z = np.sqrt(np.maximum(outer**2 - x**2, 0)) * ratio
    inner_z = np.sqrt(np.maximum(inner**2 - x**2, 0)) * ratio
    shell = np.minimum(outer_z - inner_z, 1.0) + 0.25
    depth = outer * ratio
    tilt = anatomy.rib_tilt * (0.75 + 0.02 * np.clip(y, 0, 25))
    away = np.abs(x)
    total = 0
    for back, z in ((True, -outer_z), (False, outer_z)):
        level = (y - tilt * (z + depth)) / anatomy.rib_spacing
        wobble = 0.06 * np.sin(1.7 * level + np.float32(2 * np.pi * anatomy.rib_phase))
        number = 1 + level * (1.04 - 0.006 * level) + wobble
        off2 = ((number - np.clip(np.rint(number), 1, 12)) / anatomy.rib_half_width) ** 2
        # A compact rim round spongy bone: an ellipse less most of a smaller one.
        rib = np.sqrt(np.maximum(1 - off2, 0)) - 0.6 * np.sqrt(np.maximum(1 - off2 / 0.62, 0))
        if back:
            rib *= np.clip((away - 1.8) / 0.8, 0, 1) * np.clip((12.0 - number) / 3, 0.1, 1)
        else:
            # In front the bone is flatter and ends where the costal cartilage begins.
            junction = np.clip((away - 0.42 * outer) / 1.5, 0, 1)
            rib *= 0.7 * junction * np.clip(9.6 - number, 0, 1)
        total = total + rib * shell
    return total


def spine_length(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Effective length in cm of bone in the vertebrae (pedicles and spinous processes included)."""
    off = x - anatomy.spine_bend * np.sin(y / 8)
    spacing = anatomy.rib_spacing * 1.02
    level = y / spacing - 0.25
    within = np.abs(level - np.rint(level))  # 0 mid-vertebra, 0.5 in the disc
    waist = 1.55 + 0.018 * np.clip(y, -5, 30) + 0.9 * within**2
    block = np.maximum(1 - (off / waist) ** 6, 0)
    plate = np.clip((0.43 - within) / 0.06, 0, 1)
    length = 0.8 * block * (0.6 + 0.4 * plate)
    lift = (level - np.rint(level)) * spacing
    pedicle = ((np.abs(off) - 0.95) / 0.32) ** 2 + ((lift + 0.35) / 0.55) ** 2
    process = (off / 0.22) ** 2 + ((lift - 0.5) / 0.75) ** 2
    return length + 0.25 * np.exp(-2 * (pedicle - 1) ** 2) + 0.35 * np.exp(-1.5 * process)


def tissue_path(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Optical path (dimensionless) without the tubes, and the lung length in cm, on each ray."""
    body = body_length(anatomy, x, y)
    lung = np.minimum(lung_length(anatomy, x, y), np.maximum(body - 2, 0))
    path = SOFT * body - (SOFT - LUNG) * lung
    path += BONE * anatomy.bone * 0.95 * rib_length(anatomy, x, y)
    near = np.flatnonzero(np.abs(x).min(axis=0) < 3.5)
    middle = slice(near[0], near[-1] + 1)
    path[:, middle] += BONE * anatomy.bone * spine_length(anatomy, x[:, middle], y[:, middle])
    sx, sy, wide, tall = anatomy.stomach
    path -= SOFT * 1.6 * half_chord(x, y, (sx, sy), (wide, tall, 1.6))
    if anatomy.breast:
        away = np.abs(x)
        # Hanging tissue: thin above, where it leaves no edge, and full at the lower fold.
        low = np.clip((y - anatomy.breast_y) / 10.0 + 0.5, 0, 1) ** 2
        breast = (6.2, 5.6, anatomy.breast)
        path += 1.4 * SOFT * low * half_chord(away, y, (7.6, anatomy.breast_y), breast, tilt=0.25)
    return np.maximum(path, 0), lung
