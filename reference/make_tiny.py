"""Writes the tiny random checkpoints of `tests/golden/<name>/model/`, as complete Hugging Face folders.

Every buffer is drawn so that forgetting it changes the logits: norm weights are spread and partly negative, layer
scalars run from 0.005 to 0.9, clip bounds are asymmetric and bind, pad rows are not zero. The k_norm weights stay near
0.24: the attention scale is 1.0, and with k_norm near 1 rounding noise would grow 10^5 times within ten layers.

    python make_tiny.py [NAME ...] [--out tests/golden]
"""

import argparse
import copy
import json
import shutil
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Gemma4Config, Gemma4ForConditionalGeneration

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ROOT / "models" / "shapes"
SHARED_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "processor_config.json", "generation_config.json")
CLIP_QUANTILES = {"min": 0.02, "max": 0.96}
LAYER_SCALARS = (0.61, 0.27, 0.005, 0.82, 0.44, 0.9, 0.13, 0.36, 0.71, 0.038, 0.55, 0.87)

SPECIAL_IDS = {
    "boi_token_id": 2041, "boa_token_id": 2042, "image_token_id": 2043, "audio_token_id": 2044,
    "eoi_token_id": 2045, "eoa_token_id": 2046, "eoa_token_index": 2046, "video_token_id": 2047,
    "eos_token_id": [1, 16],
}  # fmt: skip
ROPE = {
    "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
    "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
}
VISION = {
    "model_type": "gemma4_vision", "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "patch_size": 16, "pooling_kernel_size": 3,
    "position_embedding_size": 224, "use_clipped_linears": True, "standardize": False,
    "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"},
}  # fmt: skip
AUDIO = {
    "model_type": "gemma4_audio", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "subsampling_conv_channels": [4, 4], "output_proj_dims": 24,
}  # fmt: skip
TEXT = {
    "model_type": "gemma4_text", "vocab_size": 2048, "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False,
    "attention_k_eq_v": False, "enable_moe_block": False, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "tie_word_embeddings": True,
    "use_bidirectional_attention": None,
}  # fmt: skip


def layer_types(num_layers, period):
    return ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(num_layers)]


# The published form, with the dead weight of the published file: inert K/V of the reuse layers and an audio tower.
E2B_LIKE = {
    "seed": 20, "per_layer_config": False, "inert": True,
    "vision": VISION, "audio": AUDIO,
    "text": TEXT | {
        "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 10, "layer_types": layer_types(10, 5),
        "num_attention_heads": 4, "num_key_value_heads": 1, "num_global_key_value_heads": None, "head_dim": 16,
        "global_head_dim": 32, "sliding_window": 16, "num_kv_shared_layers": 5, "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 2048, "final_logit_softcapping": 30.0,
        "rope_parameters": ROPE,
    },
}  # fmt: skip

