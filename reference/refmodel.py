"""Loads the reference (transformers, eager attention) in an explicit dtype, and renders chats into its inputs.

`Dtype` names are `f32`, `bf16` and `f64`. The f64 model is the oracle of the goldens: see `NoRounding`.
"""

import hashlib
import platform
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

import torch
from PIL import Image
from torch.overrides import TorchFunctionMode
from transformers import AutoProcessor, Gemma4ForConditionalGeneration

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f64": torch.float64}
ATTENTION = "eager"


class NoRounding(TorchFunctionMode):
    """Turns every explicit f32 of the reference's code into f64.

    The reference hard-codes f32 islands (`.float()`, `softmax(dtype=torch.float32)`, rotary frequencies, the pooler).
    In an f64 run they would be the only places that lose precision. Only the function arguments change: the formulas
    stay the reference's own.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float:
            return args[0].double()
        args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        kwargs = {key: torch.float64 if arg is torch.float32 else arg for key, arg in (kwargs or {}).items()}
        return func(*args, **kwargs)


class Reference:
    """A loaded model, its processor, and the arithmetic it runs in."""

    def __init__(self, folder, dtype, attention=ATTENTION):
        torch.set_num_threads(1)
        self.folder, self.dtype = Path(folder), dtype
        self.processor = AutoProcessor.from_pretrained(folder)
        with self.arithmetic():
            self.model = Gemma4ForConditionalGeneration.from_pretrained(
                folder, dtype=DTYPES[dtype], attn_implementation=attention
            ).eval()

    def arithmetic(self):
        """The context in which the model must be loaded and called."""
        return NoRounding() if self.dtype == "f64" else nullcontext()

    def inputs(self, messages, image_root):
        """Token ids, pixels and positions of a chat; pictures are paths below `image_root`.

        The template is applied with `tokenize=True`: tokenising the rendered text instead would double `<bos>`.
        """
        inputs = self.processor.apply_chat_template(
            open_images(messages, image_root),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        return self.cast_pixels(inputs)

    def text_inputs(self, input_ids):
        """Inputs for bare token ids."""
        ids = torch.tensor([input_ids])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def cast_pixels(self, inputs):
        """Pixels are f32 in the reference, whatever the model's dtype; only the oracle continues from them in f64."""
        if self.dtype == "f64" and "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].double()
        return inputs

    @torch.no_grad()
    def forward(self, inputs, **kwargs):
        """One forward over all rows (`logits_to_keep` stays 0, so that no layer is sliced)."""
        with self.arithmetic():
            return self.model(**inputs, **kwargs)


def open_images(messages, image_root):
    """The same messages with every image path replaced by the opened picture."""
    return [{**message, "content": open_content(message["content"], image_root)} for message in messages]


def open_content(content, image_root):
    if isinstance(content, str):
        return content
    return [
        {"type": "image", "image": Image.open(Path(image_root) / part["path"])} if part["type"] == "image" else part
        for part in content
    ]


def image_paths(messages):
    """Paths of all pictures of a chat, in document order."""
    return [
        part["path"]
        for message in messages
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part["type"] == "image"
    ]


def versions():
    """What a golden depends on besides the weights."""
    packages = ("torch", "torchvision", "transformers", "tokenizers", "safetensors", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
