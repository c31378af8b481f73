"""What bench/gpu.sh measured, as one table and one JSON file: each figure beside the least time that the machine allows.

    python3 reference/gpu_table.py FOLDER CONFIG

Reads what the parts left in FOLDER, whatever of it is there, and writes FOLDER/gpu.json. A limit is the bytes that the work
must move by the rate of a copy, or its operations by the rate of a matrix product, both measured in the same run.
"""

import json
import sys
from pathlib import Path

BF16 = 2
PATCH_DIM = 3 * 16 * 16


def documents(path):
    """The JSON objects in a file, one a line; what a part that was cut off left half written is passed over."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def collect(folder):
    found = {"parts": list(documents(folder / "parts.jsonl")), "tests": list(documents(folder / "tests.jsonl")), "pyrex": {}}
    for part in found["parts"]:
        if part["name"].startswith("pyrex_"):
            found["pyrex"][part["name"].removeprefix("pyrex_")] = next(documents(folder / f"{part['name']}.out"), None)
    for name in ("ceilings", "transformers", "compiled"):
        for document in documents(folder / f"{name}.out"):
            found.setdefault("peer", {}).update(document)
    return found


class Shapes:
    """Bytes and operations that follow from a config."""

    def __init__(self, config):
        self.text, self.vision = config["text_config"], config["vision_config"]
        kinds = self.text["layer_types"]
        self.layers = [kind == "full_attention" for kind in kinds]
        self.num_owning = len(kinds) - self.text["num_kv_shared_layers"]

    def head_dim(self, full):
        return self.text["global_head_dim"] if full else self.text["head_dim"]

    def visible(self, full, context):
        return context if full else min(context, self.text["sliding_window"])

    def kv_bytes(self, context):
        """What attention reads for one token after `context` others: every layer reads, whoever owns what it reads."""
        heads = self.text["num_key_value_heads"]
        return sum(2 * BF16 * heads * self.head_dim(full) * self.visible(full, context) for full in self.layers)

    def prefill_flops(self, tokens):
        """Of the layers that own keys; behind them only the last token is computed."""
        width, heads, kv_heads = (
            self.text[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads")
        )
        per_layer, flops = self.text["hidden_size_per_layer_input"], 0
        for full in self.layers[: self.num_owning]:
            dim = self.head_dim(full)
            matrices = width * (2 * heads + 2 * kv_heads) * dim + 3 * width * self.text["intermediate_size"]
            matrices += 3 * width * per_layer
            pairs = sum(self.visible(full, position + 1) for position in range(tokens))
            flops += 2 * tokens * matrices + 4 * heads * dim * pairs
        return flops

    def vision_flops(self, soft_tokens):
        width, inner = self.vision["hidden_size"], self.vision["intermediate_size"]
        patches = soft_tokens * self.vision["pooling_kernel_size"] ** 2
        layer = 2 * patches * (4 * width**2 + 3 * width * inner) + 4 * patches**2 * width
        return self.vision["num_hidden_layers"] * layer + 2 * patches * PATCH_DIM * width


def of(document, *path):
    """What lies at `path`, if all of it is there."""
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def decode_row(found, shapes, name, target):
    """Tokens per second of one sequence, or of several, against reading the weights and the cache once a step."""
    run, copy = found["pyrex"].get(name), of(found, "peer", "ceilings", "copy_bytes_per_s")
    together = of(run, "decode", "tokens_per_s")
    rate, rows = (together, run["num_requests"]) if together else (of(run, "decode_tokens_per_s"), 1)
    single = found["pyrex"].get("decode_short")
    weights = single and single["decode_bytes_per_s"] / single["decode_tokens_per_s"]
    limit = None
    if run and copy and weights:
        generated = run.get("max_tokens") or run.get("completion_tokens")
        limit = copy / (weights / rows + shapes.kv_bytes(run["prompt_tokens"] + generated // 2))
    return {"unit": "tok/s", "limit": limit, "target": limit and target * limit, "measured": rate}


def time_row(found, ms, flops, limit_share=None, target=None):
    """Milliseconds against the operations of the work; the target is a share of the limit or a time."""
    matrix = of(found, "peer", "ceilings", "matrix_flop_per_s")
    limit = flops / matrix * 1e3 if matrix and flops else None
    return {"unit": "ms", "limit": limit, "target": target or (limit and limit / limit_share), "measured": ms}


def add_times(run, *keys):
    return sum(run[key] for key in keys) if run else None


def rows(found, shapes):
    """Every line of the table: its name, our figures, and the peer's best in the same unit."""
    runs = found["pyrex"]
    context = lambda name: of(runs.get(name), "prompt_tokens")
    peer = lambda *path: of(found, "peer", *path)
    best = lambda *figures: max((figure for figure in figures if figure), default=None)
    for name in ("decode_short", "decode_middle", "decode_long"):
        tokens = context(name)
        compiled = peer("compiled", "tokens_per_s") if name == "decode_short" else None
        row = decode_row(found, shapes, name, 0.75)
        yield f"decode, context {tokens}", row, best(peer("decode", str(tokens), "tokens_per_s"), compiled)
    requests = of(runs.get("batch"), "num_requests")
    row = decode_row(found, shapes, "batch", 0.6)
    yield f"decode, {requests} at once", row, best(*(peer(part, "tokens_per_s") for part in ("batch", "compiled_batch")))
    total = {"unit": "tok/s", "measured": of(runs.get("batch"), "generated_tokens_per_s")}
    compared = best(*(peer(part, "total_tokens_per_s") for part in ("batch", "compiled_batch")))
    yield f"{requests} requests, all of it", total | {"target": compared and 10 * compared}, compared
    prefill = runs.get("prefill")
    flops = prefill and shapes.prefill_flops(prefill["prompt_tokens"])
    row = time_row(found, of(prefill, "prefill_ms"), flops, limit_share=0.5)
    yield f"prefill of {context('prefill')}", row, peer("prefill", "prefill_ms")
    for dtype, target in (("bf16", 4), ("f32", 20)):
        run = runs.get(f"vision_{dtype}")
        flops = run and shapes.vision_flops(run["image_tokens"])
        row = time_row(found, of(run, "encode_images_ms"), flops, target=target)
        yield f"vision in {dtype}, {of(run, 'image_tokens')} soft tokens", row, peer("vision", f"{dtype}_ms")
    row = time_row(found, of(runs.get("decode_short"), "ttft_ms"), None, target=10)
    yield f"first token, text of {context('decode_short')}", row, peer("prefill", "ttft_ms")
    row = time_row(found, add_times(runs.get("vision_bf16"), "preprocess_ms", "ttft_ms"), None, target=25)
    yield "first token, one image, resized here", row, peer("vision", "ttft_ms")


