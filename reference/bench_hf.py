"""The peer of `pyrex bench`: transformers on a CPU, random weights of a config's shapes, sdpa attention.

    python bench_hf.py configs/e2b-10layers.json --threads 2 --dtype f32 --prompt-tokens 512 --max-tokens 32 --image 640x480

Prints one JSON object. `prefill` runs what `generate` runs (KV cache on, logits of the last token only), `vision` the
tower and the projector on one picture; every figure is the median of `--repeat` runs after one that is not counted.
"""

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from transformers import Gemma4Config, Gemma4ForConditionalGeneration, Gemma4ImageProcessor

from refmodel import versions

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
PHASES = ("load", "prefill", "decode", "vision")


def build(args):
    """The model with random weights. sdpa is the default; asking for it by name is refused next to an audio tower."""
    config = Gemma4Config(**json.loads(Path(args.config).read_text()))
    model = Gemma4ForConditionalGeneration._from_config(config, dtype=DTYPES[args.dtype])
    return model.eval()


def timed_ms(run, repeat):
    """Median milliseconds of `run()`, and its last result."""
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), result


def prefill(model, input_ids):
    return model(input_ids=input_ids, use_cache=True, logits_to_keep=1)


def decode(model, output, max_tokens):
    """`max_tokens` greedy steps after a prefill."""
    for _ in range(max_tokens):
        next_id = output.logits[:, -1:].argmax(-1)
        output = model(input_ids=next_id, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)


def bench_text(model, args):
    ids = torch.randint(3, 1000, (1, args.prompt_tokens), generator=torch.Generator().manual_seed(0))
    figures = {"prompt_tokens": args.prompt_tokens}
    if "prefill" in args.only:
        prefill_ms, _ = timed_ms(lambda: prefill(model, ids), args.repeat)
        figures |= {"prefill_ms": prefill_ms, "prefill_tok_s": args.prompt_tokens / prefill_ms * 1e3}
    if "decode" in args.only:
        rates = [decode_rate(model, ids, args.max_tokens) for _ in range(args.repeat)]
        figures |= {"max_tokens": args.max_tokens, "decode_tok_s": statistics.median(rates)}
    return figures


def decode_rate(model, ids, max_tokens):
    output = prefill(model, ids)
    start = time.perf_counter()
    decode(model, output, max_tokens)
    return max_tokens / (time.perf_counter() - start)


def bench_vision(model, args):
    width, height = map(int, args.image.split("x"))
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    processor = Gemma4ImageProcessor(max_soft_tokens=args.max_soft_tokens)
    preprocess_ms, inputs = timed_ms(lambda: processor(picture, return_tensors="pt"), args.repeat)
    encode = lambda: model.get_image_features(inputs["pixel_values"], inputs["image_position_ids"])
    vision_ms, output = timed_ms(encode, args.repeat)
    soft_tokens = sum(len(features) for features in output.pooler_output)
    return {"image": args.image, "soft_tokens": soft_tokens, "preprocess_ms": preprocess_ms, "vision_ms": vision_ms}


@torch.inference_mode()
def main(args):
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    model = build(args)
    report = {"config": args.config, "dtype": args.dtype, "threads": args.threads}
    report |= {"attention": model.config.text_config._attn_implementation, "versions": versions()}
    report["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    if "load" in args.only:
        report["build_ms"] = (time.perf_counter() - start) * 1e3
    if {"prefill", "decode"} & set(args.only):
        report |= bench_text(model, args)
    if "vision" in args.only:
        report |= bench_vision(model, args)
    report["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in report.items()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="path of a config.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--image", default="640x480", metavar="WxH")
    parser.add_argument("--max-soft-tokens", type=int, default=280)
    parser.add_argument("--only", type=lambda names: names.split(","), default=PHASES, metavar=",".join(PHASES))
    parser.add_argument("--repeat", type=int, default=3)
    main(parser.parse_args())
