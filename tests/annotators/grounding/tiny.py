"""Tiny random checkpoints of Grounding DINO in both real formats, with the same weights.

The backbone is a whole Swin-T, because the original package knows no smaller one; the rest is small.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = (
    *("a", "car", "carpet", "hand", "glove", "work", "red", "blue", "bottle", "the", "of", "man", "woman"),
    *("bag", "spanner", "wrench", "café", "naïve"),
)
ARCHITECTURE = {
    "modelname": "groundingdino",
    "backbone": "swin_T_224_1k",
    "position_embedding": "sine",
    "pe_temperatureH": 20,
    "pe_temperatureW": 20,
    "return_interm_indices": [1, 2, 3],
    "backbone_freeze_keywords": None,
    "enc_layers": 2,
    "dec_layers": 2,
    "pre_norm": False,
    "dim_feedforward": 64,
    "hidden_dim": 256,
    "dropout": 0.0,
    "nheads": 8,
    "num_queries": 100,
    "query_dim": 4,
    "num_patterns": 0,
    "num_feature_levels": 4,
    "enc_n_points": 4,
    "dec_n_points": 4,
    "two_stage_type": "standard",
    "two_stage_bbox_embed_share": False,
    "two_stage_class_embed_share": False,
    "transformer_activation": "relu",
    "dec_pred_bbox_embed_share": True,
    "dn_box_noise_scale": 1.0,
    "dn_label_noise_ratio": 0.5,
    "dn_labelbook_size": 2000,
    "embed_init_tgt": True,
    "max_text_len": 256,
    "text_encoder_type": "bert-base-uncased",
    "use_text_enhancer": True,
    "use_fusion_layer": True,
    "use_checkpoint": True,
    "use_transformer_ckpt": True,
    "use_text_cross_attention": True,
    "text_dropout": 0.0,
    "fusion_dropout": 0.0,
    "fusion_droppath": 0.1,
    "sub_sentence_present": True,
}
BERT = {
    "model_type": "bert",
    "vocab_size": 1100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def write_text_encoder(folder: Path) -> Path:
    """BERT's settings, and a vocabulary whose special tokens have their real ids."""
    import json

    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [f"[unused{number}]" for number in range(1100)]
    vocabulary[0], vocabulary[100], vocabulary[101], vocabulary[102], vocabulary[103] = (
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    )  # fmt: skip
    vocabulary[1012], vocabulary[1029] = ".", "?"
    signs = [*"abcdefghijklmnopqrstuvwxyz0123456789!-,'/"]
    pieces = [*signs, *(f"##{sign}" for sign in signs), *WORDS]
    vocabulary[200 : 200 + len(pieces)] = pieces
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab={word: number for number, word in enumerate(vocabulary)}).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(BERT))
    return folder


def write_original(folder: Path) -> Path:
    """A checkpoint as the authors publish them: `.pth`, the configuration, and BERT's folder."""
    import torch

    from labelmill.annotators.proposers.groundingdino_py_network import build

    text = write_text_encoder(folder / "bert")
    lines = [f"{name} = {value!r}" for name, value in ARCHITECTURE.items()]
    (folder / "tiny.cfg.py").write_text("\n".join(lines) + "\n")
    torch.manual_seed(3)
    model = build(ARCHITECTURE, text)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not value.is_floating_point():
                continue
            if value.ndim < 2 or "sampling_offsets" in name or "attention_weights" in name or "bbox" in name:
                value.add_(0.02 * torch.randn_like(value))  # the package starts some parts at zero
            if "gamma_" in name:
                value.fill_(0.5)  # at their start of 1e-4 the fusion layers would do nothing
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    state["module.label_enc.weight"] = torch.zeros(3)  # a leftover of training, as in the published file
    torch.save({"model": state}, folder / "tiny.pth")
    return folder


def write_port(folder: Path, original: Path) -> Path:
    """The same weights as a `save_pretrained` folder."""
    from transformers import AutoTokenizer, BertConfig, GroundingDinoForObjectDetection
    from transformers import GroundingDinoConfig as PortConfig

    from labelmill.annotators.state_dicts import read_state_dict

    config = PortConfig(
        text_config=BertConfig(**BERT).to_dict(),
        encoder_layers=2,
        decoder_layers=2,
        num_queries=100,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        dropout=0.0,
    )
    model = GroundingDinoForObjectDetection(config)
    tensors = port_names(read_state_dict(original / "tiny.pth"))
    report = model.load_state_dict(tensors, strict=False)
    assert not report.unexpected_keys
    assert all("swin.layernorm" in name for name in report.missing_keys), report.missing_keys
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(original / "bert").save_pretrained(folder)
    return folder


