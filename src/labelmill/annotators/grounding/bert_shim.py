"""What the original package asks of BERT, for transformers 5.

`groundingdino.models.GroundingDINO.bertwarper.BertModelWarper` copies three methods of `BertModel` that
transformers 5 removed (`get_extended_attention_mask`, `invert_attention_mask`, `get_head_mask`), so it cannot
even be made. This class does the one thing that Grounding DINO does with it, under the same names of weights.
`tests/annotators/test_bert_shim.py` fails on the day when the package's own class works again: then this
module goes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class BertShim(nn.Module):
    """BERT with an attention mask of its own for each token.

    Args:
        bert_model: A `transformers.BertModel`.
    """

    def __init__(self, bert_model: Any) -> None:
        super().__init__()
        self.config = bert_model.config
        self.embeddings = bert_model.embeddings
        self.encoder = bert_model.encoder
        self.pooler = bert_model.pooler

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
        position_ids: torch.Tensor,
    ) -> Any:
        """Encode a text.

        Args:
            input_ids: Shape (texts, tokens).
            attention_mask: True where a token (second axis) may look at another (third axis).
            token_type_ids: Shape (texts, tokens).
            position_ids: Place of each token within its phrase, shape (texts, tokens).

        Returns:
            With `last_hidden_state`, shape (texts, tokens, width).
        """
        embedded = self.embeddings(
            input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids
        )
        forbidden = torch.finfo(embedded.dtype).min
        additive = torch.zeros_like(attention_mask, dtype=embedded.dtype).masked_fill_(
            ~attention_mask.bool(), forbidden
        )
        return self.encoder(embedded, attention_mask=additive[:, None])


def needs_shim() -> bool:
    """Whether this transformers lacks what the package's own class copies."""
    from transformers import BertModel

    copied = ("get_extended_attention_mask", "invert_attention_mask", "get_head_mask")
    return not all(hasattr(BertModel, name) for name in copied)
