"""Training batches: pictures as patches, conversations as padded ids and labels."""

import math

import numpy as np
import torch
from PIL import Image

from . import words
from .model import MAX_SOFT_TOKENS, PATCH, POOL
from .scenes import Scene

CELL = PATCH * POOL
# Grids of soft tokens (rows, columns) that the resize rule gives for common aspect ratios, and how often to draw each.
ASPECTS = {
    (8, 8): (1, 1), (7, 9): (3, 4), (9, 7): (4, 3), (6, 10): (2, 3), (10, 6): (3, 2), (5, 11): (1, 2), (11, 5): (2, 1),
    (6, 11): (9, 16), (11, 6): (16, 9), (4, 14): (1, 3), (14, 4): (3, 1),
}  # fmt: skip
GRIDS, GRID_WEIGHTS = list(ASPECTS), [10, 2.5, 2.5, 2, 2, 1, 1, 1.5, 1.5, 0.5, 0.5]
SIDES = [48, 64, 80, 96, 96, 112, 128, 128, 160, 192, 224, 256]


def target_grid(height, width):
    """The reference's resize rule, in cells."""
    factor = math.sqrt(MAX_SOFT_TOKENS * CELL * CELL / (height * width))
    return math.floor(factor * height / CELL), math.floor(factor * width / CELL)


def picture_size(rng, grid):
    """A random (height, width) that the resize rule maps to `grid`."""
    tall, wide = ASPECTS[grid]
    while True:
        side = rng.choice(SIDES) if rng.random() < 0.6 else rng.randrange(48, 260)
        ratio = (wide / tall) * (1 if rng.random() < 0.6 else rng.uniform(0.93, 1.07))
        height, width = (side, round(side * ratio)) if ratio >= 1 else (round(side / ratio), side)
        if target_grid(height, width) == grid:
            return height, width


def to_patches(image, grid):
    """u8 `[P, 768]` in the order (py, px, channel)."""
    rows, columns = grid
    image = image.resize((columns * CELL, rows * CELL), Image.BICUBIC)
    pixels = np.asarray(image).reshape(rows * POOL, PATCH, columns * POOL, PATCH, 3)
    return pixels.transpose(0, 2, 1, 3, 4).reshape(-1, PATCH * PATCH * 3)


def image_batch(rng, count, grid, drawn_grid=None, **scene_options):
    """`count` pictures whose natural grid is `grid`, cut into patches of `drawn_grid`."""
    pixels, scenes = [], []
    for _ in range(count):
        height, width = picture_size(rng, grid)
        scene = Scene(rng, width, height, **scene_options)
        pixels.append(to_patches(scene.render(rng), drawn_grid or grid))
        scenes.append(scene)
    return torch.from_numpy(np.stack(pixels)), scenes


class ChatEncoder:
    """Conversations to ids; pieces repeat a lot, so their encodings are kept."""

    def __init__(self, tokenizer):
        self.tokenizer, self.known = tokenizer, {}

    def piece(self, text):
        if text not in self.known:
            self.known[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self.known[text]

    def chat(self, messages, soft_tokens=0):
        """(ids, labels) with the placeholder expanded to `soft_tokens`."""
        ids, labels = [], []
        for text, learned in words.rendered(messages):
            piece = self.piece(text.replace("<|image|>", "<|image>" + "<|image|>" * soft_tokens + "<image|>"))
            ids += piece
            labels += piece if learned else [-100] * len(piece)
        return ids, labels

    def batch(self, conversations, soft_tokens=0):
        """Right-padded `[B, T]` ids and labels, T a multiple of 16."""
        chats = [self.chat(messages, soft_tokens) for messages in conversations]
        length = -(-max(len(ids) for ids, _ in chats) // 16) * 16
        ids = torch.zeros(len(chats), length, dtype=torch.long)
        labels = torch.full((len(chats), length), -100)
        for row, (chat_ids, chat_labels) in enumerate(chats):
            ids[row, : len(chat_ids)] = torch.tensor(chat_ids)
            labels[row, : len(chat_labels)] = torch.tensor(chat_labels)
        return ids, labels
