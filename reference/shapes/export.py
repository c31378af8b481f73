"""Writes a trained model as a standard Hugging Face folder in bf16."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    Gemma4AudioFeatureExtractor,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4VideoProcessor,
    GenerationConfig,
)

from .model import MAX_SOFT_TOKENS, PATCH, POOL, make_config

TEMPLATE = Path(__file__).resolve().parent / "chat_template.jinja"


def export(model, tokenizer, work, folder):
    """`work` holds the tokenizer files; `folder` becomes the checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(work / name, folder / name)
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = make_config(tokenizer) | {"transformers_version": "5.23.0"}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    stop = [1, tokenizer.token_to_id("<turn|>"), tokenizer.token_to_id("<|tool_response>")]
    GenerationConfig(
        bos_token_id=2, eos_token_id=stop, pad_token_id=0, do_sample=True, temperature=1.0, top_k=64, top_p=0.95
    ).save_pretrained(folder)
    sizes = {"patch_size": PATCH, "max_soft_tokens": MAX_SOFT_TOKENS, "pooling_kernel_size": POOL}
    Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(**sizes),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        video_processor=Gemma4VideoProcessor(**sizes),
        chat_template=TEMPLATE.read_text(),
        image_seq_length=MAX_SOFT_TOKENS,
        audio_seq_length=750,
    ).save_pretrained(folder)
