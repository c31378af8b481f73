"""Files of named tensors: safetensors in a given order, raw f32, and the hashes of a checkpoint's weights.

The safetensors package writes tensors in an order of its own and metadata in a random one; these writers give the same
bytes for the same call.
"""

import hashlib
import json
from pathlib import Path

import numpy
import torch

DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}


def save_tensors(tensors, path, metadata):
    """Writes a safetensors file: tensors in the order of the dict, without gaps. `metadata`: `{key: string}`."""
    header, offset = {"__metadata__": dict(sorted(metadata.items()))}, 0
    for name, tensor in tensors.items():
        span = [offset, offset + tensor.nbytes]
        header[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
        offset += tensor.nbytes
    encoded = json.dumps(header, ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors.values():
            file.write(raw_bytes(tensor))


def save_raw(tensors, path, metadata):
    """Writes every tensor as little-endian f32 to `path`, and beside it a JSON file that says where each one lies."""
    entries, offset = [], 0
    with open(path, "wb") as file:
        for name, tensor in tensors.items():
            entries.append({"name": name, "shape": list(tensor.shape), "dtype": "f32", "offset": offset})
            offset += file.write(raw_bytes(tensor.float()))
    described = {"metadata": dict(sorted(metadata.items())), "tensors": entries}
    Path(path).with_suffix(".json").write_text(json.dumps(described, ensure_ascii=False, indent=1) + "\n")


def raw_bytes(tensor):
    """The elements in row-major order. numpy has no bf16, so they are looked at as bytes."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def weight_hashes(folder):
    """`{name: sha256}` of the raw bytes of every tensor of a checkpoint. The files are mapped, not loaded."""
    hashes = {}
    for path in weight_files(Path(folder)):
        data = numpy.memmap(path, mode="r")
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = (start + offset for offset in entry["data_offsets"])
            hashes[name] = hashlib.sha256(data[begin:end]).hexdigest()
    return dict(sorted(hashes.items()))


def weight_files(folder):
    """One file, or those an index names."""
    single = folder / "model.safetensors"
    if single.exists():
        return [single]
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    return [folder / name for name in sorted(set(weight_map.values()))]
