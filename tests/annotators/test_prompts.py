from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.annotators.grounding.tiny import WORDS as KNOWN
from tests.annotators.grounding.tiny import write_text_encoder

from labelmill.annotators.prompts import Prompt, Prompts, TokenGroup, clean, group_tokens
from labelmill.config import Config
from labelmill.errors import LineFileError

CLS, SEP, DOT = 101, 102, 1012


class Holder(Config):
    prompts: Prompts


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(tmp_path_factory.mktemp("text"))


def load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(write_text_encoder(folder), local_files_only=True)


def prompts(*phrases: str) -> list[Prompt]:
    return [Prompt.model_validate({"phrase": phrase, "class": phrase}) for phrase in phrases]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("hand", [("hand", "hand")]),
        ("hand . work glove.", [("hand", "hand"), ("work glove", "work glove")]),
        (["hand", "Red Bottle"], [("hand", "hand"), ("Red Bottle", "Red Bottle")]),
        (
            ["hand", {"phrase": "glove", "class": "hand"}, {"phrase": "bag"}],
            [("hand", "hand"), ("glove", "hand"), ("bag", "bag")],
        ),
    ],
)
def test_a_line_file_may_write_prompts_in_four_ways(written: Any, expected: list[tuple[str, str]]) -> None:
    found = Holder.model_validate({"prompts": written}).prompts
    assert [(prompt.phrase, prompt.name) for prompt in found] == expected


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([], "at least 1 item"),
        (["hand", " Hand "], "the phrases 'hand' and 'Hand' are the same to the model"),
        (["..."], "the phrase '...' holds no word"),
        ([{"phrase": "hand", "klass": "x"}], "unknown key 'klass', did you mean 'class'?"),
        ([{"class": "x"}], "Field required"),
        (7, "tuple"),
    ],
)
def test_wrong_prompts_are_refused(written: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("?", r"\?").replace("...", r"\.\.\.")):
        Holder.model_validate({"prompts": written})


def test_phrases_are_cleaned_as_the_model_reads_them() -> None:
    assert clean("  Work\tGLOVE? no. 5 ") == "work glove no 5"


def test_spans_point_at_each_phrase(tokenizer: Any) -> None:
    (group,) = group_tokens(prompts("car", "carpet", "work glove"), tokenizer)
    word = tokenizer.convert_tokens_to_ids
    assert group == TokenGroup(
        (CLS, word("car"), DOT, word("carpet"), DOT, word("work"), word("glove"), DOT, SEP),
        ((1, 2), (3, 4), (5, 7)),
        (0, 1, 2),
    )


def test_car_does_not_hit_carpet(tokenizer: Any) -> None:
    (group,) = group_tokens(prompts("car", "carpet"), tokenizer)
    logits = np.full((1, 256), -9.0, dtype=np.float32)
    logits[0, group.token_ids.index(tokenizer.convert_tokens_to_ids("carpet"))] = 2.0
    np.testing.assert_allclose(group.scores(logits), [[1 / (1 + np.exp(9)), 1 / (1 + np.exp(-2))]], rtol=1e-6)


def test_padding_scores_nothing() -> None:
    group = TokenGroup((CLS, 5, DOT, SEP), ((1, 2),), (0,))
    assert group.scores(np.full((2, 4), -np.inf, dtype=np.float32)).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("phrase", "said"),
    [
        ("\x00\x01", "cannot be read"),
        ("🧤 🧤", "'🧤 🧤' cannot be read by the model, expected words that it knows"),
        ("car " * 254, "got 254 tokens, expected at most 253"),
    ],
)
def test_unreadable_phrases_are_refused(tokenizer: Any, phrase: str, said: str) -> None:
    with pytest.raises(LineFileError, match=said):
        group_tokens(prompts(phrase), tokenizer)


def test_a_phrase_cannot_smuggle_in_the_tokenizers_own_marks(tokenizer: Any) -> None:
    (group,) = group_tokens(prompts("hand [SEP] car", "[CLS]"), tokenizer)
    assert [token for token in group.token_ids if token in (CLS, SEP)] == [CLS, SEP]


def test_long_lists_are_split_below_the_cap(tokenizer: Any) -> None:
    many = [f"{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]  # two tokens and a separator each
    groups = group_tokens(prompts(*many), tokenizer, max_tokens=256)
    assert [len(group.token_ids) for group in groups] == [254, 50]  # 84 phrases · 3 + 2, 16 · 3 + 2
    assert [index for group in groups for index in group.prompts] == list(range(100))


def test_a_group_may_fill_the_cap_exactly(tokenizer: Any) -> None:
    groups = group_tokens(prompts("car", "hand"), tokenizer, max_tokens=6)
    assert [len(group.token_ids) for group in groups] == [6]
    assert [
        len(group.token_ids) for group in group_tokens(prompts("car", "hand"), tokenizer, max_tokens=5)
    ] == [
        4,
        4,
    ]


def test_phrases_per_pass_limits_a_group(tokenizer: Any) -> None:
    groups = group_tokens(prompts("car", "hand", "bag"), tokenizer, phrases_per_pass=2)
    assert [group.prompts for group in groups] == [(0, 1), (2,)]


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12) | st.sampled_from(KNOWN)
PHRASES = st.lists(
    st.lists(WORDS, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=12, unique_by=clean
).map(lambda phrases: [phrase for phrase in phrases if clean(phrase)])


def those_readable(tokenizer: Any, phrases: list[str], max_tokens: int = 256) -> list[str]:
    readable = []
    for phrase in phrases:
        with suppress(LineFileError):
            group_tokens(prompts(phrase), tokenizer, max_tokens)
            readable.append(phrase)
    return readable


@settings(deadline=None, max_examples=200)
@given(phrases=PHRASES, max_tokens=st.integers(40, 256))
def test_any_phrases_keep_their_own_tokens(tokenizer: Any, phrases: list[str], max_tokens: int) -> None:
    readable = those_readable(tokenizer, phrases, max_tokens)
    groups = group_tokens(prompts(*readable), tokenizer, max_tokens)
    assert [index for group in groups for index in group.prompts] == list(range(len(readable)))
    for group in groups:
        assert len(group.token_ids) <= max_tokens
        texts = [clean(readable[index]) for index in group.prompts]
        # Joined as a text and tokenised whole, as the model's own processor does it, the ids are the same …
        assert tokenizer(" . ".join(texts) + " .")["input_ids"] == list(group.token_ids)
        for (first, last), text in zip(group.spans, texts, strict=True):
            # … and each span holds its phrase, no separator, and ends before one.
            own = group.token_ids[first:last]
            assert list(own) == tokenizer.encode(text, add_special_tokens=False)
            assert DOT not in own
            assert group.token_ids[last] == DOT
            assert group.token_ids[first - 1] in (CLS, DOT)


@settings(deadline=None, max_examples=100)
@given(phrases=PHRASES, chosen=st.integers(0, 11), offset=st.integers(0, 100))
def test_a_phrase_answers_for_its_own_tokens_only(
    tokenizer: Any, phrases: list[str], chosen: int, offset: int
) -> None:
    readable = those_readable(tokenizer, phrases)
    if not readable:
        return
    group = group_tokens(prompts(*readable), tokenizer)[0]
    number = chosen % len(group.prompts)
    first, last = group.spans[number]
    logits = np.full(256, -20.0, dtype=np.float32)
    logits[first + offset % (last - first)] = 5.0
    scores = group.scores(logits)
    assert (scores > 0.5).tolist() == [other == number for other in range(len(group.prompts))]
