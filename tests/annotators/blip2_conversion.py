"""LAVIS's names of BLIP-2's tensors, in transformers' words."""

from __future__ import annotations

import re
from typing import Any

_NAMES = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm(\d)\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (
        r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.",
        r"vision_model.encoder.layers.\1.self_attn.projection.",
    ),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision_model.encoder.layers.\1.mlp."),
    (r"^ln_vision\.", "vision_model.post_layernorm."),
    (r"^Qformer\.bert\.embeddings\.LayerNorm\.", "qformer.layernorm."),
    (r"^Qformer\.bert\.encoder\.layer\.(\d+)\.(\w+)\.self\.", r"qformer.encoder.layer.\1.\2.attention."),
    (r"^Qformer\.bert\.encoder\.", "qformer.encoder."),
    (r"^Qformer\.bert\.embeddings\.", "embeddings."),
    (r"^vision_proj\.", "vision_projection."),
    (r"^text_proj\.", "text_projection."),
)


def port_names(tensors: dict[str, Any]) -> dict[str, Any]:
    """A LAVIS state dict as `Blip2ForImageTextRetrieval` names it."""
    import torch

    found = {}
    for name, value in tensors.items():
        if name.endswith(".attn.q_bias"):
            stem = name.removesuffix(".attn.q_bias")
            layer = stem.removeprefix("visual_encoder.blocks.")
            bias = torch.cat([value, torch.zeros_like(value), tensors[f"{stem}.attn.v_bias"]])
            found[f"vision_model.encoder.layers.{layer}.self_attn.qkv.bias"] = bias
        elif (
            name == "temp"
            or name.endswith((".attn.v_bias", "position_ids"))
            or name.startswith("Qformer.cls.")
        ):
            continue
        else:
            for pattern, words in _NAMES:
                name, changed = re.subn(pattern, words, name)
                if changed:
                    break
            found[name] = value
    return found
