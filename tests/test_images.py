from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from labelmill.images import Image, list_images, read_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners() -> Image:
    """4 x 6 pixels whose quarters are red, green (above), blue and white (below)."""
    image = np.zeros((4, 6, 3), np.uint8)
    image[:2, :3], image[:2, 3:], image[2:, :3], image[2:, 3:] = RED, GREEN, BLUE, WHITE
    return image


def read(path: Path) -> Image:
    image = read_image(path)
    assert not isinstance(image, str), image
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.flags.c_contiguous
    return image


# EXIF 2.32, tag 0x0112: what the stored rows and columns are in the picture as meant.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    stored = np.ascontiguousarray(STORED[orientation](corners()))
    Pillow.fromarray(stored).save(path, exif=exif)
    np.testing.assert_array_equal(read(path), corners())


def test_a_photograph_on_its_side(tmp_path: Path) -> None:
    upright = np.kron(corners(), np.ones((16, 16, 1), np.uint8))
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = read(tmp_path / "a.jpg")
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 10


def test_cmyk_is_converted(tmp_path: Path) -> None:
    Pillow.fromarray(np.full((8, 8, 3), RED, np.uint8)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    image = read(tmp_path / "a.jpg")
    assert np.abs(image.astype(int) - RED).max() <= 6


def png(path: Path, rows: bytes, wh: tuple[int, int], depth: int, colour: int) -> None:
    """Write a PNG by hand: Pillow writes no 16-bit colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *wh, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_16_bit_grey_keeps_the_upper_bits(tmp_path: Path) -> None:
    samples = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    Pillow.fromarray(samples).save(tmp_path / "a.png")
    Pillow.fromarray(samples).save(tmp_path / "a.tiff")
    for name in ("a.png", "a.tiff"):
        assert read(tmp_path / name)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_colour_keeps_the_upper_bits(tmp_path: Path) -> None:
    samples = np.array([[[0, 128 << 8, 65535], [255, 256, 511]]], ">u2")
    png(tmp_path / "a.png", b"\x00" + samples.tobytes(), (2, 1), 16, 2)
    assert read(tmp_path / "a.png").tolist() == [[[0, 128, 255], [0, 1, 1]]]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.4, 300.0], [0, 100, 255]),
        ([-5.0, np.nan, 1.0], [0, 0, 255]),
        ([0.0, np.inf, -np.inf], [0, 255, 0]),
    ],
)
def test_float_samples_are_scaled(tmp_path: Path, samples: list[float], expected: list[int]) -> None:
    Pillow.fromarray(np.array([samples], np.float32)).save(tmp_path / "a.tiff")
    assert read(tmp_path / "a.tiff")[0, :, 1].tolist() == expected


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    Pillow.fromarray(corners()).quantize(4).save(tmp_path / "a.png")
    Pillow.fromarray(corners()).quantize(4).save(tmp_path / "a.gif")
    for name in ("a.png", "a.gif"):
        np.testing.assert_array_equal(read(tmp_path / name), corners())


@pytest.mark.parametrize("mode", ["1", "L"])
def test_black_and_white(tmp_path: Path, mode: str) -> None:
    Pillow.fromarray(np.array([[0, 255]], np.uint8)).convert(mode).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    Pillow.fromarray(rgba).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]
    Pillow.fromarray(np.array([[[0, 0], [0, 255]]], np.uint8)).save(tmp_path / "b.png")
    assert read(tmp_path / "b.png")[0, :, 0].tolist() == [255, 0]


def test_a_transparent_palette_colour_is_white(tmp_path: Path) -> None:
    picture = Pillow.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    picture.putpalette([9, 9, 9, 200, 0, 0])
    picture.save(tmp_path / "a.png", transparency=0)
    assert read(tmp_path / "a.png").tolist() == [[[255, 255, 255], [200, 0, 0]]]


def jpeg(path: Path, side_px: int = 64) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), np.uint8)
    Pillow.fromarray(noise).save(path)
    return path.read_bytes()


def test_what_is_no_image_says_why(tmp_path: Path) -> None:
    whole = jpeg(tmp_path / "whole.jpg")
    files = {
        "empty.jpg": b"",
        "words.jpg": b"I am a text file.\n",
        "cut.jpg": whole[: len(whole) // 2],
        "head.jpg": whole[:20],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    reasons = {name: read_image(tmp_path / name) for name in files}
    assert reasons["empty.jpg"] == "the file is empty"
    assert reasons["words.jpg"] == "the content is no image"
    assert str(reasons["cut.jpg"]).startswith("damaged image: image file is truncated")
    assert isinstance(reasons["head.jpg"], str)
    assert read_image(tmp_path / "gone.jpg") == "the file is gone"


def test_an_absurd_size_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    png(tmp_path / "bomb.png", b"", (100_000, 100_000), 8, 2)
    assert read_image(tmp_path / "bomb.png") == "the header declares an absurd size"


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tiff", "webp"])
def test_damage_anywhere_is_a_picture_or_a_reason(tmp_path: Path, suffix: str) -> None:
    """A seeded sweep: bytes turned and ends cut off, mostly in the headers, where decoders are led astray."""
    path = tmp_path / f"a.{suffix}"
    exif = Pillow.Exif()
    exif[0x0112] = 6
    picture = Pillow.fromarray(corners().repeat(4, 0).repeat(4, 1))
    if suffix in {"gif", "bmp"}:
        picture.save(path)
    else:
        picture.save(path, exif=exif)
    whole = path.read_bytes()
    chance = random.Random(suffix)
    outcomes = set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 5)):
            reach = min(len(data), 120) if chance.random() < 0.7 else len(data)
            data[chance.randrange(reach)] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)
        found = read_image(path)
        assert isinstance(found, str) or (found.dtype == np.uint8 and found.shape[2] == 3)
        assert not isinstance(found, str) or (found and "\n" not in found)
        outcomes.add(type(found))
    assert str in outcomes


def test_a_folder_is_listed_by_path_with_its_sub_folders(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a.png", "notes.txt", "c.jpg/inner.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a.png", "a/z.png", "b.JPG", "c.jpg/inner.tif"]