# The form that transformers 5 writes itself: `per_layer_config` instead of `global_head_dim`, no inert tensors.
E4B_LIKE = {
    "seed": 40, "per_layer_config": True, "inert": False,
    "vision": VISION | {"hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 3, "num_hidden_layers": 3},
    "audio": None,
    "text": TEXT | {
        "hidden_size": 56, "intermediate_size": 72, "num_hidden_layers": 12, "layer_types": layer_types(12, 6),
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 32,
        "sliding_window": 24, "num_kv_shared_layers": 6, "use_double_wide_mlp": False,
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 2048, "final_logit_softcapping": 30.0,
        "rope_parameters": ROPE,
    },
}  # fmt: skip

# No vision tower at all (`vision_config` null). Leaves to the class defaults what they can settle: the layer pattern
# (the last layer is forced to full), the rotary parameters, no soft cap; the global KV heads must be ignored.
TEXT_ONLY = {
    "seed": 60, "per_layer_config": False, "inert": False, "vision": None, "audio": None,
    "text": TEXT | {
        "hidden_size": 40, "intermediate_size": 88, "num_hidden_layers": 7, "num_attention_heads": 6,
        "num_key_value_heads": 3, "num_global_key_value_heads": 1, "head_dim": 16, "global_head_dim": 32,
        "sliding_window": 20, "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0,
    },
}  # fmt: skip

TINY = {"e2b-like": E2B_LIKE, "e4b-like": E4B_LIKE, "text-only": TEXT_ONLY}


def draw(name, shape, seed):
    """A random tensor for one checkpoint name; the draw depends on the name and the seed, not on any order."""
    gen = torch.Generator().manual_seed(seed * 2**32 + zlib.crc32(name.encode()))
    normal = torch.randn(shape, generator=gen)
    if name.endswith("layer_scalar"):
        return torch.tensor([LAYER_SCALARS[layer_idx(name)]])
    if "embed_tokens" in name:
        return normal * 3 * shape[-1] ** -0.5
    if "position_embedding_table" in name:
        return normal * 0.4
    if len(shape) >= 2:
        # Gates in the flat tail of GELU would leave next to nothing for the norm behind them to amplify.
        return normal * shape[-1] ** -0.5 * (0.3 if "per_layer_input_gate" in name else 1)
    return draw_vector(name, normal, gen) * (3 if name.endswith("language_model.norm.weight") else 1)


def draw_vector(name, normal, gen):
    """Norm weights: spread, the first and one in eight of the others negative; k_norm around 0.24. Biases: plain noise."""
    if name.endswith("bias") or "per_dim_scale" in name:
        return normal * 0.1
    sign = torch.where(torch.rand(normal.shape, generator=gen) < 0.125, -1.0, 1.0)
    sign[0] = -1.0
    if "k_norm" in name:
        return sign * (0.24 + 0.02 * normal)
    return sign * (1.0 + 0.3 * normal).abs().clamp(min=0.05)


def layer_idx(name):
    return int(name.split("layers.")[1].split(".")[0])


def model_config(spec):
    """The config as the class understands it; class defaults fill what the spec leaves out."""
    parts = {"text_config": spec["text"], "vision_config": spec["vision"], "audio_config": spec["audio"]}
    return Gemma4Config(**copy.deepcopy(parts), **SPECIAL_IDS, architectures=["Gemma4ForConditionalGeneration"])


def build(spec):
    """The model in f32 with every parameter and buffer drawn, bf16-exact, clip bounds not yet set."""
    config = model_config(spec)
    model = Gemma4ForConditionalGeneration._from_config(config, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not is_clip_bound(name):
                tensor.copy_(draw(name, tensor.shape, spec["seed"]).bfloat16())
    return model.eval()


def is_clip_bound(name):
    return name.endswith(("input_min", "input_max", "output_min", "output_max"))


@torch.no_grad()
def set_clip_bounds(model, seed):
    """Sets every bound to a quantile of what its linear sees on a noisy picture, so that all of them bind."""
    clipped = [module for module in model.modules() if hasattr(module, "input_min")]
    for module in clipped:
        for bound, value in zip(("input_min", "input_max", "output_min", "output_max"), (-2.5, 2.25, -2.0, 1.75)):
            getattr(module, bound).fill_(value)
    if model.model.vision_tower is None:
        return
    hooks = [module.register_forward_hook(set_own_bounds) for module in model.model.vision_tower.modules() if module in clipped]
    model.get_image_features(*noisy_picture(seed, model.config.vision_config.patch_size))
    for hook in hooks:
        hook.remove()


def set_own_bounds(module, args, _output):
    """Forward hook of a clipped linear: replaces its bounds and returns the output under the new ones."""
    for side, seen in (("input", args[0]), ("output", None)):
        seen = module.linear(args[0].clamp(module.input_min, module.input_max)) if seen is None else seen
        for end, quantile in CLIP_QUANTILES.items():
            getattr(module, f"{side}_{end}").copy_(seen.flatten().quantile(quantile).bfloat16())
    return type(module).forward(module, args[0])


def noisy_picture(seed, patch_size, width=12, height=9):
    """Pixels `[1, P, 3·patch²]` and positions `[1, P, 2]` of a picture of gradients and noise."""
    gen = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0, 1, width * height)[None, :, None]
    pixels = (ramp + 0.5 * torch.rand(1, width * height, 3 * patch_size**2, generator=gen)) / 1.5
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return pixels, torch.stack([x, y], -1).reshape(1, -1, 2)


def checkpoint(model, spec):
    """The tensors of the file: bf16, `lm_head` tied away, inert tensors added where the spec asks for them."""
    tensors = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    if spec["inert"]:
        for name, shape in inert_shapes(model.config.text_config):
            tensors[name] = draw(name, shape, spec["seed"]).bfloat16()
    return tensors


def inert_shapes(config):
    """K/V weights of the reuse layers: in the published files, never read."""
    for i in range(config.num_hidden_layers - config.num_kv_shared_layers, config.num_hidden_layers):
        layer = config.per_layer_config[i]
        prefix, width = f"model.language_model.layers.{i}.self_attn", layer.num_key_value_heads * layer.head_dim
        yield f"{prefix}.k_proj.weight", (width, config.hidden_size)
        yield f"{prefix}.v_proj.weight", (width, config.hidden_size)
        yield f"{prefix}.k_norm.weight", (layer.head_dim,)


def write_config(model, spec, folder):
    """`config.json`, either as transformers 5 saves it or as the published checkpoints spell it."""
    if spec["per_layer_config"]:
        for part in (model.config, model.config.text_config, model.config.vision_config):
            part.dtype = torch.bfloat16
        model.config._attn_implementation = None
        model.config.save_pretrained(folder)
        return
    parts = {"text_config": spec["text"], "vision_config": spec["vision"], "audio_config": spec["audio"]}
    config = {key: part and part | {"dtype": "bfloat16"} for key, part in parts.items()} | SPECIAL_IDS
    config |= {"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4", "dtype": "bfloat16"}
    config |= {"tie_word_embeddings": True, "transformers_version": "5.23.0"}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_tiny(name, out):
    """Writes one checkpoint folder and returns its path."""
    spec, folder = TINY[name], Path(out) / name / "model"
    folder.mkdir(parents=True, exist_ok=True)
    model = build(spec)
    set_clip_bounds(model, spec["seed"])
    write_config(model, spec, folder)
    save_file(checkpoint(model, spec), folder / "model.safetensors", metadata={"format": "pt"})
    for shared in SHARED_FILES:
        shutil.copyfile(SHAPES / shared, folder / shared)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(TINY))
    parser.add_argument("--out", default=ROOT / "tests" / "golden")
    args = parser.parse_args()
    for tiny in args.names or TINY:
        print(write_tiny(tiny, args.out))
