"""Records the inner values of one forward under Pyrex's names.

A tap is named by the module's path in the checkpoint and holds that module's output; `<path>.input` holds its first
input. No tap has a batch axis, and taps of the vision tower have no padding rows: shapes are `[T, …]` for tokens,
`[P, …]` for the patches of all pictures, `[S, …]` for their soft tokens. The full list is in README.md.
"""

import re

import torch
from transformers.models.gemma4 import modeling_gemma4

TEXT, VISION = "model.language_model", "model.vision_tower"

TEXT_LAYER_OUTPUTS = (
    "", "input_layernorm", "self_attn", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_norm",
    "self_attn.k_norm", "self_attn.v_norm", "post_attention_layernorm", "pre_feedforward_layernorm", "mlp",
    "post_feedforward_layernorm", "per_layer_input_gate", "per_layer_projection", "post_per_layer_input_norm",
)  # fmt: skip
TEXT_LAYER_INPUTS = (
    "self_attn.o_proj", "pre_feedforward_layernorm", "mlp.down_proj", "per_layer_input_gate", "per_layer_projection",
)  # fmt: skip
TEXT_OUTPUTS = ("embed_tokens", "per_layer_model_projection", "per_layer_projection_norm", "norm")
VISION_LAYER_OUTPUTS = (
    "", "input_layernorm", "self_attn", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj.linear",
    "self_attn.q_norm", "self_attn.k_norm", "self_attn.v_norm", "post_attention_layernorm", "pre_feedforward_layernorm",
    "mlp", "post_feedforward_layernorm",
)  # fmt: skip
VISION_LAYER_INPUTS = ("self_attn.o_proj", "mlp.down_proj")


