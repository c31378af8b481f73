"""The peer of `pyrex bench`: transformers on a CPU, random weights of a config's shapes, sdpa attention.

    python bench_hf.py configs/e2b-10layers.json --threads 2 --dtype f32 --prompt-tokens 512 --max-tokens 32 --image 640x480
    python bench_hf.py configs/e2b-10layers.json --threads 2 --dtype bf16 --only batch,continuous --batch 16 --max-tokens 64

Prints one JSON object. `prefill` runs what `generate` runs (KV cache on, logits of the last token only), `vision` the
tower and the projector on one picture; every figure is the median of `--repeat` runs after one that is not counted.
`batch` is a static batch: one `generate` of `--batch` prompts of one length, whose decode rate is told by the times between
its steps. `continuous` is transformers' own continuous batching, `generate_batch`, with prefix sharing and paging; where it
does not run, the error is the figure.
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
from transformers import GenerationConfig, StoppingCriteria

from refmodel import versions

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
PHASES = ("load", "prefill", "decode", "vision")
BATCH_PHASES = ("batch", "continuous")


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
    figures = {}
    if "prefill" in args.only:
        prefill_ms, _ = timed_ms(lambda: prefill(model, ids), args.repeat)
        figures |= {"prefill_ms": prefill_ms, "prefill_tok_s": args.prompt_tokens / prefill_ms * 1e3}
    if "decode" in args.only:
        rates = [decode_rate(model, ids, args.max_tokens) for _ in range(args.repeat)]
        figures["decode_tok_s"] = statistics.median(rates)
    return figures


def decode_rate(model, ids, max_tokens):
    output = prefill(model, ids)
    start = time.perf_counter()
    decode(model, output, max_tokens)
    return max_tokens / (time.perf_counter() - start)


class StepClock(StoppingCriteria):
    """Notes when each step of `generate` has its tokens; never stops it."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores, **kwargs):
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


def answer_of(max_tokens):
    return GenerationConfig(
        min_new_tokens=max_tokens, max_new_tokens=max_tokens, do_sample=False, use_cache=True, eos_token_id=1, pad_token_id=0
    )


def made_up_rows(args, prompt_tokens):
    return torch.randint(3, 1000, (args.batch, prompt_tokens), generator=torch.Generator().manual_seed(0))


def static_batch(model, ids, max_tokens):
    """Tokens per second of all rows: while decoding, and over everything; and the milliseconds to the first tokens."""
    clock, start = StepClock(), time.perf_counter()
    model.generate(ids, generation_config=answer_of(max_tokens), stopping_criteria=[clock])
    first, last, steps = clock.times[0], clock.times[-1], len(clock.times)
    return len(ids) * (steps - 1) / (last - first), len(ids) * steps / (last - start), (first - start) * 1e3


def bench_batch(model, args):
    static_batch(model, made_up_rows(args, 16), 4)
    runs = [static_batch(model, made_up_rows(args, args.prompt_tokens), args.max_tokens) for _ in range(args.repeat)]
    decode, whole, ttft_ms = (statistics.median(figures) for figures in zip(*runs))
    return {"batch": args.batch, "batch_decode_tok_s": decode, "batch_tok_s": whole, "batch_ttft_ms": ttft_ms}


def bench_continuous(model, args):
    """The whole time counts: `generate_batch` starts prompts while others decode."""
    prompts = made_up_rows(args, args.prompt_tokens).tolist()
    start = time.perf_counter()
    try:
        outputs = model.generate_batch(prompts, generation_config=answer_of(args.max_tokens)).values()
    except Exception as error:
        return {"continuous_error": f"{type(error).__name__}: {error}"}
    if errors := [output.error for output in outputs if output.error]:
        return {"continuous_error": errors[0]}
    generated = sum(len(output.generated_tokens) for output in outputs)
    return {"continuous_tok_s": generated / (time.perf_counter() - start)}


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
    report |= {"prompt_tokens": args.prompt_tokens, "max_tokens": args.max_tokens}
    report |= {"attention": model.config.text_config._attn_implementation, "versions": versions()}
    report["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    if "load" in args.only:
        report["build_ms"] = (time.perf_counter() - start) * 1e3
    if {"prefill", "decode"} & set(args.only):
        report |= bench_text(model, args)
    if "batch" in args.only:
        report |= bench_batch(model, args)
    if "continuous" in args.only:
        report |= bench_continuous(model, args)
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
    parser.add_argument("--only", type=lambda names: names.split(","), default=PHASES, metavar=",".join(PHASES + BATCH_PHASES))
    parser.add_argument("--batch", type=int, default=16, metavar="N")
    parser.add_argument("--repeat", type=int, default=3)
    main(parser.parse_args())
