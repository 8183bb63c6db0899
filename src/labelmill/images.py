"""Still images of every kind that cameras and people leave in a folder, as upright RGB."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""RGB picture, shape (height_px, width_px, 3)."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"})


def list_images(folder: Path) -> list[Path]:
    """Image files below a folder, by their suffix, in the order of their POSIX paths."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def read_image(path: Path) -> Image | str:
    """Read one image as it is meant to be seen.

    EXIF orientation is applied; CMYK and palettes are converted; 16-bit samples keep their upper 8 bits;
    float samples of at most 1 are scaled by 255, and those that are no number are black; transparent pixels
    are laid on white.

    Returns:
        RGB, shape (height_px, width_px, 3), uint8, or the reason why the file cannot be read.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps, UnidentifiedImageError

    try:
        if path.stat().st_size == 0:
            return "the file is empty"
        with warnings.catch_warnings():
            # Pillow warns of large pictures and of odd EXIF data; past twice its limit it refuses.
            warnings.simplefilter("ignore")
            with Pillow.open(path) as opened:
                return _rgb(ImageOps.exif_transpose(opened))
    except (UnidentifiedImageError, ImportError):
        # ultralytics, once imported, has Pillow try HEIF through a package that need not be installed.
        return "the content is no image"
    except Pillow.DecompressionBombError:
        return "the header declares an absurd size"
    except FileNotFoundError:
        return "the file is gone"
    except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
        return f"damaged image: {' '.join(str(error).split())}"
    except MemoryError:
        return "the picture does not fit into memory"


def _rgb(picture: object) -> Image:
    from PIL import Image as Pillow

    if not isinstance(picture, Pillow.Image):  # narrows exif_transpose's optional result
        raise ValueError("no picture")
    mode = picture.mode
    if mode.startswith(("I;16", "I", "F")):
        samples = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        scale = 255.0 if mode == "F" and samples.max(initial=0) <= 1 else 1.0 if mode == "F" else 1 / 257
        grey = np.clip(np.rint(samples * scale), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        ground = Pillow.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Pillow.alpha_composite(ground, picture)
    return np.array(picture.convert("RGB"), dtype=np.uint8)
