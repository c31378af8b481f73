"""What transformers makes of the GPU that Pyrex is measured on, and what the GPU itself can do: the peer of `bench/gpu.sh`.

    python reference/gpu_bench.py reference/configs/e2b.json --only ceilings,decode,prefill,vision,batch,compiled,compiled_batch

Random weights of the config's shapes, as `pyrex bench --load-format dummy` has. Each part prints one JSON object on a line of
its own as soon as it is measured, so what comes later cannot lose it; a part that fails prints its error. `decode` and
`batch` are `generate` as it is, `compiled` and `compiled_batch` with a static cache and torch.compile, which `generate` then
uses by itself on a GPU. Every figure is the median of `--repeat` runs after those that warm up.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
PATCH_DIM = 3 * 16 * 16
# Side of the square matrices, bytes of the copied buffer, by how large the run is meant to be.
CEILINGS = {"cuda": (8192, 4 << 30), "cpu": (512, 64 << 20)}


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run, device, repeat, warmups=2):
    """The median time of `run()`, with nothing left to do on the device before and after."""
    times = []
    for turn in range(warmups + repeat):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        if turn >= warmups:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def ceilings(args):
    """Bytes per second of a copy, reads and writes counted, and floating-point operations per second of a bf16 product."""
    side, copied = CEILINGS[args.device.type]
    source = torch.empty(copied, dtype=torch.uint8, device=args.device)
    target = torch.empty_like(source)
    copy_s = seconds(lambda: target.copy_(source), args.device, 9)
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=args.device) for _ in range(2))
    product_s = seconds(lambda: a @ b, args.device, 9)
    figures = {"copy_bytes_per_s": 2 * copied / copy_s, "matrix_flop_per_s": 2 * side**3 / product_s}
    if args.device.type == "cuda":
        figures["gpu"] = torch.cuda.get_device_name(args.device)
    return figures


def build(args):
    """The model, made where it runs."""
    from transformers import Gemma4Config, Gemma4ForConditionalGeneration

    config = Gemma4Config(**json.loads(Path(args.config).read_text()))
    with args.device:
        model = Gemma4ForConditionalGeneration._from_config(config, dtype=DTYPES[args.dtype])
    # The tower for sound is no part of what is measured, and text alone never calls it.
    return model.eval()


def made_up_ids(args, rows, tokens):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, 1000, (rows, tokens), generator=generator).to(args.device)


class StepClock:
    """Notes when the device is done with each step of `generate`, without waiting for it; never stops it."""

    def __init__(self, device):
        self.device, self.marks = device, []

    def __call__(self, input_ids, scores, **kwargs):
        if self.device.type == "cuda":
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=self.device)

    def step_s(self):
        """Between the first token and the last, for each step."""
        synchronize(self.device)
        first, last, steps = self.marks[0], self.marks[-1], len(self.marks) - 1
        whole = first.elapsed_time(last) / 1e3 if self.device.type == "cuda" else last - first
        return whole / steps


def generate(model, args, ids, tokens, compiled=False, clock=None):
    from transformers import GenerationConfig, StoppingCriteriaList

    config = GenerationConfig(
        min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False, use_cache=True, eos_token_id=1, pad_token_id=0
    )
    if compiled:
        from transformers import CompileConfig

        config.cache_implementation = "static"
        config.compile_config = CompileConfig()
        # `generate` compiles by itself on a GPU alone; elsewhere it is told to, so that all of this can be tried.
        config.compile_config._compile_all_devices = args.device.type == "cpu"
    criteria = StoppingCriteriaList([clock] if clock else [])
    model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, stopping_criteria=criteria)


def decode(model, args, rows, context, compiled=False):
    """Tokens per second while decoding `rows` sequences of `context` tokens, and over all of the time, prefill included."""
    ids = made_up_ids(args, rows, context)
    steps, wholes = [], []
    # The second run still records graphs.
    for turn in range((3 if compiled else 1) + args.repeat):
        clock = StepClock(args.device)
        whole = seconds(lambda: generate(model, args, ids, args.max_tokens, compiled, clock), args.device, 1, 0)
        steps.append(clock.step_s())
        wholes.append(whole)
    step_s, whole_s = statistics.median(steps[-args.repeat :]), statistics.median(wholes[-args.repeat :])
    return {"tokens_per_s": rows / step_s, "total_tokens_per_s": rows * args.max_tokens / whole_s, "first_run_s": wholes[0]}


def bench_decode(model, args):
    return {str(context): decode(model, args, 1, context) for context in args.contexts}


def bench_prefill(model, args):
    def first_token_ms(tokens):
        ids = made_up_ids(args, 1, tokens)
        return seconds(lambda: generate(model, args, ids, 1), args.device, args.repeat) * 1e3

    return {"ttft_ms": first_token_ms(args.contexts[0]), "prefill_ms": first_token_ms(args.prefill)}


def bench_batch(model, args):
    return {"rows": args.batch, **decode(model, args, args.batch, args.contexts[0])}


def bench_compiled(model, args):
    return decode(model, args, 1, args.contexts[0], compiled=True)


def bench_compiled_batch(model, args):
    return {"rows": args.batch, **decode(model, args, args.batch, args.contexts[0], compiled=True)}


def bench_vision(model, args):
    """The tower and the projector in both dtypes, and the first token of a prompt with the picture."""
    rows, columns = args.image
    pixels = torch.rand(1, rows * columns, PATCH_DIM, device=args.device)
    places = [[column, row] for row in range(rows) for column in range(columns)]
    positions = torch.tensor([places], device=args.device)
    figures = {}

    def encode(dtype):
        return model.get_image_features(pixels.to(dtype), positions)

    figures["soft_tokens"] = sum(len(features) for features in encode(DTYPES[args.dtype]).pooler_output)
    for name, dtype in DTYPES.items():
        model.model.vision_tower.to(dtype)
        model.model.embed_vision.to(dtype)
        figures[f"{name}_ms"] = seconds(lambda: encode(dtype), args.device, args.repeat) * 1e3
    ids = made_up_ids(args, 1, figures["soft_tokens"] + 16)
    ids[0, 8 : 8 + figures["soft_tokens"]] = model.config.image_token_id

    def first_token():
        model(input_ids=ids, pixel_values=pixels, image_position_ids=positions, logits_to_keep=1).logits.argmax(-1).tolist()

    figures["ttft_ms"] = seconds(first_token, args.device, args.repeat) * 1e3
    return figures


PARTS = {
    "decode": bench_decode,
    "prefill": bench_prefill,
    "batch": bench_batch,
    "vision": bench_vision,
    "compiled": bench_compiled,
    "compiled_batch": bench_compiled_batch,
}


def report(name, measure):
    try:
        print(json.dumps({name: measure()}), flush=True)
    except Exception as error:
        print(json.dumps({name: {"error": f"{type(error).__name__}: {error}"}}), flush=True)


@torch.inference_mode()
def main(args):
    if "ceilings" in args.only:
        report("ceilings", lambda: ceilings(args))
    parts = [name for name in args.only if name in PARTS]
    if not parts:
        return
    import transformers

    start = time.perf_counter()
    model = build(args)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({"built": {"seconds": time.perf_counter() - start, **versions}}), flush=True)
    for name in parts:
        report(name, lambda: PARTS[name](model, args))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="path of a config.json")
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--only", type=lambda names: names.split(","), default=["ceilings", *PARTS])
    parser.add_argument("--contexts", type=lambda text: [int(part) for part in text.split(",")], default=[128, 4096, 32768])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--prefill", type=int, default=2048)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--image", type=lambda size: [int(part) for part in size.split("x")], default=[42, 60], metavar="ROWSxCOLUMNS",
                        help="patches of the picture; 42x60 are 280 soft tokens")
    parser.add_argument("--repeat", type=int, default=3)
    main(parser.parse_args())
