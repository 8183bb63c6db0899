"""The pictures that a review page shows: in the workspace's media store, and addressed for the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from labelmill.annotators.review.config import MediaConfig
from labelmill.annotators.review.contact_sheet import contact_sheet, notice
from labelmill.annotators.review.server import LabelStudioServer, served_below
from labelmill.datasets.media import MediaStore
from labelmill.errors import ReviewError, TemplateError
from labelmill.images import Image, read_image

QUALITY = 90
"""Of the JPEGs made here."""

FramePictures = Callable[[pa.Table, Callable[[int, int], None]], Sequence[str]]
"""Brings frames into the media store: rows with `source`, `source_digest` and `frame_index` to digests; calls
with the frames done and their total."""


@dataclass(frozen=True, slots=True)
class Served:
    """How the server reaches the media store.

    Attributes:
        prefix: Of the address of every picture.
        storage: The folder that the project's local storage is given; None for a bucket.
        bucket: Where the media store is mirrored; None for local storage.
    """

    prefix: str
    storage: str | None = None
    bucket: str | None = None

    def address(self, digest: str) -> str:
        """Address of a picture in the media store.

        Raises:
            ReviewError: This names no picture of the media store.
        """
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ReviewError("no picture of the workspace", got=digest, expected="a digest of 64 hex digits")
        return f"{self.prefix}{digest[:2]}/{digest}.jpg"


def serve(config: MediaConfig, media: MediaStore, server: LabelStudioServer | None) -> Served:
    """Decide how the server reaches the media store.

    Args:
        config: The line's `review.media`.
        media: The workspace's media store.
        server: The server of this machine, if that is the one; None for another.

    Raises:
        ReviewError: Another server would not see the folder.
    """
    if config.bucket:
        return Served(prefix=f"{config.bucket}/", bucket=config.bucket)
    root = Path(media.root)
    if config.document_root:
        storage, prefix = served_below(config.document_root, root)
    elif server is not None:
        storage, prefix = server.link(root)
    else:
        raise ReviewError(
            "it is not known how the review server sees the workspace's pictures",
            expected="review.media.document_root or review.media.bucket",
            do="name its LOCAL_FILES_DOCUMENT_ROOT, or a bucket that mirrors the workspace's media",
        )
    return Served(prefix=prefix, storage=storage)


def mirror(bucket: str, media: MediaStore, digests: Iterable[str]) -> int:
    """Copy the pictures that a bucket lacks, all in one call.

    Returns:
        How many were copied.

    Raises:
        ReviewError: The bucket cannot be listed or written.
    """
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(bucket)
        present = {Path(name).name for name in system.find(root)} if system.exists(root) else set()
        missing = [digest for digest in sorted(set(digests)) if f"{digest}.jpg" not in present]
        sources = [str(media.path(digest)) for digest in missing]
        if missing:
            system.put(sources, [f"{root}/{digest[:2]}/{digest}.jpg" for digest in missing])
    except (OSError, ImportError, ValueError) as error:
        raise ReviewError(
            f"cannot mirror pictures to {bucket}",
            got=" ".join(str(error).split())[:300],
            expected="a bucket that this account may list and write",
            do="mend review.media.bucket or the bucket's credentials",
        ) from error
    return len(missing)


class Pictures:
    """Makes the pictures that are not in the media store yet.

    Args:
        media: The workspace's media store.
        templates: Template image files, in the order of the template bank.
    """

    def __init__(self, media: MediaStore, templates: Sequence[Path]) -> None:
        self._media = media
        self._templates = templates
        self._digests: dict[int | str, str] = {}

    def template(self, number: int) -> str:
        """Digest of a template's picture.

        Raises:
            TemplateError: It cannot be read.
        """
        if number not in self._digests:
            image = read_image(self._templates[number])
            if isinstance(image, str):
                raise TemplateError(
                    f"template {self._templates[number]} cannot be read", got=image, do="replace it"
                )
            self._digests[number] = self._media.put(encode_jpeg(image))
        return self._digests[number]

    def notice(self, text: str) -> str:
        """Digest of a picture that says why there is none."""
        if text not in self._digests:
            self._digests[text] = self._media.put(encode_jpeg(notice(text)))
        return self._digests[text]

    def sheet(self, crops: Sequence[str]) -> str:
        """Digest of the picture of a group of crops, given by their digests."""
        if len(crops) < 2:
            return self.notice("no near-identical crop")
        images = []
        for digest in crops:
            image = read_image(self._media.path(digest))
            if isinstance(image, str):
                raise ReviewError(
                    f"the crop {digest[:12]}… cannot be read", got=image, do="run `labelmill annotate` again"
                )
            images.append(image)
        return self._media.put(encode_jpeg(contact_sheet(images)))


def encode_jpeg(image: Image) -> bytes:
    """A picture as JPEG."""
    import cv2

    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    return bytes(data)
