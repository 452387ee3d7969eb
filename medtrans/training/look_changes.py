"""Random changes for the examples of the look: other heads, scanners and strippers, and no heads.

`changed` leaves a contrast what it is; `spoilt` makes a volume that is none of the known ones. Both
work on cubes (2, E, E, E) in steps of 2.5 mm, intensity in [0, 1] and mask. `moved` changes the
shape of what a batch of cells shows. Randomness is that of the generator alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from medtrans.preprocessing.coarse import ranks

_ALIKE = 0.5  # rank correlation from which a made-up contrast may be a known one
_TRIES = 6
_BIAS = 0.25  # of the logarithm of a coil's gain, at its knots
_NOISE = 0.05  # of the range, at most
_SOFT = 5  # voxels that a smoothed mask looks at


def changed(cube: Tensor, rng: Generator) -> Tensor:
    """Show the same contrast on another scanner, with lesions, stripped by another tool."""
    if _chance(0.4, rng):
        cube = _with_spots(cube, rng)
    if _chance(0.4, rng):
        cube = _cut(cube, rng)
    if _chance(0.25, rng):
        cube = _with_shell(cube, rng)
    if _chance(0.5, rng):
        cube = _masked(cube[0].clamp(0, 1) ** math.exp(_between(-0.45, 0.45, rng)), cube[1])
    if _chance(0.5, rng):
        steps = torch.rand(_count(2, 6, rng), generator=rng) + 0.4
        cube = _masked(
            _curve(cube[0], torch.cat([steps[:1] * 0, steps.cumsum(0)])) / steps.sum(), cube[1]
        )
    return _scanned(cube, rng)


def spoilt(cube: Tensor, known: Sequence[Tensor], rng: Generator) -> Tensor:
    """Make a volume that is no contrast of this patient: other tissue values, or no anatomy.

    Parameters
    ----------
    cube : Tensor
    known : sequence of Tensor
        The cubes of all known contrasts of the same patient.
    rng : Generator
    """
    recoloured = _recoloured(cube, known, rng) if _chance(0.4, rng) else None
    if recoloured is not None:
        return changed(recoloured, rng)
    ways = (_shuffled, _clouds, _drawn, _magnified)
    return _scanned(ways[_count(0, len(ways) - 1, rng)](cube, rng), rng)


def moved(cells: Tensor, rng: Generator) -> Tensor:
    """Turn, scale, shift and mirror what a batch (B, C, E, E, E) shows, each a little."""
    thetas = []
    for _ in range(len(cells)):
        turn = torch.linalg.matrix_exp(_skew((torch.rand(3, generator=rng) - 0.5) * 0.5))
        scale = _between(0.87, 1.15, rng) * (1 + (torch.rand(3, generator=rng) - 0.5) * 0.16)
        scale[0] *= 1 if _chance(0.5, rng) else -1
        shift = (torch.rand(3, 1, generator=rng) - 0.5) * 0.12
        # An affine grid counts the last axis first.
        thetas.append(torch.cat([(turn / scale).flip((0, 1)), shift], 1))
    grid = functional.affine_grid(torch.stack(thetas), list(cells.shape), align_corners=False)
    return functional.grid_sample(cells, grid, align_corners=False)


def _recoloured(cube: Tensor, known: Sequence[Tensor], rng: Generator) -> Tensor | None:
    """Give every tissue another value, unlike in the known contrasts of the same patient."""
    inside = cube[1] > 0
    own = ranks(cube[0], inside)
    table = [ranks(other[0], inside)[inside] for other in known]
    for _ in range(_TRIES):
        values = _curve(own / 2 + 0.5, torch.rand(_count(3, 8, rng), generator=rng))
        pairs = [torch.stack([ranks(values, inside)[inside], other]) for other in table]
        if max(float(torch.corrcoef(pair)[0, 1]) for pair in pairs) < _ALIKE:
            return _masked(values, cube[1])
    return None


def _shuffled(cube: Tensor, rng: Generator) -> Tensor:
    """Take the patient apart into blocks, and put them together at random."""
    edge, blocks = cube.shape[-1], (4, 5, 8)[_count(0, 2, rng)]
    side = edge // blocks
    parts, filled = (
        c.unfold(0, side, side).unfold(1, side, side).unfold(2, side, side).reshape(-1, side**3)
        for c in cube
    )
    full = (filled.mean(dim=1) > 0.8).nonzero()[:, 0]
    if not len(full):
        return _clouds(cube, rng)
    drawn = full[torch.randint(len(full), (len(parts),), generator=rng)]
    grid = parts[drawn].reshape(*[blocks] * 3, *[side] * 3).permute(0, 3, 1, 4, 2, 5)
    return _masked(grid.reshape(edge, edge, edge), _body(cube, rng))


def _clouds(cube: Tensor, rng: Generator) -> Tensor:
    """Fill a body with clouds, as smooth as an abdomen's organs or as fine as texture."""
    shape, values = cube.shape[1:], torch.zeros(cube.shape[1:])
    for knots in (5, 10, 20, 40):
        drawn = torch.randn(1, 1, *[knots] * 3, generator=rng)
        values += _smooth(drawn, shape) * _between(0, 1, rng)
    if _chance(0.5, rng):  # organs: plateaus with edges
        values = torch.bucketize(values, torch.randn(6, generator=rng).sort().values)
        values = torch.rand(7, generator=rng)[values]
    return _masked(_unit(values), _body(cube, rng))


