from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.annotators.grounding.tiny import write_original, write_port


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors on many threads cost more waiting than work, most of all on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_original(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="session")
def port(tmp_path_factory: pytest.TempPathFactory, original: Path) -> Path:
    return write_port(tmp_path_factory.mktemp("port"), original)
