"""Run in the `lavis` environment: a tiny BLIP-2 with random weights from LAVIS's own constructor.

Usage: python -P tiny_lavis.py CHECKPOINT PIXELS.npy REFERENCE.npz

The parts that the constructor would fetch from the internet are replaced by small ones of the same classes;
everything else is LAVIS as it is: its constructor, its `extract_features`, its checkpoint's layout.
"""

from __future__ import annotations

import sys
from functools import partial

import lavis.models.blip2_models.blip2 as blip2
import numpy as np
import torch
from lavis.models.blip2_models.blip2_qformer import Blip2Qformer
from lavis.models.blip2_models.Qformer import BertConfig, BertLMHeadModel
from lavis.models.eva_vit import VisionTransformer
from torch import nn

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Tokenizer:
    def __len__(self) -> int:
        return 51


class SmallConfig:
    @classmethod
    def from_pretrained(cls, name: str) -> BertConfig:
        return BertConfig(
            vocab_size=50,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=96,
            max_position_embeddings=16,
        )


class SmallBert:
    @classmethod
    def from_pretrained(cls, name: str, config: BertConfig) -> BertLMHeadModel:
        return BertLMHeadModel(config=config)


def small_vit(*_: object) -> VisionTransformer:
    return VisionTransformer(
        img_size=42,
        patch_size=14,
        use_mean_pooling=False,
        embed_dim=176,
        depth=3,
        num_heads=2,
        mlp_ratio=4.3637,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def main(checkpoint: str, pixels_path: str, reference: str) -> None:
    torch.manual_seed(7)
    blip2.create_eva_vit_g = small_vit
    blip2.BertConfig = SmallConfig
    blip2.BertLMHeadModel = SmallBert
    blip2.Blip2Base.init_tokenizer = classmethod(lambda cls: Tokenizer())
    model = Blip2Qformer(vit_precision="fp32", num_query_token=4, embed_dim=32).eval()
    with torch.no_grad():
        for (
            name,
            parameter,
        ) in model.named_parameters():  # zero biases would hide mistakes
            spread = 0.3 if "query_tokens" in name else 0.1
            parameter.copy_(torch.randn_like(parameter) * spread + (1.0 if "orm.weight" in name else 0.0))
    torch.save({"model": model.state_dict(), "epoch": 1}, checkpoint)
    pixels = torch.from_numpy(np.load(pixels_path)).permute(0, 3, 1, 2).float() / 255
    images = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.inference_mode():
        told = model.extract_features({"image": images}, mode="image")
        patches = model.ln_vision(model.visual_encoder(images))
    np.savez(
        reference,
        pooled=told.image_embeds.mean(1).numpy(),
        projected=told.image_embeds_proj.mean(1).numpy(),
        cls=patches[:, 0].numpy(),
        patches=patches.numpy(),
        answers=told.image_embeds.numpy(),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
