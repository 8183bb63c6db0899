"""The network of the original package (`groundingdino-py`), read safely and made lean.

The only module that imports `groundingdino`.
"""

from __future__ import annotations

import ast
import threading
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import torch

from labelmill.annotators.encoders.pretrained import FROM_FOLDER, readable
from labelmill.annotators.grounding.bert_shim import BertShim, needs_shim
from labelmill.annotators.grounding.deformable import sample_sum
from labelmill.annotators.grounding.frozen import ImageOnce, TextOnce
from labelmill.annotators.grounding.precision import lower_precision
from labelmill.annotators.prompts import TokenGroup
from labelmill.annotators.state_dicts import load_strictly, read_state_dict
from labelmill.errors import WeightsError

warnings.filterwarnings("ignore", message="Importing from timm.models.layers", category=FutureWarning)
warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release", category=UserWarning)

_LEFTOVER = ("label_enc.weight", "bert.embeddings.position_ids")
"""In the authors' checkpoints, and in no model: of training, and of an older transformers."""
_TRAINING_ONLY = {"use_checkpoint": False, "use_transformer_ckpt": False}
_BUILDING = threading.Lock()


class Original:
    """The authors' network in inference dress.

    Args:
        checkpoint: Weights.
        architecture: Plain assignments.
        text: Folder with BERT's vocabulary and settings.
        device: Where it goes.
        dtype: Of its products; coordinates are float32 always.
    """

    def __init__(
        self, checkpoint: Path, architecture: Path, text: Path, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.model = build(read_architecture(architecture), text)
        fill(self.model, checkpoint)
        self.tokenizer = self.model.tokenizer
        self.max_tokens = int(self.model.max_text_len)
        self.queries = int(self.model.num_queries)
        self._device, self._dtype = device, dtype
        self._image: ImageOnce | None = None

    def learn(self, groups: Sequence[TokenGroup]) -> None:
        """Take the prompts, and make the network ready for them."""
        model = self.model
        self._text, model.bert = TextOnce(model.bert, len(groups)), None
        if self._dtype != torch.float32:
            heads = [f"bbox_embed.{layer}" for layer in range(len(model.bbox_embed))]
            exact = (*heads, "transformer.enc_out_bbox_embed", "transformer.decoder.ref_point_head")
            lower_precision(model, self._dtype, exact)
        model.bert = self._text
        model.tokenizer = _Spoken(groups, self._text)
        if len(groups) > 1:
            model.backbone = self._image = ImageOnce(model.backbone, lambda images: images.tensors)
        self._last = len(groups) - 1
        _make_lean(model)
        model.to(self._device)

    def forward(self, pixels: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Look for one group of phrases; see `Network`."""
        from groundingdino.util.misc import NestedTensor

        self._text.current = group
        unpadded = torch.zeros(pixels.shape[0], *pixels.shape[2:], dtype=torch.bool, device=pixels.device)
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            found = self.model(NestedTensor(pixels, unpadded), captions=[""] * len(pixels))
        if self._image is not None and group == self._last:
            self._image.forget()
        return found["pred_logits"], found["pred_boxes"]


def packaged_architecture() -> Path:
    """The Swin-T configuration that comes with the package."""
    import groundingdino

    return Path(groundingdino.__file__).parent / "config" / "GroundingDINO_SwinT_OGC.py"


def read_architecture(path: Path) -> dict[str, Any]:
    """Read the values of a configuration without running it, as the package itself would.

    Raises:
        WeightsError: The file is absent, or holds more than `name = value` lines.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        values: dict[str, Any] = {}
        for statement in tree.body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue  # a docstring
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
                raise ValueError(f"line {statement.lineno}: {ast.unparse(statement)[:60]}")
            values[ast.unparse(statement.targets[0])] = ast.literal_eval(statement.value)
    except (OSError, SyntaxError, ValueError) as error:
        raise WeightsError(
            f"architecture {path} cannot be read",
            got=str(error),
            expected="lines of `name = value`; labelmill runs no code from a model's folder",
            do="use the configuration that came with the checkpoint",
        ) from error
    return values


def build(architecture: dict[str, Any], text: Path) -> Any:
    """Make the authors' model with random weights.

    Args:
        architecture: As read from their configuration.
        text: Folder with BERT's vocabulary and settings.

    Raises:
        WeightsError: The architecture lacks a value or has one that the package does not know, or BERT's
            files are damaged.
    """
    from transformers import AutoTokenizer, BertConfig, BertModel

    with readable(text):
        tokenizer = AutoTokenizer.from_pretrained(text, **FROM_FOLDER)
        encoder = BertModel(BertConfig.from_pretrained(text, local_files_only=True))
    with _BUILDING, _instead_of_the_hub(tokenizer, encoder):
        from groundingdino.models import build_model

        try:
            model = build_model(Namespace(**{**architecture, **_TRAINING_ONLY, "device": "cpu"}))
        except (AttributeError, NotImplementedError, AssertionError, KeyError, TypeError) as error:
            raise WeightsError(
                "the architecture does not make a Grounding DINO", got=str(error) or type(error).__name__
            ) from error
    return model.eval().requires_grad_(False)


def fill(model: Any, checkpoint: Path) -> None:
    """Load a checkpoint, every weight accounted for.

    Raises:
        WeightsError: It does not fit, or is a pickle of live objects.
    """
    tensors = {name.removeprefix("module."): value for name, value in read_state_dict(checkpoint).items()}
    for name in _LEFTOVER:
        tensors.pop(name, None)
    load_strictly(model, tensors, checkpoint)


@contextmanager
def _instead_of_the_hub(tokenizer: Any, encoder: Any) -> Iterator[None]:
    """The package asks the hub for BERT by name, and wraps it in a class that transformers 5 broke."""
    from groundingdino.models.GroundingDINO import groundingdino as package
    from groundingdino.util import get_tokenlizer as source

    kept = source.get_tokenlizer, source.get_pretrained_language_model, package.BertModelWarper
    source.get_tokenlizer = lambda name: tokenizer
    source.get_pretrained_language_model = lambda name: encoder
    if needs_shim():
        package.BertModelWarper = BertShim
    try:
        yield
    finally:
        source.get_tokenlizer, source.get_pretrained_language_model, package.BertModelWarper = kept


class _Spoken:
    """Stands for the tokenizer: gives the tokens of the current prompt group for any caption."""

    def __init__(self, groups: Sequence[TokenGroup], text: TextOnce) -> None:
        self._groups, self._text = groups, text

    def __call__(self, captions: list[str], **_: Any) -> Any:
        from transformers import BatchEncoding

        ids = torch.tensor([self._groups[self._text.current].token_ids]).expand(len(captions), -1)
        masks = {"attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
        return BatchEncoding({"input_ids": ids, **masks})


def _make_lean(model: Any) -> None:
    from groundingdino.models.GroundingDINO import ms_deform_attn
    from groundingdino.models.GroundingDINO.transformer import DeformableTransformerDecoderLayer

    def sampled(value: Any, shapes: Any, locations: Any, weights: Any) -> torch.Tensor:
        return sample_sum(value, [(h, w) for h, w in shapes.tolist()], locations, weights)

    # The same code, which finds our function under the name of its own: the package stays as it is.
    attention = ms_deform_attn.MultiScaleDeformableAttention
    names = {**vars(ms_deform_attn), "multi_scale_deformable_attn_pytorch": sampled}
    plain = attention.forward
    forward = FunctionType(plain.__code__, names, argdefs=plain.__defaults__)
    for module in model.modules():
        if isinstance(module, attention):
            module.forward = MethodType(forward, module)
        elif isinstance(module, DeformableTransformerDecoderLayer):
            module.forward_ffn = MethodType(_feed_forward, module)


def _feed_forward(layer: Any, hidden: torch.Tensor) -> Any:
    """As in the package, which turns autocast off here by a call that torch deprecated."""
    between = layer.linear2(layer.dropout3(layer.activation(layer.linear1(hidden))))
    return layer.norm3(hidden + layer.dropout4(between))
