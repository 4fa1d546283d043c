"""Images that nothing else looks like, and whether anything of them is in what was sent."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nni_hyperfd.method import weights

NAMES = ["Zoologischer_Garten_0007.png", "Kindergeburtstag_1203.png", "Ausweisfoto_Mustermann.png"]
WIDTH, HEIGHT = 271, 193
BOXES = [[17.53125, 29.84375, 101.28125, 77.71875], [151.40625, 83.65625, 49.59375, 61.90625]]


def make_images(folder: Path, first_seed: int = 0) -> Path:
    """Fill a folder with images, and with their boxes."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(NAMES, first_seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "boxes.json").write_text(json.dumps({name: BOXES for name in NAMES}))
    return folder


# -- reading a recording -----------------------------------------------------------------------------------------------


def requests_in(recording: bytes) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """(request line, headers by small name, body) of each HTTP request."""
    while recording:
        head, _, recording = recording.partition(b"\r\n\r\n")
        request, *lines = head.decode("ascii").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", 0))
        yield request, headers, recording[:length]
        recording = recording[length:]


def contents(value: Any) -> Iterator[Any]:
    """All keys, numbers and texts in a JSON value, also those in texts that are JSON themselves."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from contents(item)
    elif isinstance(value, str):
        try:
            yield from contents(json.loads(value))
        except ValueError:
            yield value
    else:
        yield value


def numbers_in(recording: bytes) -> set[float]:
    found = set()
    for _, _, body in requests_in(recording):
        if body:
            found |= {float(c) for c in contents(json.loads(body)) if isinstance(c, (int, float))}
    return found


def update_in(recording: bytes) -> bytes:
    texts = [c for _, _, body in requests_in(recording) if body for c in contents(json.loads(body))]
    return weights.from_text(max((text for text in texts if isinstance(text, str)), key=len))


def everything_in(recording: bytes) -> list[bytes]:
    """The bytes as they went over the wire, and the update that is packed inside of them."""
    return [recording] + ([update_in(recording)] if b"tensors" in recording else [])


# -- what must not be found --------------------------------------------------------------------------------------------


def pixel_runs(images: Path) -> list[bytes]:
    from PIL import Image

    decoded = [Image.open(images / name).tobytes() for name in NAMES]
    return [pixels[start : start + 24] for pixels in decoded for start in range(0, 90_000, 9_000)]


def needles(images: Path) -> list[bytes]:
    """Names, paths, and runs of pixels, of file contents and of boxes, raw and in the usual disguises."""
    runs = pixel_runs(images) + [(images / name).read_bytes()[5_000:5_024] for name in NAMES]
    runs += [struct.pack(f"<4{kind}", *box) for box in BOXES for kind in "fd"]
    found = [text.encode() for name in NAMES for text in (name, Path(name).stem, name.split("_")[0])]
    found += [images.name.encode(), b"boxes.json", str(images.parent).encode(), b".png"]
    found += [repr(number).encode() for box in BOXES for number in box]
    for run in runs:
        found += [run, run.hex().encode(), json.dumps(list(run))[1:-1].encode()]
        for shift in range(3):  # base64 takes three bytes at a time, from wherever the run happens to begin
            aligned = run[shift : shift + (len(run) - shift) // 3 * 3]
            found += [base64.b64encode(aligned), base64.urlsafe_b64encode(aligned)]
    return found
