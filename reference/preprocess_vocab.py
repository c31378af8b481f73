"""Gemma 4's real vocabulary as a tokenizer of the reference, read from the GGUF file that scripts/test-vocab.sh fetches."""

import json
import struct
from pathlib import Path

from tokenizers import Tokenizer

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
CONTROL, USER_DEFINED = 3, 4


def metadata(path):
    """The key-value part of a GGUF file, little-endian, version 3."""
    raw, at = path.read_bytes(), 8

    def take(code):
        nonlocal at
        value, = struct.unpack_from("<" + code, raw, at)
        at += struct.calcsize("<" + code)
        return value

    def value(kind):
        nonlocal at
        if kind == 8:
            length = take("Q")
            at += length
            return raw[at - length:at].decode()
        if kind == 9:
            inner, length = take("I"), take("Q")
            return [value(inner) for _ in range(length)]
        return take(SCALARS[kind])

    take("Q")  # tensors
    found = {}
    for _ in range(take("Q")):
        key = value(8)
        found[key] = value(take("I"))
    return found


def tokenizer(folder, like):
    """The vocabulary of `folder` in the pipeline of the tokenizer.json `like`."""
    fields = metadata(Path(folder) / "ggml-vocab-gemma-4.gguf")
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    spec = json.loads(Path(like).read_text())
    spec["model"]["vocab"] = {token: index for index, token in enumerate(tokens)}
    spec["model"]["merges"] = [merge.split(" ", 1) for merge in fields["tokenizer.ggml.merges"]]
    spec["added_tokens"] = [
        {"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for index, (token, kind) in enumerate(zip(tokens, kinds)) if kind in (CONTROL, USER_DEFINED)]
    spec["post_processor"] = None
    return Tokenizer.from_str(json.dumps(spec))
