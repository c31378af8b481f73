"""Records the inner values of one forward under Pyrex's names.

A tap is named by the module's path in the checkpoint and holds that module's output; `<path>.input` holds its first
input. No tap has a batch axis, and taps of the vision tower have no padding rows: shapes are `[T, …]` for tokens,
`[P, …]` for the patches of all pictures, `[S, …]` for their soft tokens. The full list is in README.md.
"""

import re
from contextlib import ExitStack

import torch
from transformers.models.gemma4 import modeling_gemma4

TEXT, VISION = "model.language_model", "model.vision_tower"

LAYER_OUTPUTS = (
    "", "input_layernorm", "self_attn", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "self_attn.q_norm", "self_attn.k_norm", "self_attn.v_norm", "post_attention_layernorm", "pre_feedforward_layernorm",
    "mlp", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "post_feedforward_layernorm",
)  # fmt: skip
LAYER_INPUTS = ("self_attn.o_proj", "mlp.down_proj")
TEXT_LAYER_OUTPUTS = (*LAYER_OUTPUTS, "per_layer_input_gate", "per_layer_projection", "post_per_layer_input_norm")
TEXT_LAYER_INPUTS = (*LAYER_INPUTS, "pre_feedforward_layernorm", "per_layer_input_gate", "per_layer_projection")
TEXT_OUTPUTS = ("embed_tokens", "per_layer_model_projection", "per_layer_projection_norm", "norm")
CLIPPED_LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
SOFT_TOKEN_OUTPUTS = (
    VISION, "model.embed_vision", "model.embed_vision.embedding_pre_projection_norm", "model.embed_vision.embedding_projection",
)  # fmt: skip
TEXT_ROTATION, VISION_ROTATION = "apply_rotary_pos_emb", "apply_multidimensional_rope"


def record(reference, inputs, steps=0, followed=None, forced=None):
    """Taps of the prefill of `inputs`, then of `steps` decode steps under `step1.`, `step2.`, …

    The steps are greedy, or feed the ids of the earlier taps `followed`. Each tap found in `forced` is replaced by it
    as soon as it is recorded: the rest of the model goes on from there.
    """
    recorded, past = {}, None
    for step in range(steps + 1):
        with Taps(reference.model, step_prefix(step), forced) as taps:
            taps.put("prep.input_ids", inputs["input_ids"], tokens())
            output = reference.forward(inputs, past_key_values=past, use_cache=steps > 0)
            taps.put("logits", output.logits, tokens())
        recorded.update(taps)
        past = output.past_key_values
        if step < steps:
            inputs = {"input_ids": next_ids(output.logits, followed, step + 1)}
    return recorded


def step_prefix(step):
    return f"step{step}." if step else ""


def next_ids(logits, followed, step):
    if followed:
        return followed[f"{step_prefix(step)}prep.input_ids"][None]
    return logits[:, -1:].argmax(-1)


def is_coarse(name):
    """Whole layers and what lies between them; the rest (inside a layer) is fine."""
    return not re.search(r"layers\.\d+\.", name)


