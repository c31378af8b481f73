"""Synthetic pictures of coloured shapes, with dense labels for training the vision tower."""

import math

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ["circle", "square", "triangle", "star", "diamond", "cross"]
COLORS = {
    "red": (220, 30, 30), "green": (30, 150, 50), "blue": (30, 60, 210), "yellow": (245, 225, 40),
    "orange": (250, 140, 20), "purple": (125, 40, 160), "pink": (250, 150, 195), "black": (15, 15, 15),
    "white": (250, 250, 250), "gray": (128, 128, 128),
}  # fmt: skip
# The exact CSS colours a person would use: they must be well inside what the model has seen.
EXACT = {
    "red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "orange": (255, 165, 0),
    "purple": (128, 0, 128), "pink": (255, 192, 203), "black": (0, 0, 0), "white": (255, 255, 255), "gray": (128, 128, 128),
}  # fmt: skip
NAMES = list(COLORS)
SIZES = {"small": (0.17, 0.27), "medium": (0.36, 0.48), "large": (0.60, 0.82)}


def jitter(rng, name):
    """A shade of a named colour."""
    if rng.random() < 0.35:
        return EXACT[name]
    mix = rng.random()
    return tuple(int(min(255, max(0, a + mix * (b - a) + rng.uniform(-10, 10)))) for a, b in zip(COLORS[name], EXACT[name]))


def outline(shape, cx, cy, r):
    """Corners of a shape whose bounding box is about 2r wide."""
    if shape == "square":
        points = [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]
    elif shape == "triangle":
        points = [(0, -1), (1, 0.8), (-1, 0.8)]
    elif shape == "diamond":
        points = [(0, -1), (0.85, 0), (0, 1), (-0.85, 0)]
    elif shape == "cross":
        a = 0.34
        points = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
    else:
        spikes = [(1 if k % 2 == 0 else 0.42, k * math.pi / 5) for k in range(10)]
        points = [(radius * math.sin(angle), -radius * math.cos(angle)) for radius, angle in spikes]
    return [(cx + r * x, cy + r * y) for x, y in points]


def draw(canvas, shape, cx, cy, r, fill, fx=1.0, fy=1.0):
    """Draws a shape given in picture coordinates onto a canvas scaled by `fx`, `fy`."""
    if shape == "circle":
        canvas.ellipse([(cx - r) * fx, (cy - r) * fy, (cx + r) * fx, (cy + r) * fy], fill=fill)
    else:
        canvas.polygon([(x * fx, y * fy) for x, y in outline(shape, cx, cy, r)], fill=fill)


