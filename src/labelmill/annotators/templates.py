"""Template crops: found on disk, embedded once, and the λ that they suggest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmill.annotators.config import MatchingConfig, TemplatesConfig
from labelmill.annotators.embedding_space import EmbeddingSpace, fit_space, held_out_similarity
from labelmill.annotators.similarity import (
    Rows,
    Similarity,
    background_similarity,
    class_similarity,
    nearest_view,
)
from labelmill.annotators.types import Embeddings
from labelmill.errors import TemplateError
from labelmill.images import Image, list_images, read_image

NG_OWNER = -1
BACKGROUND_OWNER = -2

LAMBDA_WITHOUT_EVIDENCE = 0.75
"""λ when no class has two templates and there is no NG example: nothing to measure from."""


@dataclass(frozen=True, slots=True)
class TemplateFiles:
    """The images of a template folder.

    Attributes:
        classes: Class names, sorted.
        paths: Image files, those of the classes in order, then those of NG, then the background's.
        owners: Class index of each file; -1 for NG, -2 for the background.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    owners: tuple[int, ...]


def find_templates(config: TemplatesConfig | None) -> TemplateFiles:
    """List a line's template images; none for a line that has no templates yet.

    Raises:
        TemplateError: A folder is absent, has no class, or a class has no image.
    """
    if config is None:
        return TemplateFiles((), (), ())
    if not config.folder.is_dir():
        raise TemplateError(
            f"no template folder {config.folder}",
            expected="a folder with one sub-folder of images per class",
            do="mend `templates: folder`",
        )
    folders = sorted(p for p in config.folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise TemplateError(
            f"no class in {config.folder}", expected="one sub-folder of images per class", do="make one"
        )
    paths: list[Path] = []
    owners: list[int] = []
    for number, folder in enumerate(folders):
        images = list_images(folder)
        if not images:
            raise TemplateError(
                f"class {folder.name!r} has no images",
                got=f"an empty folder {folder}",
                expected="at least one template crop",
                do="put some crops there, or remove the folder",
            )
        paths += images
        owners += [number] * len(images)
    for key, examples, owner, what in (
        ("ng", config.ng, NG_OWNER, "NG examples"),
        ("background", config.background, BACKGROUND_OWNER, "unlabelled crops of the line"),
    ):
        images = _examples(key, examples, what)
        paths += images
        owners += [owner] * len(images)
    return TemplateFiles(tuple(folder.name for folder in folders), tuple(paths), tuple(owners))


def _examples(key: str, folder: Path | None, what: str) -> list[Path]:
    """Images of an optional folder of `templates`."""
    if folder is None:
        return []
    if not folder.is_dir():
        raise TemplateError(
            f"no folder {folder}", expected=f"a folder of {what}", do=f"mend `templates: {key}`"
        )
    images = list_images(folder)
    if not images:
        raise TemplateError(
            f"no image in {folder}", expected=what, do=f"add some, or drop `templates: {key}`"
        )
    return images


def check_space(files: TemplateFiles, config: MatchingConfig) -> None:
    """Make sure that there are classes enough for the space that a line asks for.

    Raises:
        TemplateError: Classes are to be centred, and there is only one: nothing would be left of it.
    """
    if config.space in ("centred", "discriminant") and len(files.classes) == 1:
        raise TemplateError(
            f"matching.space {config.space!r} takes away what all classes have in common",
            got="one class",
            expected="two classes at least",
            do="write `space: whitened`, or leave it out",
        )


def read_templates(files: TemplateFiles) -> list[Image]:
    """Read template images.

    Raises:
        TemplateError: One cannot be read.
    """
    images = []
    for path in files.paths:
        image = read_image(path)
        if isinstance(image, str):
            raise TemplateError(f"template {path} cannot be read", got=image, do="replace or remove it")
        images.append(image)
    return images


@dataclass(frozen=True, slots=True, eq=False)
class TemplateBank:
    """Embedded templates, in the space where crops are compared with them.

    Attributes:
        classes: Class names, in the order of the similarity columns.
        embeddings: Unit rows in `space`, shape (templates, dim), float32.
        owners: Class index of each row; -1 for NG. Shape (templates,), int64.
        space: Where crops are brought first.
        neighbours: How many templates of a class its similarity is averaged over.
        background: Unit rows of unlabelled crops in `space`; None for none.
        turned: The templates turned, each of the shape of `embeddings`: a crop is as similar to a template as
            to the most similar of its views.
        held_out: Similarity of the templates to one another as crops would have it, shape
            (templates, templates), -inf on the diagonal; None where `embeddings` say it.
    """

    classes: tuple[str, ...]
    embeddings: Embeddings
    owners: npt.NDArray[np.int64]
    space: EmbeddingSpace = field(default_factory=EmbeddingSpace)
    neighbours: int = 1
    background: Embeddings | None = None
    turned: tuple[Embeddings, ...] = ()
    held_out: Similarity | None = None

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.owners):
            raise ValueError(
                f"embeddings must be ({len(self.owners)}, dim), got shape {self.embeddings.shape}"
            )

    @property
    def has_ng(self) -> bool:
        """Whether there are NG templates."""
        return bool((self.owners < 0).any())

    def similarity(self, rows: Rows) -> Similarity:
        """Similarity of unit rows in `space` to each template, less that to the background.

        Returns:
            Shape (n, templates).
        """
        found = nearest_view(rows, (self.embeddings, *self.turned))
        return found - background_similarity(rows, self.background)[:, None]