class Taps(dict):
    """`{name: tensor}`, filled while the context is open."""

    def __init__(self, model, prefix=""):
        super().__init__()
        self.model, self.prefix = model, prefix
        self.real_patches = None
        self.rotations = None
        self.handles = []

    def __enter__(self):
        modules = dict(self.model.named_modules())
        for i, layer in enumerate(modules[TEXT].layers):
            self.tap_layer(modules, f"{TEXT}.layers.{i}", TEXT_LAYER_OUTPUTS, TEXT_LAYER_INPUTS, drop_batch)
            self.tap_text_layer(layer, f"{TEXT}.layers.{i}")
        for name in TEXT_OUTPUTS:
            self.tap_output(modules.get(f"{TEXT}.{name}"), f"{TEXT}.{name}", drop_batch)
        self.tap_output(modules["lm_head"], "lm_head", drop_batch)
        self.hook_pre(modules[TEXT], self.on_text_model)
        if modules.get(VISION) is not None:
            self.tap_vision(modules)
        self.original_rope = modeling_gemma4.apply_rotary_pos_emb
        modeling_gemma4.apply_rotary_pos_emb = self.rotate
        return self

    def __exit__(self, *_exception):
        for handle in self.handles:
            handle.remove()
        modeling_gemma4.apply_rotary_pos_emb = self.original_rope

    def put(self, name, tensor):
        self[self.prefix + name] = tensor.detach().clone().contiguous()

    def tap_vision(self, modules):
        self.hook_pre(modules[VISION], self.on_vision_tower)
        for i in range(len(modules[f"{VISION}.encoder"].layers)):
            layer = f"{VISION}.encoder.layers.{i}"
            self.tap_layer(modules, layer, VISION_LAYER_OUTPUTS, VISION_LAYER_INPUTS, self.drop_padding)
            linear = f"{layer}.self_attn.q_proj"
            self.tap_input(modules[f"{linear}.linear"], f"{linear}.input_clamped", self.drop_padding)
        self.tap_output(modules[f"{VISION}.patch_embedder"], f"{VISION}.patch_embedder", self.drop_padding)
        self.handles.append(modules[f"{VISION}.pooler"].register_forward_hook(self.on_pooler))
        self.tap_output(modules[VISION], VISION, lambda output: output)
        self.tap_output(modules["model.embed_vision"], "model.embed_vision", lambda output: output)

    def tap_layer(self, modules, layer, outputs, inputs, shape):
        """Taps one layer; names that this layer lacks (K/V of a reuse layer, PLE when there is none) are left out."""
        for name in outputs:
            path = f"{layer}.{name}".rstrip(".")
            self.tap_output(modules.get(path), path, shape)
        for name in inputs:
            self.tap_input(modules.get(f"{layer}.{name}"), f"{layer}.{name}.input", shape)

    def tap_output(self, module, name, shape):
        if module is not None:
            hook = lambda _module, _args, output: self.put(name, shape(main_output(output)))
            self.handles.append(module.register_forward_hook(hook))

    def tap_input(self, module, name, shape):
        if module is not None:
            self.handles.append(module.register_forward_pre_hook(lambda _module, args: self.put(name, shape(args[0]))))

    def hook_pre(self, module, hook):
        self.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def tap_text_layer(self, layer, name):
        """Hooks what no module returns: the PLE row a layer receives, and its rotated queries and keys."""

        def on_layer(_module, args, _kwargs):
            if args[1] is not None:
                self.put(f"{name}.per_layer_input", drop_batch(args[1]))

        def on_attention(_module, _args, _kwargs):
            self.rotations = [f"{name}.self_attn.q_rope", f"{name}.self_attn.k_rope"]

        def after_attention(_module, _args, _output):
            self.rotations = None

        self.hook_pre(layer, on_layer)
        self.hook_pre(layer.self_attn, on_attention)
        self.handles.append(layer.self_attn.register_forward_hook(after_attention))

    def rotate(self, *args, **kwargs):
        """Stands in for the module-level rotation: text attention calls it for the queries, then for its own keys."""
        rotated = self.original_rope(*args, **kwargs)
        if self.rotations:
            self.put(self.rotations.pop(0), drop_batch(rotated))
        return rotated

    def on_text_model(self, _module, _args, kwargs):
        self.put(f"{TEXT}.inputs_embeds", drop_batch(kwargs["inputs_embeds"]))
        if kwargs.get("per_layer_inputs") is not None:
            self.put(f"{TEXT}.per_layer_inputs", drop_batch(kwargs["per_layer_inputs"]))

    def on_vision_tower(self, _module, _args, kwargs):
        self.real_patches = (kwargs["pixel_position_ids"] >= 0).all(-1)
        self.put("prep.pixel_values", self.drop_padding(kwargs["pixel_values"]))
        self.put("prep.position_ids", self.drop_padding(kwargs["pixel_position_ids"]))

    def on_pooler(self, _module, _args, output):
        pooled, real = output
        self.put(f"{VISION}.pooler", pooled[real])

    def drop_padding(self, tensor):
        return tensor[self.real_patches]


def drop_batch(tensor):
    return tensor.squeeze(0)


def main_output(output):
    """The tensor of a module's output: attention returns a tuple, the vision tower a named output."""
    if isinstance(output, tuple):
        return output[0]
    return getattr(output, "last_hidden_state", output)


def record(reference, inputs, steps=0):
    """Taps of the prefill of `inputs`, then of `steps` greedy decode steps under `step1.`, `step2.`, …"""
    with Taps(reference.model) as taps:
        output = reference.forward(inputs, use_cache=steps > 0)
        taps.put("prep.input_ids", drop_batch(inputs["input_ids"]))
        taps.put("logits", drop_batch(output.logits))
    for step in range(1, steps + 1):
        with Taps(reference.model, f"step{step}.") as decoded:
            next_id = output.logits[:, -1:].argmax(-1)
            output = reference.forward({"input_ids": next_id}, past_key_values=output.past_key_values, use_cache=True)
            decoded.put("prep.input_ids", drop_batch(next_id))
            decoded.put("logits", drop_batch(output.logits))
        taps.update(decoded)
    return taps


def is_coarse(name):
    """Whole layers and what lies between them; the rest (inside a layer) is fine."""
    return not re.search(r"layers\.\d+\.", name)
