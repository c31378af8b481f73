"""Regenerates `tests/golden/` from nothing: `make golden`, or `python make_goldens.py [--out FOLDER]`.

Needs `models/shapes/` and this folder only. Running it twice gives the same bytes. `--only bisect` writes `bisect/`
alone, with the checkpoint that already lies there, and lists it in the manifest.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import bisect_goldens
import cases
import goldens
import make_tiny
from refmodel import ATTENTION, sha256, versions

HERE = Path(__file__).resolve().parent
COMMAND = "python reference/make_goldens.py"


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    cases.write_images(out)
    left_out = {}
    for name in [*make_tiny.TINY, "shapes"]:
        print(f"{name} …", flush=True)
        left_out[name] = write_checkpoint_goldens(name, out)
    bisect_goldens.write_bisect(out)
    write_manifest(out, left_out)
    preprocess = HERE / "preprocess.py"
    if preprocess.exists():
        subprocess.run([sys.executable, preprocess, "--out", out / "prompt"], check=True)


def bisect_alone(out):
    """Rewrites the dumps for bisecting; the manifest keeps what it says about the rest."""
    bisect_goldens.write_bisect(out)
    write_manifest(out, json.loads((out / "MANIFEST.json").read_text())["greedy"]["left_out"])


def write_checkpoint_goldens(name, out):
    """All goldens of one checkpoint; returns the chats whose greedy run came too close to a tie to be one."""
    (out / name).mkdir(exist_ok=True)
    if name in make_tiny.TINY:
        make_tiny.write_tiny(name, out)
    goldens.write_case_goldens(out / name)
    goldens.write_long(out / name)
    return goldens.write_greedy(out / name)


def write_manifest(out, left_out):
    """Records how every file came about. `prompt/` has a manifest of its own."""
    files = [path.relative_to(out) for path in sorted(out.rglob("*")) if path.is_file()]
    files = [path for path in files if path.parts[0] not in ("prompt", "MANIFEST.json")]
    manifest = {
        "versions": versions(),
        "attention": ATTENTION,
        "oracle": "the same code in f64, explicit f32 casts widened (reference/refmodel.py, NoRounding)",
        "threads": 1,
        "seeds": {name: spec["seed"] for name, spec in make_tiny.TINY.items()},
        "model_sha256": {"shapes": sha256(cases.EXAMPLES.parent / "model.safetensors")},
        "greedy": {"max_new_tokens": cases.MAX_NEW_TOKENS, "min_top2_gap": cases.MIN_TOP2_GAP, "left_out": left_out},
        "files": {path.as_posix(): {"command": COMMAND, "sha256": sha256(out / path)} for path in files},
    }
    (out / "MANIFEST.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE.parent / "tests" / "golden")
    parser.add_argument("--only", choices=("bisect",))
    args = parser.parse_args()
    (bisect_alone if args.only else main)(args.out.resolve())
