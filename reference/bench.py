"""Pyrex and transformers side by side, in one run: the tables of BENCHMARKS.md.

    cargo build --release && python reference/bench.py
    python reference/bench.py --only serving

`alone` is one request at a time; `serving` is sixteen at once, against a static batch of transformers, and a shared prefix.
Both sides take turns on the same shapes with made-up weights, `--rounds` times; each figure is the best of its rounds, because
other work on a machine only ever makes one slower. Transformers runs with sdpa in f32 and in bf16; the faster counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "reference/configs/e2b-10layers.json"
SHAPE = ["--prompt-tokens", "512", "--max-tokens", "32"]
PICTURE = ["--image", "640x480"]
NUM_REQUESTS = 16
REQUESTS = ["--prompt-tokens", "512", "--max-tokens", "64"]
PREFIX_TOKENS = 1000
TABLES = ("alone", "serving")
DTYPES = ("f32", "bf16")


def output(*command):
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def pyrex(threads, *more):
    bench = ["target/release/pyrex", "bench", "--model", CONFIG, "--load-format", "dummy", "--json"]
    return json.loads(output(*bench, "--num-threads", threads, *more))


def transformers(threads, dtype, only, *more):
    script = [sys.executable, "reference/bench_hf.py", CONFIG, "--threads", threads, "--dtype", dtype, "--only", only]
    return json.loads(output(*script, *more))


def cold_start_ms():
    """From the start of the process to the first byte of the answer, on the bundled model."""
    command = ["target/release/pyrex", "generate", "--image", "models/shapes/examples/red_circle.png"]
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        process.stdout.read(1)
        return (time.perf_counter() - start) * 1e3


def measure_alone(threads):
    shape = [*SHAPE, *PICTURE, "--repeat", 2]
    return {
        "text": pyrex(threads, *SHAPE),
        "vision": pyrex(threads, *PICTURE, "--prompt-tokens", 300, "--max-tokens", 2),
        "hf_f32": transformers(threads, "f32", "prefill,decode,vision", *shape),
        "hf_bf16": transformers(threads, "bf16", "prefill,decode", *shape),
        "cold_ms": cold_start_ms(),
    }


def measure_serving(threads):
    batch = [*REQUESTS, "--batch", NUM_REQUESTS, "--repeat", 1]
    return {
        "together": pyrex(threads, *REQUESTS, "--requests", NUM_REQUESTS),
        "prefix": pyrex(threads, "--shared-prefix", PREFIX_TOKENS),
    } | {f"hf_{dtype}": transformers(threads, dtype, "batch", *batch) for dtype in DTYPES}


def best(rounds, of):
    return max(map(of, rounds))


def least(rounds, of):
    return min(map(of, rounds))


def best_of_both(rounds, key):
    """Transformers' best in each dtype, as words, and the better of the two."""
    rates = {dtype: best(rounds, lambda r: r[f"hf_{dtype}"][key]) for dtype in DTYPES}
    return ", ".join(f"{rate:.1f} {dtype}" for dtype, rate in rates.items()), max(rates.values())


def table_alone(rounds):
    decode = best(rounds, lambda r: r["text"]["decode_tokens_per_s"])
    share = statistics.median(r["text"]["decode_bytes_per_s"] / r["text"]["read_bytes_per_s"] for r in rounds)
    used, read = (best(rounds, lambda r: r["text"][key]) / 1e9 for key in ("decode_bytes_per_s", "read_bytes_per_s"))
    hf_decode, hf_decode_best = best_of_both(rounds, "decode_tok_s")
    prefill = best(rounds, lambda r: r["text"]["prefill_tokens_per_s"])
    hf_prefill, _ = best_of_both(rounds, "prefill_tok_s")
    hf_prefill_f32 = best(rounds, lambda r: r["hf_f32"]["prefill_tok_s"])
    vision = least(rounds, lambda r: r["vision"]["encode_images_ms"])
    hf_vision = least(rounds, lambda r: r["hf_f32"]["vision_ms"])
    peak = least(rounds, lambda r: r["text"]["peak_rss_bytes"])
    cold = least(rounds, lambda r: r["cold_ms"])
    return [
        ("decode, tok/s", f"{decode:.1f}", hf_decode, f"{decode / hf_decode_best:.2f} x"),
        ("decode, share of reading memory in the same minute", f"{share:.0%}", "", f"{used:.1f} of {read:.1f} GB/s"),
        ("prefill of 512, tok/s", f"{prefill:.0f}", hf_prefill, f"{prefill / hf_prefill_f32:.2f} x f32"),
        ("vision, 266 soft tokens, ms", f"{vision:.0f}", f"{hf_vision:.0f} f32", f"{hf_vision / vision:.2f} x"),
        ("bundled model, cold start to first text, ms", f"{cold:.0f}", "", ""),
        ("peak memory, MiB", f"{peak / 2**20:.0f}", "", ""),
    ]


def table_serving(rounds):
    decode = best(rounds, lambda r: r["together"]["decode"]["tokens_per_s"])
    alone = best(rounds, lambda r: r["together"]["decode"]["alone_tokens_per_s"])
    ratio = statistics.median(r["together"]["decode"]["ratio"] for r in rounds)
    step = least(rounds, lambda r: r["together"]["decode"]["step_ms"])
    overhead = statistics.median(r["together"]["decode"]["wall_overhead"] for r in rounds)
    whole = best(rounds, lambda r: r["together"]["generated_tokens_per_s"])
    hf_decode, hf_decode_best = best_of_both(rounds, "batch_decode_tok_s")
    hf_whole, hf_whole_best = best_of_both(rounds, "batch_tok_s")
    cold, cached = (least(rounds, lambda r: r["prefix"][key]) for key in ("cold_ttft_ms", "cached_ttft_ms"))
    sooner = statistics.median(r["prefix"]["ratio"] for r in rounds)
    return [
        (f"decode of {NUM_REQUESTS} requests, tok/s", f"{decode:.1f}", hf_decode, f"{decode / hf_decode_best:.2f} x"),
        ("the same against one request alone", f"{alone:.1f}", "", f"{ratio:.2f} x"),
        ("a step of all of them, ms", f"{step:.1f}", "", f"{overhead:.2%} not the decoder"),
        ("generated over the whole time, tok/s", f"{whole:.1f}", hf_whole, f"{whole / hf_whole_best:.2f} x"),
        (f"first token after {PREFIX_TOKENS} shared tokens, ms", f"{cached:.0f}", "", f"{cold:.0f} without, {sooner:.1f} x"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=TABLES, help="one of the two tables")
    parser.add_argument("--json", action="store_true", help="print every round instead of the tables")
    args = parser.parse_args()
    measures = {"alone": (measure_alone, table_alone), "serving": (measure_serving, table_serving)}
    for measure, table in (measures[name] for name in TABLES if args.only in (None, name)):
        rounds = [measure(args.threads) for _ in range(args.rounds)]
        if args.json:
            print(json.dumps(rounds))
            continue
        print("| | Pyrex | transformers | |\n|---|---|---|---|")
        for row in table(rounds):
            print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
