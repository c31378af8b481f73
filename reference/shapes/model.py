"""The tiny Gemma 4 itself, and the reference's modules wired for training: one picture per row, no padding patches."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Gemma4Config, Gemma4ForConditionalGeneration

PATCH, POOL, MAX_SOFT_TOKENS = 16, 3, 70
LAYER_SCALARS = [0.875, 0.9375, 1.0625, 0.90625, 1.03125, 0.96875, 0.921875, 1.09375]
CLIP_TAIL = 0.0008
BOUNDS = ("input_min", "input_max", "output_min", "output_max")

TEXT = {
    "model_type": "gemma4_text", "vocab_size": 2048, "vocab_size_per_layer_input": 2048, "hidden_size": 128,
    "intermediate_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "global_head_dim": 64, "num_global_key_value_heads": None, "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size_per_layer_input": 16, "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 2,
    "num_kv_shared_layers": 4, "use_double_wide_mlp": True, "sliding_window": 64, "final_logit_softcapping": 30.0,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "attention_bias": False, "attention_k_eq_v": False,
    "tie_word_embeddings": True, "use_bidirectional_attention": None, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": 2, "dtype": "bfloat16",
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
    },
}  # fmt: skip
VISION = {
    "model_type": "gemma4_vision", "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 4,
    "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 32, "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6, "patch_size": PATCH, "pooling_kernel_size": POOL, "position_embedding_size": 256,
    "use_clipped_linears": True, "standardize": False, "rope_parameters": {"rope_type": "axial", "rope_theta": 100.0},
    "max_position_embeddings": 4096, "dtype": "bfloat16",
}  # fmt: skip
SPECIAL = {
    "boi_token_id": "<|image>", "eoi_token_id": "<image|>", "image_token_id": "<|image|>", "video_token_id": "<|video|>",
    "boa_token_id": "<|audio>", "eoa_token_id": "<audio|>", "eoa_token_index": "<audio|>", "audio_token_id": "<|audio|>",
}  # fmt: skip


def make_config(tokenizer):
    """`config.json` as the published checkpoints spell it."""
    ids = {key: tokenizer.token_to_id(token) for key, token in SPECIAL.items()}
    return {
        "architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4", "text_config": TEXT,
        "vision_config": VISION, "audio_config": None, "tie_word_embeddings": True, "dtype": "bfloat16",
        "eos_token_id": [1, tokenizer.token_to_id("<turn|>")], "vision_soft_tokens_per_image": MAX_SOFT_TOKENS, **ids,
    }  # fmt: skip


def build(tokenizer, seed=0):
    """A fresh model in f32. The attention scale is 1, so k_norm starts at head_dim^-0.5."""
    torch.manual_seed(seed)
    config = Gemma4Config(**make_config(tokenizer))
    model = Gemma4ForConditionalGeneration._from_config(config, dtype=torch.float32).float()
    text, tower = model.model.language_model, model.model.vision_tower
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                std = min(0.05, weight.shape[1] ** -0.5) if "vision" in name else 0.8 * weight.shape[1] ** -0.5
                nn.init.normal_(weight, std=std)
            if name.endswith("k_norm.weight"):
                weight.fill_(weight.shape[0] ** -0.5)
        nn.init.normal_(tower.patch_embedder.position_embedding_table, std=0.05)
        nn.init.normal_(tower.patch_embedder.input_proj.weight, std=0.03)
        nn.init.normal_(text.embed_tokens.weight, std=TEXT["hidden_size"] ** -0.5)
        # Row 0 of the per-layer table stands under pictures and gets no gradient (`padding_idx`): it stays as drawn.
        nn.init.normal_(text.embed_tokens_per_layer.weight, std=TEXT["hidden_size_per_layer_input"] ** -0.5)
        for layer, scalar in zip(text.layers, LAYER_SCALARS):
            layer.layer_scalar.fill_(scalar)
    return model


def encode_images(model, pixels, grid, offset=(0, 0)):
    """`pixels` u8 `[B, P, 768]` of a `(rows, columns)` grid of soft tokens -> soft tokens `[B, S, C]`, patches `[B, P, C]`."""
    rows, columns = grid
    tower = model.model.vision_tower
    y, x = torch.meshgrid(torch.arange(rows * POOL), torch.arange(columns * POOL), indexing="ij")
    positions = torch.stack([x + offset[0], y + offset[1]], -1).reshape(1, -1, 2).expand(len(pixels), -1, -1)
    no_padding = torch.zeros(pixels.shape[:2], dtype=torch.bool)
    patches = tower.patch_embedder(pixels.float() / 255, positions, no_padding)
    rotary = tower.encoder.rotary_emb(patches, positions)
    for layer in tower.encoder.layers:
        patches = layer(patches, attention_mask=None, position_embeddings=rotary, position_ids=positions)
    tiles = patches.view(len(pixels), rows, POOL, columns, POOL, -1)
    return tiles.mean((2, 4)).flatten(1, 2) * tower.pooler.root_hidden_size, patches


def run_text(model, input_ids, soft_tokens=None):
    """Hidden states `[B, T, C]`; `input_ids` are padded on the right, soft tokens go where the placeholders are."""
    inner, window = model.model, TEXT["sliding_window"]
    is_image = input_ids == model.config.image_token_id
    text_ids = input_ids.masked_fill(is_image, 0)
    embeds = inner.language_model.embed_tokens(text_ids)
    if soft_tokens is not None:
        features = inner.embed_vision(soft_tokens).flatten(0, 1)
        embeds = embeds.masked_scatter(is_image[..., None].expand_as(embeds), features)
    place = torch.arange(input_ids.shape[1])
    causal = place[:, None] >= place[None]
    near = place[:, None] - place[None] < window
    masks = {"full_attention": causal[None, None], "sliding_attention": (causal & near)[None, None]}
    return inner.language_model(
        inputs_embeds=embeds, per_layer_inputs=inner.language_model.get_per_layer_inputs(text_ids), attention_mask=masks,
        position_ids=place[None], use_cache=False,
    ).last_hidden_state  # fmt: skip


def next_token_loss(model, hidden_states, labels):
    """Cross entropy of the capped logits over the labelled tokens, and the share of them predicted right."""
    labelled = labels[:, 1:] != -100
    cap = TEXT["final_logit_softcapping"]
    logits = torch.tanh(model.lm_head(hidden_states[:, :-1][labelled]) / cap) * cap
    targets = labels[:, 1:][labelled]
    return F.cross_entropy(logits, targets), (logits.argmax(-1) == targets).float().mean().item()


def clipped_linears(model):
    return [module for module in model.model.vision_tower.modules() if hasattr(module, "input_min")]


def set_clipping(model, enabled):
    """Turns clipping on or off. With it on, bounds are plain numbers: tensor bounds have a slow backward."""
    for module in clipped_linears(model):
        module.use_clipped_linears = enabled
        module.__dict__.pop("forward", None)
        if enabled:
            low_in, high_in, low_out, high_out = (float(getattr(module, bound)) for bound in BOUNDS)

            def forward(x, linear=module.linear, ends=(low_in, high_in, low_out, high_out)):
                return linear(x.clamp(ends[0], ends[1])).clamp(ends[2], ends[3])

            module.forward = forward


@torch.no_grad()
def calibrate_clipping(model, batches):
    """Sets each bound to the value that `CLIP_TAIL` of its inputs or outputs lies beyond, rounded to bf16."""
    seen, hooks = {}, []
    set_clipping(model, False)

    def watch(module, args, output):
        for side, values in (("input", args[0]), ("output", output)):
            values = values.flatten()
            sample = values[torch.randint(0, values.numel(), (40000,))]
            seen.setdefault((module, side), []).append(sample)

    for module in clipped_linears(model):
        hooks.append(module.register_forward_hook(watch))
    for pixels, grid in batches:
        encode_images(model, pixels, grid)
    for hook in hooks:
        hook.remove()
    for (module, side), samples in seen.items():
        values = torch.cat(samples).sort().values
        for end, share in (("min", CLIP_TAIL), ("max", 1 - CLIP_TAIL)):
            getattr(module, f"{side}_{end}").fill_(values[int(len(values) * share)].bfloat16().float())