def _drawn(cube: Tensor, rng: Generator) -> Tensor:
    """Draw a phantom: a body with balls of even intensity."""
    values = torch.full(cube.shape[1:], _between(0, 1, rng))
    for _ in range(_count(2, 10, rng)):
        values[_ball(cube.shape[1:], rng, (0.05, 0.5))] = _between(0, 1, rng)
    return _masked(values, _body(cube, rng))


def _magnified(cube: Tensor, rng: Generator) -> Tensor:
    """Show a part as large as a whole."""
    edge = cube.shape[-1]
    side = round(edge / _between(1.7, 3.0, rng))
    corner = [_count(edge // 5, max(edge // 5, edge - edge // 5 - side), rng) for _ in range(3)]
    part = cube[(slice(None), *(slice(c, c + side) for c in corner))]
    if not part[1].any():
        return _clouds(cube, rng)
    grown = functional.interpolate(part[None], [edge] * 3, mode="trilinear")[0]
    return _masked(grown[0] / grown[1].clamp(min=1e-3), (grown[1] > 0.5).float())


def _body(cube: Tensor, rng: Generator) -> Tensor:
    """Outline something: the patient, a ball or a box."""
    kind = _count(0, 2, rng)
    if kind == 0:
        return cube[1]
    size = 0.4 + 0.6 * torch.rand(3, generator=rng)
    places = [c.abs() / s for c, s in zip(_coordinates(cube.shape[1:]), size, strict=True)]
    if kind == 1:
        outline: Tensor = places[0] ** 2 + places[1] ** 2 + places[2] ** 2 < 1
    else:
        outline = (places[0] < 1) & (places[1] < 1) & (places[2] < 1)
    return outline.float()


def _with_spots(cube: Tensor, rng: Generator) -> Tensor:
    """Add spots, faint and strong, bright and dark, as lesions are."""
    values, mask = cube
    for _ in range(_count(1, 5, rng)):
        spot = _ball(mask.shape, rng, (0.03, 0.22)).float() * _between(0.3, 1, rng)
        values = torch.lerp(values, torch.tensor(_between(0, 1, rng)), spot)
    return _masked(values, mask)


def _cut(cube: Tensor, rng: Generator) -> Tensor:
    """Take away a rim of uneven depth, or all beyond a plane."""
    values, mask = cube
    if _chance(0.5, rng):
        normal = functional.normalize(torch.randn(3, generator=rng), dim=0)
        x, y, z = _coordinates(mask.shape)
        height = normal[0] * x + normal[1] * y + normal[2] * z
        return _masked(values, mask * (height < _between(0.25, 0.7, rng)))
    rim = 0.55 + 0.3 * _smooth(torch.rand(1, 1, 4, 4, 4, generator=rng), mask.shape)
    return _masked(values, mask * (_softened(mask) > rim))


def _with_shell(cube: Tensor, rng: Generator) -> Tensor:
    """Put dark bone and a scalp of some intensity around the patient, or a thin rest of them."""
    values, mask = cube
    uneven = 0.12 * _smooth(torch.randn(1, 1, 5, 5, 5, generator=rng), mask.shape)
    reach = _softened(mask) + uneven * _between(0, 1, rng)
    bone, scalp = 0.35 * _between(0.4, 1, rng), 0.01 + 0.2 * _between(0, 1, rng)
    outside = mask < 0.5
    values = torch.where(outside & (reach > scalp), _between(0.2, 1, rng), values)
    values = torch.where(outside & (reach > bone), _between(0, 0.25, rng), values)
    return _masked(values, ((reach > scalp) | ~outside).float())


def _scanned(cube: Tensor, rng: Generator) -> Tensor:
    """Give another gain across the volume, resolution and noise."""
    values, mask = cube
    if _chance(0.6, rng):
        knots = torch.randn(1, 1, 3, 3, 3, generator=rng) * _BIAS * _between(0, 1, rng)
        values = values * _smooth(knots, mask.shape).exp()
    if _chance(0.5, rng):
        values = _thickened(values, mask, axis=_count(0, 2, rng))
    if _chance(0.4, rng):
        values = values + torch.randn(mask.shape, generator=rng) * _NOISE * _between(0, 1, rng)
    return _masked(values, mask)


def _thickened(values: Tensor, mask: Tensor, axis: int) -> Tensor:
    """Average over three voxels along an axis, as thick slices do."""
    weighted = values * mask
    total = weighted + weighted.roll(1, axis) + weighted.roll(-1, axis)
    weight = mask + mask.roll(1, axis) + mask.roll(-1, axis)
    return total / weight.clamp(min=1)


def _curve(values: Tensor, knots: Tensor) -> Tensor:
    """Map [0, 1] through knots that lie at even distances."""
    place = values.clamp(0, 1) * (len(knots) - 1)
    left = place.long().clamp(max=len(knots) - 2)
    return torch.lerp(knots[left], knots[left + 1], place - left)


def _softened(mask: Tensor) -> Tensor:
    """Smooth a mask over some 12 mm: a half at its border."""
    low = functional.avg_pool3d(mask[None, None], _SOFT)
    size = list(mask.shape)
    return functional.interpolate(low, size, mode="trilinear", align_corners=False)[0, 0]


def _ball(shape: torch.Size, rng: Generator, radius: tuple[float, float]) -> Tensor:
    """Mark an ellipsoid near the middle; radii are of half a cube."""
    centre = (torch.rand(3, generator=rng) - 0.5) * 1.2
    radii = _between(*radius, rng) * (0.6 + 0.8 * torch.rand(3, generator=rng))
    x, y, z = (
        ((c - m) / r) ** 2 for c, m, r in zip(_coordinates(shape), centre, radii, strict=True)
    )
    inside: Tensor = x + y + z < 1
    return inside


def _coordinates(shape: torch.Size) -> list[Tensor]:
    """Place from -1 to 1 along each axis, to be broadcast."""
    lines = [torch.linspace(-1, 1, n) for n in shape]
    return [lines[0][:, None, None], lines[1][None, :, None], lines[2][None, None, :]]


def _smooth(knots: Tensor, shape: torch.Size) -> Tensor:
    """Interpolate knots (1, 1, K, K, K) to a volume."""
    return functional.interpolate(knots, list(shape), mode="trilinear", align_corners=True)[0, 0]


def _skew(v: Tensor) -> Tensor:
    o = v[0] * 0
    rows = [torch.stack([o, -v[2], v[1]]), torch.stack([v[2], o, -v[0]])]
    return torch.stack([*rows, torch.stack([-v[1], v[0], o])])


def _unit(values: Tensor) -> Tensor:
    return (values - values.min()) / (values.max() - values.min()).clamp(min=1e-6)


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([values * mask, mask])


def _between(low: float, high: float, rng: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def _count(low: int, high: int, rng: Generator) -> int:
    """Draw a whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=rng))


def _chance(share: float, rng: Generator) -> bool:
    return _between(0, 1, rng) < share
