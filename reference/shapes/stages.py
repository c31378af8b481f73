"""The three training stages: vision tower alone, language on a frozen tower, both jointly with clipping on.

Each stage counts steps, not minutes, so that a run depends on its seeds only. Learning rates follow a cosine.
"""

import math
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from . import words
from .batches import GRID_WEIGHTS, GRIDS, ChatEncoder, image_batch
from .model import POOL, VISION, calibrate_clipping, encode_images, next_token_loss, run_text, set_clipping
from .scenes import NAMES, SHAPES

TEXT_SHARE = 0.15
LANGUAGE_MIX = (0.36, 0.70)
# The curriculum of the vision stage: (drawn grid, natural grid) of ever more soft tokens; the last phase uses GRIDS.
LARGE_SHAPES = [((2, 2), (8, 8)), ((2, 2), (8, 8)), ((2, 3), (7, 9)), ((3, 2), (9, 7))]
MIDDLE = [
    ((3, 3), (8, 8)), ((4, 4), (8, 8)), ((4, 4), (8, 8)), ((3, 4), (7, 9)), ((4, 3), (9, 7)), ((3, 5), (5, 11)),
    ((5, 3), (11, 5)), ((5, 5), (8, 8)),
]  # fmt: skip


class Heads(nn.ModuleDict):
    """Linear read-outs that teach the tower; thrown away afterwards."""

    def __init__(self):
        width = VISION["hidden_size"]
        sizes = {"shape": len(SHAPES) + 1, "color": len(NAMES) + 1, "background": len(NAMES), "occupancy": 16, "geometry": 3}
        super().__init__({name: nn.Linear(width, size) for name, size in sizes.items()})

    def cell_loss(self, soft_tokens, scenes, grid):
        """Shape and colour of every soft token, and the background."""
        features = unit_rms(soft_tokens)
        labels = [scene.cell_labels(*grid) for scene in scenes]
        shapes, colors = (torch.from_numpy(stack(labels, i)).flatten(1) for i in (0, 1))
        background = torch.tensor([ground for _, _, ground in labels])[:, None].expand(-1, shapes.shape[1])
        loss = balanced(self["shape"](features), shapes) + balanced(self["color"](features), colors)
        return loss + F.cross_entropy(self["background"](features).flatten(0, 1), background.flatten())

    def patch_loss(self, patches, scenes, grid):
        """Occupancy of every patch, and where its object's centre is."""
        features = unit_rms(patches)
        labels = [scene.patch_labels(grid[0] * POOL, grid[1] * POOL) for scene in scenes]
        occupancy, geometry, valid = (torch.from_numpy(stack(labels, i)).float() for i in range(3))
        covered = F.binary_cross_entropy_with_logits(self["occupancy"](features), occupancy)
        distance = (self["geometry"](features) - geometry).abs().mean(-1) * valid
        return 2 * covered + distance.sum() / valid.sum().clamp(min=1)


def stack(labels, i):
    return np.stack([label[i] for label in labels])


