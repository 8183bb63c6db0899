"""Pictures stored once, by the digest of their bytes."""

from __future__ import annotations

from pathlib import Path

from labelmill.files import digest_bytes, disk_errors, write_bytes


class MediaStore:
    """A folder of files named by their own SHA-256: `media/ab/abcdef….jpg`.

    Writing the same bytes twice stores one file. A file that exists is whole, because it was renamed into
    place.

    Args:
        root: The media folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, data: bytes, suffix: str = ".jpg") -> str:
        """Store some bytes.

        Returns:
            Their digest, 64 hex digits.

        Raises:
            WorkspaceError: The disk refuses.
        """
        digest = digest_bytes(data)
        target = self.path(digest, suffix)
        with disk_errors(self.root.parent):
            if not target.exists():
                write_bytes(target, data)
        return digest

    def path(self, digest: str, suffix: str = ".jpg") -> Path:
        """Where the file of a digest lies, whether it exists or not."""
        return self.root / digest[:2] / f"{digest}{suffix}"
