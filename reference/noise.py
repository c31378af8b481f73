"""How much noise the reference itself has: the same prompt computed another way, compared tap by tap.

Two right ways to compute the same thing differ by as much as rounding alone can do. `pyrex bisect` asks of every tap
whether Pyrex is further away from the reference than that.
"""

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import taps
from refmodel import Reference

OTHER = {
    "f32": "f32 with sdpa attention and every sum computed in f64 and rounded once",
    "bf16": "bf16 with sdpa attention and every sum computed in f64 and rounded once; vision tower and embed_vision in f32",
    "f64": "the stock f32 run",
}

SUMS = {
    F.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm, torch.einsum,
    F.softmax, torch.softmax, torch.Tensor.softmax, torch.mean, torch.Tensor.mean, torch.sum, torch.Tensor.sum,
    F.scaled_dot_product_attention,
}  # fmt: skip


# Audio knows eager attention only, and never runs.
SDPA = {"": "eager", "text_config": "sdpa", "vision_config": "sdpa"}


class ExactSums(TorchFunctionMode):
    """Computes every sum in f64 and rounds it once to the dtype it would have had.

    What the order of a sum can change is gone; elementwise operations and their roundings stay the reference's own.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        dtype = kwargs.get("dtype") or next((arg.dtype for arg in args if is_float(arg)), None)
        if func not in SUMS or dtype is None:
            return func(*args, **kwargs)
        args = [widened(arg) for arg in args]
        kwargs = {key: widened(arg) for key, arg in kwargs.items() if key != "dtype"}
        return func(*args, **kwargs).to(dtype)


def is_float(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def widened(value):
    return value.double() if is_float(value) else value


class ExactReference(Reference):
    """The reference with exact sums and sdpa attention. In bf16 its vision part is f32, as in Pyrex."""

    def __init__(self, folder, dtype):
        super().__init__(folder, dtype, attention=SDPA)
        if dtype == "bf16" and self.model.model.vision_tower is not None:
            self.widen_vision()

    def arithmetic(self):
        return ExactSums()

    def widen_vision(self):
        self.model.model.vision_tower.float()
        embed_vision = self.model.model.embed_vision.float()
        embed_vision.register_forward_hook(lambda _module, _args, output: output.bfloat16())


def noise(run, recorded):
    """Relative L2 of the other way, `‖other − run‖ / ‖run‖`, for every float tap of `recorded`, the taps of `run`.

    `cumulative`: run freely. `isolated`: every tap of the other run is replaced by the run's own once it is recorded, so
    that a figure holds the error of what lies between the taps before it and this one.
    """
    other = Reference(run.model, "f32") if run.dtype == "f64" else ExactReference(run.model, run.dtype)
    inputs = other.inputs(run.messages, run.image_root)
    figures = {"other": OTHER[run.dtype]}
    for mode, forced in (("cumulative", None), ("isolated", recorded)):
        figures[mode] = distances(taps.record(other, inputs, run.steps, followed=recorded, forced=forced), recorded)
    return figures


def distances(other, recorded):
    return {name: distance(other[name], tensor) for name, tensor in recorded.items() if tensor.is_floating_point()}


def distance(other, tensor):
    """Relative L2 to four digits; 0 means equal."""
    error = (other.double() - tensor.double()).norm() / tensor.double().norm().clamp(min=1e-300)
    return float(f"{error.item():.4g}")