def unit_rms(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def balanced(logits, labels):
    """Cross entropy in which the few object cells weigh twice as much as all empty ones."""
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none").view_as(labels)
    objects, empty = labels > 0, labels == 0
    return (loss * objects).sum() / objects.sum().clamp(min=1) + 0.5 * (loss * empty).sum() / empty.sum().clamp(min=1)


class Schedule:
    """AdamW over parameter groups `(parameters, scale)`; matrices decay, vectors do not."""

    def __init__(self, groups, steps, first, last, warmup, decay):
        self.steps, self.first, self.last, self.warmup = steps, first, last, warmup
        split = []
        for parameters, scale in groups:
            parameters = [p for p in parameters if p.requires_grad]
            split.append({"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay, "scale": scale})
            split.append({"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "scale": scale})
        self.optimizer = torch.optim.AdamW(split, lr=first, betas=(0.9, 0.98))
        self.parameters = [p for group in split for p in group["params"]]

    def update(self, step, loss):
        rate = self.last + (self.first - self.last) * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / self.warmup) * group["scale"]
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()


def report(stage, step, steps, **figures):
    if (step + 1) % max(1, steps // 40) == 0:
        print(f"{stage} {step + 1}/{steps}", *(f"{name} {value:.4f}" for name, value in figures.items()), flush=True)


def vision_batch(rng, progress):
    """One batch of the curriculum: `(pixels, scenes, grid, offset)`."""
    draw = rng.random()
    large, middle = (0.8, 1.0) if progress < 0.30 else (0.15, 0.9) if progress < 0.58 else (0.0, 0.2)
    if draw >= middle:
        grid = rng.choices(GRIDS, GRID_WEIGHTS)[0]
        return *image_batch(rng, 6, grid), grid, (0, 0)
    offset = (rng.randrange(22), rng.randrange(22))
    if draw < large:
        grid, natural = rng.choice(LARGE_SHAPES)
        return *image_batch(rng, 32, natural, grid, mix=(1, 1), largest=True), grid, offset
    grid, natural = rng.choice(MIDDLE)
    return *image_batch(rng, 200 // (grid[0] * grid[1]), natural, grid, mix=(1, 1)), grid, offset


def train_vision(model, heads, steps):
    """Stage 1: the tower learns shapes, colours and places from dense labels; clipping off."""
    rng, tower = random.Random(1000), model.model.vision_tower
    set_clipping(model, False)
    schedule = Schedule([([*tower.parameters(), *heads.parameters()], 1.0)], steps, 1.2e-3, 2.4e-5, 100, 0.02)
    for step in range(steps):
        pixels, scenes, grid, offset = vision_batch(rng, step / steps)
        soft_tokens, patches = encode_images(model, pixels, grid, offset)
        cells, places = heads.cell_loss(soft_tokens, scenes, grid), heads.patch_loss(patches, scenes, grid)
        schedule.update(step, cells + places)
        report("vision", step, steps, cells=cells.item(), places=places.item())


def language_parameters(model):
    return [*model.model.language_model.parameters(), *model.model.embed_vision.parameters()]


def conversation_batch(rng, chats, count):
    """A batch about pictures, or (15 %) of small talk without any: `(ids, labels, pixels, scenes, grid)`."""
    if rng.random() < TEXT_SHARE:
        return *chats.batch([words.text_conversation(rng) for _ in range(24)]), None, None, None
    grid = rng.choices(GRIDS, GRID_WEIGHTS)[0]
    pixels, scenes = image_batch(rng, count, grid, mix=LANGUAGE_MIX)
    conversations = [words.image_conversation(scene, rng) for scene in scenes]
    return *chats.batch(conversations, grid[0] * grid[1]), pixels, scenes, grid


def train_language(model, tokenizer, steps):
    """Stage 2: the decoder learns to talk about what the frozen tower sees."""
    rng, chats = random.Random(9000), ChatEncoder(tokenizer)
    set_clipping(model, False)
    schedule = Schedule([(language_parameters(model), 1.0)], steps, 2e-3, 1e-3, 100, 0.01)
    for step in range(steps):
        ids, labels, pixels, _scenes, grid = conversation_batch(rng, chats, 16)
        soft_tokens = None
        if pixels is not None:
            with torch.no_grad():
                soft_tokens, _ = encode_images(model, pixels, grid)
        loss, right = next_token_loss(model, run_text(model, ids, soft_tokens), labels)
        schedule.update(step, loss)
        report("language", step, steps, loss=loss.item(), right=right)


def train_joint(model, tokenizer, heads, steps):
    """Stage 3: everything together, with clip bounds that bind; the dense labels stay as a side task."""
    rng, chats = random.Random(9100), ChatEncoder(tokenizer)
    bounds_rng = random.Random(4321)
    torch.manual_seed(11)
    grids = [(8, 8), (7, 9), (11, 5), (6, 10), (8, 8)]
    calibrate_clipping(model, [(image_batch(bounds_rng, 8, grid)[0], grid) for grid in grids])
    set_clipping(model, True)
    vision = [*model.model.vision_tower.parameters(), *heads.parameters()]
    schedule = Schedule([(language_parameters(model), 1.0), (vision, 0.2)], steps, 1e-3, 1e-5, 100, 0.01)
    for step in range(steps):
        ids, labels, pixels, scenes, grid = conversation_batch(rng, chats, 16)
        soft_tokens, total = None, 0.0
        if pixels is not None:
            soft_tokens, _ = encode_images(model, pixels, grid)
            total = 0.4 * heads.cell_loss(soft_tokens, scenes, grid)
        loss, right = next_token_loss(model, run_text(model, ids, soft_tokens), labels)
        schedule.update(step, total + loss)
        report("joint", step, steps, loss=loss.item(), right=right)


@torch.no_grad()
def exact_captions(model, tokenizer, count):
    """Share of held-out captions that greedy decoding would get exactly right (every token right under teacher forcing)."""
    rng, chats, right = random.Random(78), ChatEncoder(tokenizer), []
    for grid in [(8, 8), (7, 9), (11, 5), (6, 10)]:
        pixels, scenes = image_batch(rng, max(1, count // 4), grid)
        asked = [[("user", "<|image|>Describe this image."), ("model", words.caption(scene))] for scene in scenes]
        ids, labels = chats.batch(asked, grid[0] * grid[1])
        hidden_states = run_text(model, ids, encode_images(model, pixels, grid)[0])
        best, targets = model.lm_head(hidden_states[:, :-1]).argmax(-1), labels[:, 1:]
        right += ((best == targets) | (targets == -100)).all(1).tolist()
    return sum(right) / len(right)