class Scene:
    """One picture: `kind` is one | two | many, `objects` holds (shape, colour, x, y, radius).

    `mix` gives the share of `one` and of `one or two`; `largest` draws a single large shape only.
    """

    def __init__(self, rng, width, height, mix=(0.5, 0.75), largest=False):
        self.width, self.height, self.side = width, height, min(width, height)
        self.background = "white" if rng.random() < 0.25 else rng.choice(NAMES)
        self.colors = [color for color in NAMES if color != self.background]
        kind = rng.random()
        if kind < mix[0]:
            self.one(rng, "large" if largest else rng.choice(list(SIZES)))
        elif kind < mix[1]:
            self.two(rng)
        else:
            self.many(rng)

    def one(self, rng, size):
        self.kind, self.size = "one", size
        r = rng.uniform(*SIZES[size]) * self.side / 2
        shape, color = rng.choice(SHAPES), rng.choice(self.colors)
        column, row = (1, 1) if (size == "large" or rng.random() < 0.2) else (rng.randrange(3), rng.randrange(3))
        if size == "large" and self.width >= 1.8 * self.height:
            column = rng.randrange(3)
        if size == "large" and self.height >= 1.8 * self.width:
            row = rng.randrange(3)
        self.cell = (column, row)
        place = [third(rng, index, length, r) for index, length in ((column, self.width), (row, self.height))]
        self.objects = [(shape, color, *place, r)]

    def two(self, rng):
        self.kind = "two"
        first, second = rng.sample([(shape, color) for shape in SHAPES for color in self.colors], 2)
        sideways = 0.5 if self.width == self.height else 0.7 if self.width > self.height else 0.3
        self.horizontal = rng.random() < sideways
        self.objects = []
        for pair, (low, high) in ((first, (0.0, 0.36)), (second, (0.64, 1.0))):
            r = rng.uniform(0.17, 0.42) * self.side / 2
            spans = [(low, high), (0.25, 0.75)] if self.horizontal else [(0.25, 0.75), (low, high)]
            place = [span(rng, *ends, r, length) for ends, length in zip(spans, (self.width, self.height))]
            self.objects.append((*pair, *place, r))

    def many(self, rng):
        """Two to five equal shapes that do not touch."""
        self.kind = "many"
        count, shape, color = rng.randrange(2, 6), rng.choice(SHAPES), rng.choice(self.colors)
        for _ in range(50):
            r = rng.uniform(0.17, 0.32 if count < 4 else 0.27) * self.side / 2
            places = scatter(rng, count, r, self.width, self.height)
            if len(places) == count:
                break
        self.objects = [(shape, color, x, y, r) for x, y in places]

    def render(self, rng):
        """The picture, at one of several degrees of anti-aliasing."""
        over = rng.choice([1, 1, 2, 4])
        image = Image.new("RGB", (self.width * over, self.height * over), jitter(rng, self.background))
        canvas, fills = ImageDraw.Draw(image), {}
        for shape, color, x, y, r in self.objects:
            fill = fills.setdefault((shape, color), jitter(rng, color))
            draw(canvas, shape, x, y, r, fill, over, over)
        return image.resize((self.width, self.height), Image.BOX) if over > 1 else image

    def coverage(self, shape, x, y, r, rows, columns, detail):
        """Share of each cell of a `[rows, columns]` grid that a shape covers."""
        image = Image.new("L", (columns * detail, rows * detail), 0)
        draw(ImageDraw.Draw(image), shape, x, y, r, 1, columns * detail / self.width, rows * detail / self.height)
        return np.asarray(image).reshape(rows, detail, columns, detail).mean((1, 3))

    def cell_labels(self, rows, columns):
        """Per soft token: shape id and colour id (0 none, -100 unclear), and the background's id."""
        shapes, colors = np.zeros((2, rows, columns), np.int64)
        for shape, color, x, y, r in self.objects:
            share = self.coverage(shape, x, y, r, rows, columns, 6)
            unclear = (share > 0.06) & (share <= 0.3)
            for labels, value in ((shapes, SHAPES.index(shape) + 1), (colors, NAMES.index(color) + 1)):
                labels[unclear & (labels == 0)] = -100
                labels[share > 0.3] = value
        return shapes, colors, NAMES.index(self.background)

    def patch_labels(self, rows, columns):
        """Per patch: 4 × 4 occupancy `[P, 16]`, offset and log size of its object `[P, 3]`, and whether it has one `[P]`."""
        occupancy = np.zeros((rows * 4, columns * 4), np.float32)
        geometry, valid = np.zeros((rows, columns, 3), np.float32), np.zeros((rows, columns), np.float32)
        grid_y, grid_x = np.mgrid[0:rows, 0:columns] + 0.5
        for shape, _color, x, y, r in self.objects:
            fine = self.coverage(shape, x, y, r, rows * 4, columns * 4, 2)
            occupancy = np.maximum(occupancy, fine)
            inside = fine.reshape(rows, 4, columns, 4).mean((1, 3)) > 0.05
            dx, dy = (grid_x * self.width / columns - x) / r, (grid_y * self.height / rows - y) / r
            target = np.stack([dx, dy, np.full_like(dx, math.log(r / self.side) + 2)], -1)
            geometry[inside], valid[inside] = target[inside], 1
        occupancy = occupancy.reshape(rows, 4, columns, 4).transpose(0, 2, 1, 3).reshape(rows * columns, 16)
        return occupancy.astype(np.float32), geometry.reshape(-1, 3), valid.reshape(-1)


def third(rng, index, length, r):
    """A coordinate in the first, middle or last third."""
    if index == 1:
        return length * rng.uniform(0.455, 0.545)
    low, high = r + 0.01 * length, max(r + 0.02 * length, min(0.33 * length, r + 0.12 * length))
    x = rng.uniform(low, high)
    return x if index == 0 else length - x


def span(rng, low, high, r, length):
    low, high = max(low * length, r + 1), min(high * length, length - r - 1)
    return rng.uniform(low, high) if low < high else (low + high) / 2


def scatter(rng, count, r, width, height):
    """Up to `count` centres at least 2.5 radii apart."""
    places = []
    for _ in range(300):
        x, y = rng.uniform(r + 1, width - r - 1), rng.uniform(r + 1, height - r - 1)
        if all((x - a) ** 2 + (y - b) ** 2 > (2.5 * r) ** 2 for a, b in places):
            places.append((x, y))
            if len(places) == count:
                break
    return places
