"""Turns the reference's runs of one checkpoint into its golden files.

`<case>.safetensors`  the oracle's taps (f64 run, rounded to f32), at the rows that the metadata names
`noise.json`          how far the reference's own f32 and bf16 runs are from the oracle, per case and tap
`greedy.json`         chats with prompt ids and greedily generated ids (f32)
`long.json`           last-position logits for prompts of many lengths (oracle)
"""

import hashlib
import json
import re
from pathlib import Path

import torch

import cases
import taps
from refmodel import Reference, image_paths, sha256
from tensor_file import save_tensors

# How many rows of a tap are kept, evenly spread from the first to the last: whole tensors would not fit a repository.
ROWS = {"logits": 6, "lm_head": 3, "prep.pixel_values": 2}
ROWS_COARSE, ROWS_FINE = 20, 6
ROWS_ALL = ("prep.input_ids", "model.vision_tower.pooler", "model.vision_tower", "model.embed_vision")

# Taps that only dumps hold: what the kept ones around them show does well enough to fail a test.
LEFT_TO_DUMPS = re.compile(
    r"(gate|up|down|o|input)_proj$|(gate|up|down|o|k|v)_proj\.(input_clamped|linear)$|vision_tower.*_rope$|embed_vision\."
)


def write_case_goldens(folder):
    """Runs every tap case in f64, f32 and bf16 and writes its tensors and noise figures."""
    folder = Path(folder)
    runs = {dtype: Reference(model_folder(folder), dtype) for dtype in ("f64", "f32", "bf16")}
    noise = {}
    for case, messages in cases.tap_cases(folder.name).items():
        recorded = {dtype: record(run, messages, folder.parent) for dtype, run in runs.items()}
        kept = select_taps(recorded["f64"], fine_layers(runs["f64"].model), case in cases.FINE_CASES[folder.name])
        noise[case] = {name: tap_noise(recorded, name, rows) for name, rows in kept.items()}
        write_case(folder, case, messages, recorded, kept)
    write_json(folder / "noise.json", noise)


def record(reference, messages, image_root):
    return taps.record(reference, reference.inputs(messages, image_root))


def model_folder(folder):
    """The checkpoint of a golden folder; `shapes` lives outside of the goldens."""
    return cases.EXAMPLES.parent if folder.name == "shapes" else folder / "model"


def fine_layers(model):
    """Prefixes of the layers whose inside is kept: around the first reuse layer and at both ends."""
    config = model.config.text_config
    last, first_reuse = config.num_hidden_layers - 1, config.num_hidden_layers - config.num_kv_shared_layers
    text = {0, first_reuse - 2, first_reuse - 1, first_reuse, first_reuse + 1, last} & set(range(last + 1))
    vision = {0, model.config.vision_config.num_hidden_layers - 1} if model.config.vision_config else set()
    return tuple([f"{taps.TEXT}.layers.{i}." for i in text] + [f"{taps.VISION}.encoder.layers.{i}." for i in vision])


def select_taps(recorded, layers, with_fine):
    """`{tap: rows}` of what is kept of a case; the ids and the logits come last."""
    kept = {}
    for name, tensor in sorted(recorded.items(), key=lambda tap: tap[0] in ("prep.input_ids", "logits")):
        if LEFT_TO_DUMPS.search(name):
            continue
        if taps.is_coarse(name):
            limit = len(tensor) if name in ROWS_ALL else ROWS.get(name, ROWS_COARSE)
        elif with_fine and name.startswith(layers):
            limit = ROWS_FINE
        else:
            continue
        kept[name] = spread(len(tensor), limit)
    return kept


def spread(count, limit):
    """Up to `limit` indices below `count`, evenly spread, first and last included."""
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / (limit - 1)) for i in range(limit)]


def tap_noise(recorded, name, rows):
    """Distance of the f32 and bf16 runs from the oracle, over the kept rows."""
    oracle = recorded["f64"][name][rows].double()
    figures = {"rms": oracle.pow(2).mean().sqrt().item()}
    for dtype in ("f32", "bf16"):
        error = recorded[dtype][name][rows].double() - oracle
        figures[f"{dtype}_rel_l2"] = (error.norm() / oracle.norm().clamp(min=1e-300)).item()
        figures[f"{dtype}_max_abs"] = error.abs().max().item()
    return {key: float(f"{value:.4g}") for key, value in figures.items()}