_LAYER = "model.encoder.layers.#."
_SWIN_MODEL = "model.backbone.conv_encoder.model."
_RULES = (
    ("transformer.tgt_embed.", "model.query_position_embeddings."),
    ("transformer.level_embed", "model.level_embed"),
    ("transformer.enc_output_norm.", "model.enc_output_norm."),
    ("transformer.enc_output.", "model.enc_output."),
    ("transformer.enc_out_bbox_embed.", "model.encoder_output_bbox_embed."),
    ("transformer.decoder.norm.", "model.decoder.layer_norm."),
    ("transformer.decoder.ref_point_head.", "model.decoder.reference_points_head."),
    ("transformer.decoder.", "model.decoder."),
    ("transformer.encoder.layers.#.self_attn.", _LAYER + "deformable_layer.self_attn."),
    ("transformer.encoder.layers.#.norm1.", _LAYER + "deformable_layer.self_attn_layer_norm."),
    ("transformer.encoder.layers.#.norm2.", _LAYER + "deformable_layer.final_layer_norm."),
    ("transformer.encoder.layers.#.linear", _LAYER + "deformable_layer.fc"),
    ("transformer.encoder.text_layers.#.norm1.", _LAYER + "text_enhancer_layer.layer_norm_before."),
    ("transformer.encoder.text_layers.#.norm2.", _LAYER + "text_enhancer_layer.layer_norm_after."),
    ("transformer.encoder.text_layers.#.linear", _LAYER + "text_enhancer_layer.fc"),
    ("transformer.encoder.text_layers.#.", _LAYER + "text_enhancer_layer."),
    ("transformer.encoder.fusion_layers.#.gamma_v", _LAYER + "fusion_layer.vision_param"),
    ("transformer.encoder.fusion_layers.#.gamma_l", _LAYER + "fusion_layer.text_param"),
    ("transformer.encoder.fusion_layers.#.layer_norm_v.", _LAYER + "fusion_layer.layer_norm_vision."),
    ("transformer.encoder.fusion_layers.#.layer_norm_l.", _LAYER + "fusion_layer.layer_norm_text."),
    ("transformer.encoder.fusion_layers.#.", _LAYER + "fusion_layer."),
    ("bert.", "model.text_backbone."),
    ("feat_map.", "model.text_projection."),
    ("input_proj.", "model.input_proj_vision."),
    ("backbone.0.norm1.", _SWIN_MODEL + "hidden_states_norms.stage2."),
    ("backbone.0.norm2.", _SWIN_MODEL + "hidden_states_norms.stage3."),
    ("backbone.0.norm3.", _SWIN_MODEL + "hidden_states_norms.stage4."),
    ("backbone.0.patch_embed.proj.", _SWIN_MODEL + "swin.embeddings.patch_embeddings.projection."),
    ("backbone.0.patch_embed.norm.", _SWIN_MODEL + "swin.embeddings.norm."),
    ("backbone.0.", _SWIN_MODEL + "swin.encoder."),
)  # fmt: skip
_INSIDE = (
    (".cross_attn.", ".encoder_attn."),
    (".ca_text.", ".encoder_attn_text."),
    (".catext_norm.", ".encoder_attn_text_layer_norm."),
    (".v_proj.", ".vision_proj."),
    (".l_proj.", ".text_proj."),
    (".values_v_proj.", ".values_vision_proj."),
    (".values_l_proj.", ".values_text_proj."),
    (".out_v_proj.", ".out_vision_proj."),
    (".out_l_proj.", ".out_text_proj."),
)
_DECODER = (
    (".norm1.", ".encoder_attn_layer_norm."),
    (".norm2.", ".self_attn_layer_norm."),
    (".norm3.", ".final_layer_norm."),
    (".linear", ".fc"),
)
_SWIN = (
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.proj.", ".attention.o_proj."),
    (".attn.relative_position_bias_table", ".attention.relative_position_bias.relative_position_bias_table"),
)


def port_names(tensors: dict[str, Any]) -> dict[str, Any]:
    """Rename the original's weights as the port names them, and part what the port keeps apart."""
    renamed: dict[str, Any] = {}
    for full, value in tensors.items():
        name = full.removeprefix("module.")
        if name.endswith("relative_position_index") or name.startswith(("label_enc", "bert.pooler")):
            continue
        new = _rename(name)
        if new.endswith((".attn.qkv.weight", ".attn.qkv.bias")):
            stem, leaf = new.split(".attn.qkv.")
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{stem}.attention.{part}_proj.{leaf}"] = piece
        elif "in_proj_" in new:
            stem, leaf = new.split("in_proj_")
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"{stem}{part}.{leaf}"] = piece
        else:
            renamed[new] = value
    return renamed


def _rename(name: str) -> str:
    import re

    general = re.sub(r"(?<=layers\.)\d+", "#", name, count=1)
    layer = re.search(r"(?<=layers\.)\d+", name)
    number = layer.group() if layer else ""
    old, new = next(((old, new) for old, new in _RULES if general.startswith(old)), ("", ""))
    renamed = (new + general[len(old) :]).replace("#", number, 1)
    inside = (
        _SWIN if name.startswith("backbone.") else _INSIDE if "fusion" in name or "decoder" in name else ()
    )
    for before, after in (*inside, *(_DECODER if name.startswith("transformer.decoder.layers") else ())):
        renamed = renamed.replace(before, after)
    return renamed