def line(name, row, peer):
    """Shares and ratios say how good it is, whichever way the unit runs."""
    faster = lambda a, b: (a / b if row["unit"] == "tok/s" else b / a) if a and b else None
    number = lambda value: "" if value is None else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    measured, limit = row.get("measured"), row.get("limit")
    share, times = faster(measured, limit), faster(measured, peer)
    met = faster(measured, row.get("target"))
    return {
        "work": name,
        "unit": row["unit"],
        "floor": number(limit),
        "target": number(row.get("target")),
        "Pyrex": number(measured),
        "of the limit": f"{share:.0%}" if share else "",
        "transformers": number(peer),
        "against it": f"{times:.1f} x" if times else "",
        "met": "" if met is None else "yes" if met >= 1 else "no",
    }


def print_table(lines):
    keys = list(lines[0])
    width = {key: max(len(key), *(len(line[key]) for line in lines)) for key in keys}
    for cells in (dict(zip(keys, keys)), {key: "-" * width[key] for key in keys}, *lines):
        print("| " + " | ".join(cells[key].ljust(width[key]) for key in keys) + " |")


def main(folder, config):
    folder = Path(folder)
    found, shapes = collect(folder), Shapes(json.loads(Path(config).read_text()))
    lines = [line(*row) for row in rows(found, shapes)]
    (folder / "gpu.json").write_text(json.dumps(found | {"table": lines}, indent=1) + "\n")
    passed, failed = (sum(test[key] for test in found["tests"]) for key in ("passed", "failed"))
    broken = [test["name"] for test in found["tests"] if test["status"] != 0]
    print(f"tests: {passed} passed, {failed} failed" + (f", in {', '.join(broken)}" if broken else ""))
    if ceilings := of(found, "peer", "ceilings"):
        rates = f"copy {ceilings.get('copy_bytes_per_s', 0) / 1e12:.2f} TB/s, bf16 product {ceilings.get('matrix_flop_per_s', 0) / 1e12:.0f} TFLOP/s"
        print(f"{ceilings.get('gpu', 'no GPU')}: {rates}")
    print_table(lines)
    for part in found["parts"]:
        if part["status"] != 0:
            print(f"{part['name']} failed with {part['status']} after {part['seconds']} s: see {folder / part['name']}.log")
    errors = {name: of(part, "error") for name, part in found.get("peer", {}).items()}
    for name, error in errors.items():
        if error:
            print(f"transformers, {name}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