def make_bank(
    classes: tuple[str, ...],
    embeddings: Rows,
    owners: npt.NDArray[np.int64],
    config: MatchingConfig,
    turned: Sequence[Rows] = (),
) -> TemplateBank:
    """Learn the space and bring the templates there.

    Args:
        classes: Class names.
        embeddings: As the encoder gave them, shape (n, dim).
        owners: Class index of each; -1 for NG, -2 for the background.
        config: Which space, and how many neighbours.
        turned: The templates turned, classes and NG without the background, each of shape (templates, dim).
    """
    templates = owners != BACKGROUND_OWNER
    raw, own = np.asarray(embeddings)[templates], owners[templates]
    space = fit_space(np.concatenate([raw, *turned]), np.tile(own, 1 + len(turned)), config.space)
    background = None if templates.all() else space.transform(np.asarray(embeddings)[~templates])
    return TemplateBank(
        classes,
        space.transform(raw),
        own,
        space,
        config.neighbours,
        background,
        tuple(space.transform(view) for view in turned),
        held_out_similarity(raw, own, config.space, turned),
    )


def suggest_lambda(bank: TemplateBank) -> float:
    """Choose λ from the templates themselves.

    λ is the threshold with the highest balanced accuracy between right matches and wrong ones, as `evidence`
    finds them among the templates, in the middle of the widest gap that reaches it. It is a start, and
    guarantees nothing.

    Returns:
        λ, from -1 to 1.
    """
    right, wrong = evidence(bank)
    if len(right) == 0 and len(wrong) == 0:
        return LAMBDA_WITHOUT_EVIDENCE
    if len(right) == 0:
        return float(np.clip((1.0 + wrong.max()) / 2, -1, 1))
    if len(wrong) == 0:
        return float(np.clip(right.min() - (1.0 - right.min()) / 2, -1, 1))
    values = np.unique(np.concatenate([right, wrong]))
    edges = np.concatenate([[values[0] - 1e-3], values, [values[-1] + 1e-3]])
    cuts = (edges[1:] + edges[:-1]) / 2
    accuracy = (
        (right[None, :] >= cuts[:, None]).mean(axis=1) + (wrong[None, :] < cuts[:, None]).mean(axis=1)
    ) / 2
    gaps = np.where(accuracy >= accuracy.max() - 1e-9, np.diff(edges), -1.0)
    return float(np.clip(cuts[int(gaps.argmax())], -1, 1))


def suggest_review_floor(bank: TemplateBank) -> float | None:
    """Choose what goes to people where no class has two templates, so that nothing shows a right match.

    λ then accepts next to nothing, and to call the rest NG would lose most right matches without a word. Only
    what is less similar to every class than all wrong matches among the templates are is NG.

    Returns:
        The least similarity that goes to people; None where the templates show right matches, and `matching:
        review_band` serves.
    """
    right, wrong = evidence(bank)
    return None if len(right) else float(wrong.min()) if len(wrong) else -1.0


def evidence(bank: TemplateBank) -> tuple[Similarity, Similarity]:
    """What right and wrong matches look like, by the templates.

    A template's similarity to the nearest others of its class is a right match; an NG template's to the
    nearest class is a wrong one. Without NG templates, each class plays NG to the others.

    Returns:
        Similarities of right and of wrong matches; empty where there is nothing to measure.
    """
    similarity = bank.held_out
    if similarity is None:
        similarity = nearest_view(bank.embeddings, (bank.embeddings, *bank.turned))
        np.fill_diagonal(similarity, -np.inf)
    similarity = similarity - background_similarity(bank.embeddings, bank.background)[:, None]
    owners = bank.owners
    per_class = class_similarity(similarity, owners, len(bank.classes), bank.neighbours)
    rows = np.flatnonzero(owners >= 0)
    right = per_class[rows, owners[rows]]
    per_class[rows, owners[rows]] = -np.inf
    rows = np.flatnonzero(owners < 0) if bank.has_ng else rows
    wrong = per_class[rows].max(axis=1, initial=-np.inf)
    return right[np.isfinite(right)], wrong[np.isfinite(wrong)]
