"""Pyrex and transformers side by side, in one run: the table of BENCHMARKS.md.

    cargo build --release && python reference/bench.py

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


def output(*command):
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def pyrex(threads, *more):
    bench = ["target/release/pyrex", "bench", "--model", CONFIG, "--load-format", "dummy", "--json"]
    return json.loads(output(*bench, "--num-threads", threads, *more))


def transformers(threads, dtype, only):
    script = [sys.executable, "reference/bench_hf.py", CONFIG, "--threads", threads, "--dtype", dtype, "--repeat", 2]
    return json.loads(output(*script, *SHAPE, *PICTURE, "--only", only))


def cold_start_ms():
    """From the start of the process to the first byte of the answer, on the bundled model."""
    command = ["target/release/pyrex", "generate", "--image", "models/shapes/examples/red_circle.png"]
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        process.stdout.read(1)
        return (time.perf_counter() - start) * 1e3


def measure(args):
    rounds = []
    for _ in range(args.rounds):
        rounds.append({
            "text": pyrex(args.threads, *SHAPE),
            "vision": pyrex(args.threads, *PICTURE, "--prompt-tokens", 300, "--max-tokens", 2),
            "hf_f32": transformers(args.threads, "f32", "prefill,decode,vision"),
            "hf_bf16": transformers(args.threads, "bf16", "prefill,decode"),
            "cold_ms": cold_start_ms(),
        })
    return rounds


def table(rounds, args):
    best = lambda of: max(map(of, rounds))
    least = lambda of: min(map(of, rounds))
    decode = best(lambda r: r["text"]["decode_tokens_per_s"])
    share = statistics.median(r["text"]["decode_bytes_per_s"] / r["text"]["read_bytes_per_s"] for r in rounds)
    used, read = (best(lambda r: r["text"][key]) / 1e9 for key in ("decode_bytes_per_s", "read_bytes_per_s"))
    hf_decode = {dtype: best(lambda r: r[f"hf_{dtype}"]["decode_tok_s"]) for dtype in ("f32", "bf16")}
    prefill = best(lambda r: r["text"]["prefill_tokens_per_s"])
    hf_prefill = {dtype: best(lambda r: r[f"hf_{dtype}"]["prefill_tok_s"]) for dtype in ("f32", "bf16")}
    vision, hf_vision = least(lambda r: r["vision"]["encode_images_ms"]), least(lambda r: r["hf_f32"]["vision_ms"])
    peak = least(lambda r: r["text"]["peak_rss_bytes"])
    return [
        ("decode, tok/s", f"{decode:.2f}", f"{hf_decode['f32']:.2f} f32, {hf_decode['bf16']:.2f} bf16", f"{decode / max(hf_decode.values()):.2f} x"),
        ("decode, share of reading memory in the same minute", f"{share:.0%}", "", f"{used:.1f} of {read:.1f} GB/s"),
        ("prefill of 512, tok/s", f"{prefill:.0f}", f"{hf_prefill['f32']:.0f} f32, {hf_prefill['bf16']:.0f} bf16", f"{prefill / hf_prefill['f32']:.2f} x f32"),
        ("vision, 266 soft tokens, ms", f"{vision:.0f}", f"{hf_vision:.0f} f32", f"{hf_vision / vision:.2f} x"),
        ("bundled model, cold start to first text, ms", f"{least(lambda r: r['cold_ms']):.0f}", "", ""),
        ("peak memory, MiB", f"{peak / 2**20:.0f}", "", ""),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print every round instead of the table")
    args = parser.parse_args()
    rounds = measure(args)
    if args.json:
        return print(json.dumps(rounds))
    print("| | Pyrex | transformers | |\n|---|---|---|---|")
    for row in table(rounds, args):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
