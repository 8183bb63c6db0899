"""The process behind the `lavis` encoder: pixels in, embeddings out, over its standard pipes.

It runs in the `lavis` environment and imports nothing of labelmill. A message, either way, is

    4 bytes   length of the header, big-endian
    header    JSON; with "shape" and "dtype" where an array follows
    array     its bytes in C order

Requests: {"load": settings}, then {"encode": features} with uint8 pixels (n, size_px, size_px, 3), any number
of times. Replies: {"size_px", "dims"}; an array float32 (n, dim); or {"error": text, "weights": bool}. The
worker ends when its input does, so that none outlives labelmill.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from typing import Any, BinaryIO

import numpy as np

MAX_HEADER_BYTES = 1 << 20
VISION_HEAD_DIM = 88  # of EVA ViT-g: 1408 / 16
VISION_LAYERS = 39  # BLIP-2 leaves out the last of EVA ViT-g's 40
QFORMER_HEAD_DIM = 64  # of BERT-base: 768 / 12


def write_message(
    stream: BinaryIO, header: dict[str, Any], array: np.ndarray[Any, Any] | None = None
) -> None:
    """Send a header, and an array after it."""
    if array is not None:
        array = np.ascontiguousarray(array)
        header = {**header, "shape": array.shape, "dtype": array.dtype.str}
    text = json.dumps(header).encode()
    stream.write(len(text).to_bytes(4, "big") + text)
    if array is not None:
        stream.write(array.data.cast("B") if array.size else b"")
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], np.ndarray[Any, Any] | None]:
    """Receive a header, and the array after it.

    Raises:
        EOFError: The other side is gone.
        ValueError: What came is no message.
    """
    length = int.from_bytes(_read(stream, 4), "big")
    if length > MAX_HEADER_BYTES:
        raise ValueError("no message: something printed into the pipe")
    header = json.loads(_read(stream, length))
    if "shape" not in header:
        return header, None
    shape, dtype = tuple(header["shape"]), np.dtype(header["dtype"])
    count = int(np.prod(shape, dtype=np.int64))
    data = _read(stream, count * dtype.itemsize)
    return header, np.frombuffer(data, dtype).reshape(shape)


def _read(stream: BinaryIO, count: int) -> bytearray:
    data = bytearray(count)
    view, have = memoryview(data), 0
    while have < count:
        got = stream.readinto(view[have:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError("the other side of the pipe is gone")
        have += got
    return data


class UnfitWeightsError(Exception):
    """Weights that cannot be read or do not make a model."""


def read_tensors(path: str) -> dict[str, Any]:
    """Read a state dict without running what a pickle says."""
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        tensors: dict[str, Any] = load_file(path)
        return tensors
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnfitWeightsError("pickle") from error
    return dict(found.get("model", found))


def build(settings: dict[str, Any]) -> tuple[Any, int]:
    """Make LAVIS's BLIP-2 from its checkpoint alone: sizes are read off the tensors, nothing is downloaded.

    The parts are LAVIS's own classes, and so is `extract_features`; only the constructor is not used, since
    it fetches a tokenizer and two models from the internet in order to overwrite them.

    Returns:
        The model, and the side of the square that it sees, in pixels.
    """
    from functools import partial

    import torch

    tensors = read_tensors(settings["checkpoint"])
    if settings["vit"]:
        tensors |= {f"visual_encoder.{name}": value for name, value in read_tensors(settings["vit"]).items()}
    device = settings["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    try:
        patch = tensors["visual_encoder.patch_embed.proj.weight"]
        width, patch_px = patch.shape[0], patch.shape[-1]
        places = tensors["visual_encoder.pos_embed"].shape[1] - 1
        mlp_width = tensors["visual_encoder.blocks.0.mlp.fc1.weight"].shape[0]
        queries, hidden = tensors["query_tokens"].shape[1:]
        words = tensors["Qformer.bert.embeddings.word_embeddings.weight"].shape[0]
        positions = tensors["Qformer.bert.embeddings.position_embeddings.weight"].shape[0]
        inner = tensors["Qformer.bert.encoder.layer.0.intermediate_query.dense.weight"].shape[0]
        projected = tensors["vision_proj.weight"].shape[0]
    except KeyError as error:
        raise UnfitWeightsError(f"no tensor {error}") from error
    # What is wrong with the files is known by now: importing lavis takes ten seconds.
    from lavis.models.blip2_models.blip2 import LayerNorm
    from lavis.models.blip2_models.blip2_qformer import Blip2Qformer
    from lavis.models.blip2_models.Qformer import BertConfig, BertLMHeadModel
    from lavis.models.eva_vit import VisionTransformer, convert_weights_to_fp16
    from torch import nn

    size_px = round(places**0.5) * patch_px
    model = Blip2Qformer.__new__(Blip2Qformer)
    nn.Module.__init__(model)
    model.visual_encoder = VisionTransformer(
        img_size=size_px,
        patch_size=patch_px,
        use_mean_pooling=False,
        embed_dim=width,
        depth=min(_layers(tensors, "visual_encoder.blocks."), VISION_LAYERS),
        num_heads=width // VISION_HEAD_DIM,
        mlp_ratio=(mlp_width + 0.5) / width,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    model.ln_vision = LayerNorm(width)
    bert = BertConfig(
        vocab_size=words,
        max_position_embeddings=positions,
        hidden_size=hidden,
        num_hidden_layers=_layers(tensors, "Qformer.bert.encoder.layer."),
        num_attention_heads=hidden // QFORMER_HEAD_DIM,
        intermediate_size=inner,
    )
    bert.encoder_width = width
    bert.add_cross_attention = True
    bert.cross_attention_freq = 2
    bert.query_length = queries
    model.Qformer = BertLMHeadModel(config=bert)
    model.query_tokens = nn.Parameter(torch.zeros(1, queries, hidden))
    model.vision_proj = nn.Linear(hidden, projected)
    wanted = {
        name: value for name, value in model.state_dict().items() if not name.startswith("Qformer.cls.")
    }
    lacking = [
        name for name, value in wanted.items() if name not in tensors or tensors[name].shape != value.shape
    ]
    lacking = [name for name in lacking if not name.endswith("position_ids")]
    if lacking:
        raise UnfitWeightsError(f"{len(lacking)} tensors missing or misshapen, such as {lacking[0]}")
    model.load_state_dict({name: tensors[name] for name in wanted if name in tensors}, strict=False)
    if device.type != "cpu":
        convert_weights_to_fp16(model.visual_encoder)  # as LAVIS itself does
    return model.eval().requires_grad_(False).to(device), size_px


def _layers(tensors: dict[str, Any], prefix: str) -> int:
    return 1 + max(int(name[len(prefix) :].split(".")[0]) for name in tensors if name.startswith(prefix))


def encode(
    model: Any, pixels: np.ndarray[Any, Any], features: str, settings: dict[str, Any]
) -> np.ndarray[Any, Any]:
    """Embed pixels, as `labelmill.annotators.encoders.blip2` defines its features."""
    import torch

    mean, std = (torch.tensor(settings[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    images = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float().div(255).sub(mean).div(std)
    images = images.to(model.device)
    with torch.inference_mode():
        if features == "cls":
            with model.maybe_autocast():
                found = model.ln_vision(model.visual_encoder(images))[:, 0]
        else:
            told = model.extract_features({"image": images}, mode="image")
            found = told.image_embeds if features == "pooled" else told.image_embeds_proj
            found = found.mean(dim=1)
    result: np.ndarray[Any, Any] = found.float().cpu().numpy()
    return result


def main() -> None:
    """Answer messages until there are no more."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what lavis prints must not reach the pipe
    model: Any = None
    settings: dict[str, Any] = {}
    while True:
        try:
            header, pixels = read_message(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if "load" in header:
                settings = header["load"]
                model, size_px = build(settings)
                dims = {
                    "pooled": model.query_tokens.shape[-1],
                    "projected": model.vision_proj.out_features,
                    "cls": model.visual_encoder.num_features,
                }
                write_message(replies, {"size_px": size_px, "dims": dims})
            else:
                assert pixels is not None  # noqa: S101 - the other side is ours
                write_message(replies, {}, encode(model, pixels, header["encode"], settings))
        except Exception as error:  # the other side says it to the user
            text = str(error) or type(error).__name__
            write_message(replies, {"error": text, "weights": isinstance(error, UnfitWeightsError)})


if __name__ == "__main__":
    main()
