"""A line's models and its embedded templates."""

from __future__ import annotations

from threading import Lock

import numpy as np
import pyarrow as pa

from labelmill.annotators.templates import (
    BACKGROUND_OWNER,
    TemplateBank,
    make_bank,
    read_templates,
    suggest_lambda,
    suggest_review_floor,
)
from labelmill.annotators.types import Encoder, Proposer
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.plan import Plan
from labelmill.datasets.shards import ShardStore, embeddings_of, fixed_size_lists, storable
from labelmill.errors import DamagedShardError
from labelmill.makers import ENCODERS, PROPOSERS

_TURNS = (1, 2, 3)
"""Quarter turns at which templates are embedded besides."""


class Makers:
    """A line's models, loaded when first needed and kept for all shards and threads of a process.

    Args:
        config: The line.
    """

    def __init__(self, config: AnnotationConfig) -> None:
        self.config = config
        self._loading = Lock()
        self._proposer: Proposer | None = None
        self._encoder: Encoder | None = None
        self.banks: dict[str, TemplateBank] = {}

    @property
    def proposer(self) -> Proposer:
        """The line's proposer."""
        with self._loading:
            if self._proposer is None:
                self._proposer = PROPOSERS.make(self.config.proposer)
            return self._proposer

    @property
    def encoder(self) -> Encoder:
        """The line's encoder."""
        with self._loading:
            if self._encoder is None:
                self._encoder = ENCODERS.make(self.config.encoder)
            return self._encoder


def load_bank(plan: Plan, makers: Makers, store: ShardStore) -> TemplateBank:
    """The embedded templates: from the shard store, or computed and kept there.

    Raises:
        TemplateError: A template cannot be read.
    """
    key = plan.bank_key
    if key in makers.banks:
        return makers.banks[key]
    if not store.has("templates", key):
        images = read_templates(plan.templates)
        owners = np.array(plan.templates.owners, np.int64)
        turns = np.zeros(len(owners), np.int64)
        if makers.config.templates and makers.config.templates.turned:
            count = int((owners != BACKGROUND_OWNER).sum())  # the background comes last
            images += [
                np.ascontiguousarray(np.rot90(image, turn)) for turn in _TURNS for image in images[:count]
            ]
            owners = np.concatenate([owners, np.tile(owners[:count], len(_TURNS))])
            turns = np.concatenate([turns, np.repeat(_TURNS, count)])
        embeddings = storable(makers.encoder.encode(images))
        table = pa.table({"owner": owners, "turn": turns, "embedding": fixed_size_lists(embeddings)})
        store.write("templates", key, table)
    try:
        table = store.read("templates", key)
    except DamagedShardError:  # removed
        return load_bank(plan, makers, store)
    owners, turns = table["owner"].to_numpy(), table["turn"].to_numpy()
    rows = embeddings_of(table)
    turned = [rows[turns == turn] for turn in np.unique(turns[turns > 0])]
    bank = make_bank(
        plan.templates.classes, rows[turns == 0], owners[turns == 0], makers.config.matching, turned
    )
    makers.banks[key] = bank
    return bank


def resolve_lambda(config: AnnotationConfig, bank: TemplateBank) -> float:
    """λ as a number: the line's, or the one that the templates suggest."""
    value = config.matching.lambda_
    return suggest_lambda(bank) if value == "auto" else float(value)


def resolve_review_floor(config: AnnotationConfig, bank: TemplateBank) -> float | None:
    """From which similarity crops below λ go to people; None where λ itself says it."""
    return suggest_review_floor(bank) if config.matching.lambda_ == "auto" else None
