from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.annotators.grounding.tiny import BERT
from transformers import BertConfig, BertModel

from labelmill.annotators.grounding.bert_shim import BertShim, needs_shim


@pytest.fixture(scope="module")
def bert() -> BertModel:
    torch.manual_seed(0)
    return BertModel(BertConfig(**BERT)).eval()


def test_the_shim_can_go_when_the_package_works_again(original: Path, bert: BertModel) -> None:
    del original  # which imports the package, its own warnings and all
    from groundingdino.models.GroundingDINO.bertwarper import BertModelWarper

    works = True
    try:
        BertModelWarper(bert_model=bert)
    except AttributeError:
        works = False
    assert not works, "groundingdino's BertModelWarper works on this transformers: remove bert_shim.py"
    assert needs_shim()


def test_an_older_transformers_keeps_the_packages_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("get_extended_attention_mask", "invert_attention_mask", "get_head_mask"):
        monkeypatch.setattr(BertModel, name, None, raising=False)
    assert not needs_shim()


def test_the_shim_is_bert_with_a_mask_for_each_token(bert: BertModel) -> None:
    """A full mask gives what BertModel gives; phrases that may not see one another are encoded apart."""
    shim = BertShim(bert)
    assert set(shim.state_dict()) == set(bert.state_dict())
    ids = torch.tensor([[200, 201, 202, 203]])
    zeros, places = torch.zeros_like(ids), torch.arange(4)[None]
    with torch.inference_mode():
        whole = shim(ids, torch.ones(1, 4, 4, dtype=torch.bool), zeros, places).last_hidden_state
        torch.testing.assert_close(whole, bert(ids).last_hidden_state, rtol=0, atol=1e-6)
        apart = torch.eye(2).repeat_interleave(2, 0).repeat_interleave(2, 1).bool()[None]
        pairs = shim(ids, apart, zeros, torch.tensor([[0, 1, 0, 1]])).last_hidden_state
        for part in (slice(0, 2), slice(2, 4)):
            alone = bert(ids[:, part]).last_hidden_state
            torch.testing.assert_close(pairs[:, part], alone, rtol=0, atol=1e-6)