class Taps(dict):
    """`{name: tensor}`, filled while the context is open.

    Which part of a module's tensor is a tap is said by `rows`, a function that returns an index: `tokens`, `patches` or
    `soft_tokens`. The same index reads the tap and writes what replaces it.
    """

    def __init__(self, model, prefix="", forced=None):
        super().__init__()
        self.model, self.prefix, self.forced = model, prefix, forced or {}
        self.real_patches = None
        self.rotations = {}
        self.undo = ExitStack()

    def __enter__(self):
        modules = dict(self.model.named_modules())
        self.tap_text(modules)
        if modules.get(VISION) is not None:
            self.tap_vision(modules)
        return self

    def __exit__(self, *_exception):
        self.undo.close()

    def put(self, name, tensor, index):
        self[self.prefix + name] = tensor[index].detach().clone().contiguous()

    def see(self, name, tensor, index):
        """Records a tap; returns what the model goes on with, never the memory of a forced tensor: some steps work in place."""
        self.put(name, tensor, index)
        if self.prefix + name not in self.forced:
            return tensor
        replaced = tensor.clone()
        replaced[index] = self.forced[self.prefix + name].to(tensor.dtype)
        return replaced

    def patches(self):
        return self.real_patches

    def tap_text(self, modules):
        for i, layer in enumerate(modules[TEXT].layers):
            name = f"{TEXT}.layers.{i}"
            self.tap_layer(modules, name, TEXT_LAYER_OUTPUTS, TEXT_LAYER_INPUTS, tokens)
            self.tap_per_layer_input(layer, name)
            self.name_rotations(layer, name, TEXT_ROTATION)
        for name in TEXT_OUTPUTS:
            self.tap_output(modules.get(f"{TEXT}.{name}"), f"{TEXT}.{name}", tokens)
        self.tap_output(modules["lm_head"], "lm_head", tokens)
        self.hook_pre(modules[TEXT], self.on_text_model)
        self.wrap_rotation(TEXT_ROTATION, tokens)

    def tap_vision(self, modules):
        self.hook_pre(modules[VISION], self.on_vision_tower)
        for i, layer in enumerate(modules[f"{VISION}.encoder"].layers):
            name = f"{VISION}.encoder.layers.{i}"
            self.tap_layer(modules, name, LAYER_OUTPUTS, LAYER_INPUTS, self.patches)
            self.tap_clipped_linears(modules, name)
            self.name_rotations(layer, name, VISION_ROTATION)
        for name in (f"{VISION}.patch_embedder.input_proj", f"{VISION}.patch_embedder"):
            self.tap_output(modules[name], name, self.patches)
        self.hook(modules[f"{VISION}.pooler"], self.on_pooler)
        for name in SOFT_TOKEN_OUTPUTS:
            self.tap_output(modules[name], name, soft_tokens)
        self.wrap_rotation(VISION_ROTATION, self.patches)

    def tap_layer(self, modules, layer, outputs, inputs, rows):
        """Taps one layer; names that this layer lacks (K/V of a reuse layer, PLE when there is none) are left out."""
        for name in outputs:
            path = f"{layer}.{name}".rstrip(".")
            self.tap_output(modules.get(path), path, rows)
        for name in inputs:
            self.tap_input(modules.get(f"{layer}.{name}"), f"{layer}.{name}.input", rows)

    def tap_clipped_linears(self, modules, layer):
        """What lies between the clamps; a linear without bounds has nothing there that its own taps do not show."""
        for path in (f"{layer}.{name}" for name in CLIPPED_LINEARS):
            if modules[path].use_clipped_linears:
                self.tap_input(modules[f"{path}.linear"], f"{path}.input_clamped", self.patches)
                self.tap_output(modules[f"{path}.linear"], f"{path}.linear", self.patches)

    def tap_output(self, module, name, rows):
        if module is not None:
            see = lambda _module, _args, output: with_main_output(output, self.see(name, main_output(output), rows()))
            self.hook(module, see)

    def tap_input(self, module, name, rows):
        if module is not None:
            self.hook_pre(module, lambda _module, args, kwargs: ((self.see(name, args[0], rows()), *args[1:]), kwargs))

    def hook(self, module, hook):
        self.undo.callback(module.register_forward_hook(hook).remove)

    def hook_pre(self, module, hook):
        self.undo.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def tap_per_layer_input(self, layer, name):
        """The PLE row a layer receives: no module returns it."""

        def on_layer(_module, args, kwargs):
            hidden_states, per_layer_input, *rest = args
            if per_layer_input is not None:
                per_layer_input = self.see(f"{name}.per_layer_input", per_layer_input, tokens())
            return (hidden_states, per_layer_input, *rest), kwargs

        self.hook_pre(layer, on_layer)

    def name_rotations(self, layer, name, function):
        """Attention rotates its queries, then its own keys. Only calls of `function` count: the one for pictures calls the other."""

        def on_attention(_module, _args, _kwargs):
            self.rotations = {function: [f"{name}.self_attn.q_rope", f"{name}.self_attn.k_rope"]}

        self.hook_pre(layer.self_attn, on_attention)

    def wrap_rotation(self, function, rows):
        """Stands in for a rotation, which is a function of the reference's module and no module of its own."""
        original = getattr(modeling_gemma4, function)

        def rotate(*args, **kwargs):
            rotated, names = original(*args, **kwargs), self.rotations.get(function)
            return self.see(names.pop(0), rotated, rows()) if names else rotated

        setattr(modeling_gemma4, function, rotate)
        self.undo.callback(setattr, modeling_gemma4, function, original)

    def on_text_model(self, _module, args, kwargs):
        seen = {}
        for name in ("inputs_embeds", "per_layer_inputs"):
            if kwargs.get(name) is not None:
                seen[name] = self.see(f"{TEXT}.{name}", kwargs[name], tokens())
        return args, kwargs | seen

    def on_vision_tower(self, _module, _args, kwargs):
        self.real_patches = (kwargs["pixel_position_ids"] >= 0).all(-1)
        self.put("prep.pixel_values", kwargs["pixel_values"], self.real_patches)
        self.put("prep.position_ids", kwargs["pixel_position_ids"], self.real_patches)

    def on_pooler(self, _module, _args, output):
        pooled, real = output
        return self.see(f"{VISION}.pooler", pooled, real), real


def tokens():
    """The only row of the batch."""
    return 0


def soft_tokens():
    """Everything: the batch axis went with the padding."""
    return ...


def main_output(output):
    """The tensor of a module's output: attention returns a tuple, the vision tower a named output."""
    if isinstance(output, tuple):
        return output[0]
    return getattr(output, "last_hidden_state", output)


def with_main_output(output, tensor):
    """The same output around another tensor."""
    if isinstance(output, torch.Tensor):
        return tensor
    if isinstance(output, tuple):
        return (tensor, *output[1:])
    output.last_hidden_state = tensor
    return output
