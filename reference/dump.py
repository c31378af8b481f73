"""Dumps every tap of the reference for one prompt: the other side of `pyrex dump`, for `pyrex bisect`.

    python dump.py --model models/shapes --image red_circle.png --image-root models/shapes/examples --noise --out trace.safetensors
    python dump.py --model DIR --messages chat.json --image-root tests/golden --dtype bf16 --steps 3 --out trace.bin

Tap names and the layout of the file are in README.md. Tensors keep the run's own dtype; f64 is rounded to f32.
"""

import argparse
import gc
import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

import torch

import taps
from noise import noise
from refmodel import ATTENTION, DTYPES, Reference, image_paths, sha256, versions
from tensor_file import save_raw, save_tensors, weight_hashes

FORMAT = "pyrex-dump-1"


@dataclass(frozen=True)
class Run:
    """What the reference is asked to compute. `messages`: a chat in Hugging Face's format, pictures as paths below `image_root`."""

    model: str
    messages: list
    image_root: str = "."
    dtype: str = "f32"
    steps: int = 0


def main(args):
    run = Run(args.model, messages_from(args), args.image_root, args.dtype, args.steps)
    recorded = record(run)
    metadata = describe(run, recorded)
    if args.noise:
        metadata["noise"] = noise(run, recorded)
    write(recorded, metadata, Path(args.out), args.taps or ["*"])


def messages_from(args):
    """The chat: a file in Hugging Face's format, or one user turn with the pictures before the words."""
    if args.messages:
        return json.loads(Path(args.messages).read_text())
    pictures = [{"type": "image", "path": path} for path in args.image]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": args.prompt}]}]


def record(run):
    """The taps of a run. Its model is gone afterwards: there may not be memory for this one and that of the noise."""
    reference = Reference(run.model, run.dtype)
    recorded = taps.record(reference, reference.inputs(run.messages, run.image_root), run.steps)
    del reference
    gc.collect()
    return recorded


def describe(run, recorded):
    """Where the numbers come from."""
    config = Path(run.model) / "config.json"
    return {
        "format": FORMAT,
        "producer": f"transformers {version('transformers')}",
        "versions": versions(),
        "model": run.model,
        "family": json.loads(config.read_text())["model_type"],
        "config_sha256": sha256(config),
        "weights": weight_hashes(run.model),
        "messages": run.messages,
        "prompt_ids": recorded["prep.input_ids"].tolist(),
        "images": [sha256(Path(run.image_root) / path) for path in image_paths(run.messages)],
        "dtype": run.dtype,
        "device": "cpu",
        "attention": ATTENTION,
        "steps": str(run.steps),
    }


def write(recorded, metadata, out, globs):
    """Writes the taps that match a glob, in order of execution, and their noise."""
    tensors = {name: stored(tensor) for name, tensor in matching(recorded, globs).items()}
    if "noise" in metadata:
        figures = {mode: matching(metadata["noise"][mode], globs) for mode in ("cumulative", "isolated")}
        metadata = metadata | {"noise": metadata["noise"] | figures}
    if out.suffix == ".bin":
        save_raw(tensors, out, metadata)
    else:
        save_tensors(tensors, out, {key: as_string(value) for key, value in metadata.items()})


def matching(named, globs):
    return {name: value for name, value in named.items() if any(fnmatchcase(name, glob) for glob in globs)}


def stored(tensor):
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def as_string(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--prompt", default="Describe this image.")
    parser.add_argument("--image", action="append", default=[], help="may be repeated")
    parser.add_argument("--messages", help="JSON file with a whole chat, instead of --prompt and --image")
    parser.add_argument("--image-root", default=".", help="folder that picture paths are relative to")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--steps", type=int, default=0, help="also dump this many greedy decode steps")
    parser.add_argument("--noise", action="store_true", help="also say how far the reference is from itself computed another way")
    parser.add_argument("--taps", action="append", metavar="GLOB", help="only the taps whose names match; may be repeated")
    parser.add_argument("--out", required=True, help="a safetensors file, or raw f32 and a JSON file if it ends in .bin")
    main(parser.parse_args())
