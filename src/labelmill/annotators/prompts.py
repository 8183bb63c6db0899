"""Text prompts: from phrases to the text encoder's tokens, and from tokens' scores back to classes.

A phrase is found by the place of its tokens in the prompt and by nothing else: never by substring, so that
"car" does not hit "carpet", and never by decoding tokens to text, which garbles neighbouring phrases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BeforeValidator, Field

from labelmill.config import Config
from labelmill.errors import LineFileError

_SEPARATORS = str.maketrans({".": " ", "?": " "})
"""Grounding DINO parts phrases at these two marks, so within a phrase they stand for a space."""


class Prompt(Config):
    """A phrase to look for, and the class that its boxes answer to.

    Attributes:
        phrase: What the model is asked to find, such as "a gloved hand".
        name: The class (`class` in a line file); the phrase itself by default. Several phrases may share one.
    """

    phrase: str
    name: str = Field(alias="class", min_length=1)


class Tokenizer(Protocol):
    """What is needed of a Hugging Face tokenizer."""

    cls_token_id: int
    sep_token_id: int
    all_special_ids: list[int]

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""
        ...

    def convert_tokens_to_ids(self, tokens: str) -> int:
        """Id of one token."""
        ...


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """Phrases that share one forward pass.

    Attributes:
        token_ids: `[CLS] a phrase . another . [SEP]`.
        spans: First and last-plus-one token of each phrase.
        prompts: Index of each phrase in the list of prompts.
    """

    token_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    prompts: tuple[int, ...]

    def scores(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Score each phrase by its best token, as the original scores a box by the best of all tokens.

        Args:
            logits: Shape (..., tokens); at least as many tokens as the group has.

        Returns:
            Probabilities, shape (..., phrases), sigmoid of the highest logit in each phrase's span.
        """
        best = np.stack([logits[..., first:last].max(axis=-1) for first, last in self.spans], axis=-1)
        with np.errstate(over="ignore"):  # exp of a very negative logit: the score is 0, as it should be
            probabilities: npt.NDArray[np.float32] = 1 / (1 + np.exp(-best))
        return probabilities


def clean(phrase: str) -> str:
    """A phrase as the model reads it: lower case, single spaces, no separators."""
    return " ".join(phrase.lower().translate(_SEPARATORS).split())


def _as_prompts(value: Any) -> Any:
    if isinstance(value, str):
        value = [part for part in value.split(".") if part.strip()]
    if not isinstance(value, list | tuple):
        return value
    return [_as_prompt(item) for item in value]


def _as_prompt(item: Any) -> Any:
    if isinstance(item, str):
        return {"phrase": item.strip(), "class": item.strip()}
    if isinstance(item, dict) and isinstance(item.get("phrase"), str):
        return {"class": item["phrase"], **item} if "name" not in item else item
    return item


def _distinct(prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
    seen: dict[str, str] = {}
    for prompt in prompts:
        text = clean(prompt.phrase)
        if not text:
            raise ValueError(f"the phrase {prompt.phrase!r} holds no word")
        if text in seen:
            raise ValueError(f"the phrases {seen[text]!r} and {prompt.phrase!r} are the same to the model")
        seen[text] = prompt.phrase
    return prompts


Prompts = Annotated[
    tuple[Prompt, ...], BeforeValidator(_as_prompts), AfterValidator(_distinct), Field(min_length=1)
]
"""In a line file: `hand`, `hand . bottle`, `[hand, bottle]` or `[{phrase: glove, class: hand}]`."""


def group_tokens(
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    max_tokens: int = 256,
    phrases_per_pass: int | None = None,
) -> list[TokenGroup]:
    """Pack phrases into as few passes as the text encoder's length allows, in order.

    Phrases are tokenised one by one and joined with the separator's token, which gives the same ids as
    tokenising the joined text (BERT's word pieces never cross a space or a mark) and every span for sure.

    Args:
        prompts: What to look for.
        tokenizer: Of the model's text side.
        max_tokens: The text encoder's length, both special tokens included.
        phrases_per_pass: At most so many phrases in one pass; None: as many as fit.

    Raises:
        LineFileError: A phrase is too long, has no known token, or holds the tokenizer's own marks.
    """
    dot = tokenizer.convert_tokens_to_ids(".")
    pieces = [_pieces(prompt.phrase, tokenizer, max_tokens) for prompt in prompts]
    return [
        _group(members, pieces, tokenizer, dot) for members in _packed(pieces, max_tokens, phrases_per_pass)
    ]


def _pieces(phrase: str, tokenizer: Tokenizer, max_tokens: int) -> list[int]:
    ids = tokenizer.encode(clean(phrase), add_special_tokens=False)
    unknown = getattr(tokenizer, "unk_token_id", None)
    marks = set(tokenizer.all_special_ids) - {unknown}
    if set(ids) <= {unknown} or marks & set(ids):
        raise LineFileError(
            f"the phrase {phrase!r} cannot be read by the model",
            expected="words that it knows",
            do="write another phrase",
        )
    if len(ids) + 3 > max_tokens:
        raise LineFileError(
            f"the phrase {phrase[:40]!r}… is too long",
            got=f"{len(ids)} tokens",
            expected=f"at most {max_tokens - 3}",
            do="shorten it",
        )
    return ids


def _packed(pieces: list[list[int]], max_tokens: int, most: int | None) -> Iterator[list[int]]:
    members: list[int] = []
    used = 2  # [CLS] and [SEP]
    for index, ids in enumerate(pieces):
        if members and (used + len(ids) + 1 > max_tokens or len(members) == most):
            yield members
            members, used = [], 2
        members.append(index)
        used += len(ids) + 1
    if members:
        yield members


def _group(members: list[int], pieces: list[list[int]], tokenizer: Tokenizer, dot: int) -> TokenGroup:
    ids = [tokenizer.cls_token_id]
    spans = []
    for index in members:
        spans.append((len(ids), len(ids) + len(pieces[index])))
        ids += [*pieces[index], dot]
    return TokenGroup((*ids, tokenizer.sep_token_id), tuple(spans), tuple(members))