def write_case(folder, case, messages, recorded, kept):
    oracle = recorded["f64"]
    assert not any(tensor.dtype in (torch.float32, torch.bfloat16) for tensor in oracle.values()), "the oracle lost precision"
    tensors = {name: to_stored(oracle[name][rows]) for name, rows in kept.items()}
    metadata = {
        "messages": json.dumps(messages, ensure_ascii=False),
        "images": json.dumps(image_paths(messages)),
        "input_ids": json.dumps(oracle["prep.input_ids"].tolist()),
        "rows": json.dumps({name: rows for name, rows in kept.items() if len(rows) < len(oracle[name])}),
        "num_rows": json.dumps({name: len(oracle[name]) for name in kept}),
        "model_sha256": sha256(model_folder(folder) / "model.safetensors"),
    }
    if "prep.pixel_values" in oracle:
        metadata["pixel_values_sha256"] = pixel_hash(recorded["f32"]["prep.pixel_values"])
    save_tensors(dict(sorted(tensors.items())), folder / f"{case}.safetensors", metadata)


def to_stored(tensor):
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()


def pixel_hash(pixels):
    """sha256 of all real patches, `[P, 3·patch²]` in little-endian f32."""
    return hashlib.sha256(pixels.float().numpy().tobytes()).hexdigest()


def write_greedy(folder):
    """Greedy generations of the f32 reference. Returns the chats that were left out because of a near-tie."""
    folder = Path(folder)
    reference = Reference(model_folder(folder), "f32")
    ignore_eos = folder.name != "shapes"
    records, left_out = [], []
    for messages in cases.greedy_chats(folder.name):
        entry = greedy(reference, messages, folder.parent, ignore_eos)
        usable = entry["f32"]["min_top2_gap"] >= cases.MIN_TOP2_GAP and not has_placeholder(reference, entry["f32"]["ids"])
        (records if usable else left_out).append(entry)
    write_json(folder / "greedy.json", records)
    return [entry["messages"] for entry in left_out]


def has_placeholder(reference, ids):
    """Whether a random model generated a media placeholder, which no engine need be able to feed back."""
    config = reference.model.config
    return bool({config.image_token_id, config.video_token_id, config.audio_token_id} & set(ids))


def greedy(reference, messages, image_root, ignore_eos):
    """One generation through the stock `generate`."""
    inputs = reference.inputs(messages, image_root)
    stop = {"eos_token_id": None} if ignore_eos else {}
    with torch.no_grad():
        output = reference.model.generate(
            **inputs, **stop, max_new_tokens=cases.MAX_NEW_TOKENS, do_sample=False, temperature=None, top_k=None,
            top_p=None, return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    prompt_ids = inputs["input_ids"][0].tolist()
    ids = output.sequences[0, len(prompt_ids) :].tolist()
    best = torch.stack(output.logits)[:, 0].topk(2).values
    result = {
        "ids": ids,
        "text": reference.processor.decode(ids, skip_special_tokens=True),
        "min_top2_gap": float(f"{(best[:, 0] - best[:, 1]).min().item():.4g}"),
    }
    return {"messages": messages, "ignore_eos": ignore_eos, "prompt_ids": prompt_ids, "f32": result}


def write_long(folder):
    """Last-position logits of the oracle for prefixes of one list of random ordinary ids, and the f32 run's distance from them."""
    folder = Path(folder)
    oracle, single = (Reference(model_folder(folder), dtype) for dtype in ("f64", "f32"))
    window = oracle.model.config.text_config.sliding_window
    lengths = cases.long_lengths(window)
    ids = torch.randint(300, 2000, (max(lengths),), generator=torch.Generator().manual_seed(window)).tolist()
    prompts = []
    for length in lengths:
        inputs = oracle.text_inputs(ids[:length])
        logits, rounded = (model.forward(inputs, use_cache=False).logits[0, -1].double() for model in (oracle, single))
        top = logits.topk(8)
        prompts.append({
            "length": length,
            "top_ids": top.indices.tolist(),
            "top_values": [round(v, 6) for v in top.values.tolist()],
            "f32_rel_l2": float(f"{((rounded - logits).norm() / logits.norm()).item():.4g}"),
        })
    write_json(folder / "long.json", {"sliding_window": window, "ids": ids, "prompts": prompts})


def write_json(path, value):
    """One line per entry of the outermost list or map, so that diffs stay readable."""
    dump = lambda item: json.dumps(item, ensure_ascii=False)
    if isinstance(value, dict):
        body = ",\n".join(f"{dump(key)}: {dump(item)}" for key, item in value.items())
        path.write_text("{\n" + body + "\n}\n")
    else:
        path.write_text("[\n" + ",\n".join(map(dump, value)) + "\n]\n")
