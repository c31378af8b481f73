"""Trains `models/shapes` from nothing on a CPU, in five stages that each leave a file in the work folder.

    python train_shapes.py --work .cache/shapes                  # everything; some hours on one core
    python train_shapes.py --work .cache/shapes --stages joint,export
    python train_shapes.py --work .cache/smoke --smoke           # every stage for a few steps, under two minutes

tokenizer  tokenizer.json                  BPE of 2,048 pieces over the model's own texts and Python's doc strings
vision     vision.pt                       tower alone, dense labels, coarse grids first
language   language.pt                     decoder on the frozen tower
joint      joint.pt                        everything, clip bounds calibrated and binding
export     export/                         the checkpoint folder, then one picture described from it
"""

import argparse
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoProcessor, Gemma4ForConditionalGeneration

from shapes import stages
from shapes.export import export
from shapes.model import build, set_clipping
from shapes.scenes import Scene
from shapes.tokenizer import make_tokenizer

STAGES = ("tokenizer", "vision", "language", "joint", "export")
STEPS = {"vision": 16000, "language": 6000, "joint": 12000}
SMOKE_STEPS = {"vision": 12, "language": 4, "joint": 4}


class Run:
    """The state that passes from stage to stage, through files."""

    def __init__(self, args):
        self.work, self.smoke = Path(args.work), args.smoke
        self.steps = SMOKE_STEPS if args.smoke else STEPS
        self.work.mkdir(parents=True, exist_ok=True)

    def start(self, previous=None):
        """Tokenizer, model and heads, from the file of the previous stage if there is one."""
        tokenizer = Tokenizer.from_file(str(self.work / "tokenizer.json"))
        model, heads = build(tokenizer), stages.Heads()
        if previous:
            saved = torch.load(self.work / f"{previous}.pt")
            model.load_state_dict(saved["model"])
            heads.load_state_dict(saved["heads"])
        return tokenizer, model, heads

    def save(self, stage, model, heads):
        torch.save({"model": model.state_dict(), "heads": heads.state_dict()}, self.work / f"{stage}.pt")

    def tokenizer(self):
        make_tokenizer(self.work, conversations=600 if self.smoke else 6000)

    def vision(self):
        _tokenizer, model, heads = self.start()
        stages.train_vision(model, heads, self.steps["vision"])
        self.save("vision", model, heads)

    def language(self):
        tokenizer, model, heads = self.start("vision")
        stages.train_language(model, tokenizer, self.steps["language"])
        self.save("language", model, heads)

    def joint(self):
        tokenizer, model, heads = self.start("language")
        stages.train_joint(model, tokenizer, heads, self.steps["joint"])
        print(f"exact captions, held out: {stages.exact_captions(model, tokenizer, 8 if self.smoke else 200):.3f}")
        self.save("joint", model, heads)

    def export(self):
        tokenizer, model, _heads = self.start("joint")
        set_clipping(model, True)
        export(model, tokenizer, self.work, self.work / "export")
        print("described:", describe(self.work / "export"))


@torch.no_grad()
def describe(folder):
    """The exported folder's words for one picture, through the stock pipeline."""
    processor = AutoProcessor.from_pretrained(folder)
    model = Gemma4ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    picture = Scene(random.Random(5), 96, 96, mix=(1, 1), largest=True).render(random.Random(5))
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "Describe this image."}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder for everything this writes")
    parser.add_argument("--stages", type=lambda names: names.split(","), default=STAGES, metavar=",".join(STAGES))
    parser.add_argument("--smoke", action="store_true", help="a few steps of each stage, to test the script")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = Run(args)
    for stage in args.stages:
        print(f"== {stage}", flush=True)
        getattr(run, stage)()
