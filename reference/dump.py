"""Dumps every tap of the reference for one prompt, to bisect against `pyrex dump`.

    python dump.py --model models/shapes --image red_circle.png --prompt "Describe this image." --out trace.safetensors
    python dump.py --model DIR --messages chat.json --image-root tests/golden --dtype bf16 --steps 3 --out trace.safetensors

Tap names are listed in README.md. Tensors keep the run's own dtype. A manifest, `trace.json`, is written beside the file.
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import save_file

import taps
from refmodel import ATTENTION, DTYPES, Reference, image_paths, sha256, versions


def messages_from(args):
    """The chat: a file in Hugging Face's format, or one user turn with the pictures before the words."""
    if args.messages:
        return json.loads(Path(args.messages).read_text())
    pictures = [{"type": "image", "path": path} for path in args.image]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": args.prompt}]}]


def manifest(args, messages, recorded):
    return {
        "model_sha256": sha256(Path(args.model) / "model.safetensors"),
        "messages": messages,
        "images": {path: sha256(Path(args.image_root) / path) for path in image_paths(messages)},
        "prompt_ids": recorded["prep.input_ids"].tolist(),
        "dtype": args.dtype,
        "attention": ATTENTION,
        "steps": args.steps,
        "versions": versions(),
        "taps": {name: [str(tensor.dtype).removeprefix("torch."), *tensor.shape] for name, tensor in recorded.items()},
    }


def main(args):
    reference = Reference(args.model, args.dtype)
    messages = messages_from(args)
    recorded = taps.record(reference, reference.inputs(messages, args.image_root), args.steps)
    out = Path(args.out)
    save_file(dict(recorded), out)
    out.with_suffix(".json").write_text(json.dumps(manifest(args, messages, recorded), ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--prompt", default="Describe this image.")
    parser.add_argument("--image", action="append", default=[], help="may be repeated")
    parser.add_argument("--messages", help="JSON file with a whole chat, instead of --prompt and --image")
    parser.add_argument("--image-root", default=".", help="folder that picture paths are relative to")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--steps", type=int, default=0, help="also dump this many greedy decode steps")
    parser.add_argument("--out", required=True)
    main(parser.parse_args())
