"""What is on the screen, as numbers: the browser itself decodes its screenshots."""

import base64

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Locator

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

DECODE = """async (png) => {
  const bytes = Uint8Array.from(atob(png), (each) => each.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  let text = "";
  for (let at = 0; at < data.length; at += 32768) {
    text += String.fromCharCode(...data.subarray(at, at + 32768));
  }
  return [image.height, image.width, btoa(text)];
}"""
RESOLVE = """(element, name) => {
  element.style.color = `var(${name})`;
  const found = getComputedStyle(element).color.match(/[0-9]+/g).map(Number);
  element.style.color = "";
  return found;
}"""


def pixels(shown: Locator) -> Pixels:
    """Return what is seen of an element, `(height, width, 3)`, one pixel for each of CSS."""
    png = base64.b64encode(shown.screenshot()).decode()
    height, width, raw = shown.page.evaluate(DECODE, png)
    rgba = np.frombuffer(base64.b64decode(raw), np.uint8)
    return rgba.reshape(height, width, 4)[:, :, :3]


def colour(shown: Locator, name: str) -> list[int]:
    """Return red, green and blue of one of the variables in style.css, such as `--accent`."""
    found: list[int] = shown.evaluate(RESOLVE, name)
    return found


def has(seen: Pixels, wanted: list[int], within: int = 3) -> Mask:
    """Return where a picture has a colour, `(height, width)`."""
    apart = np.abs(seen.astype(int) - np.array(wanted))
    return np.asarray(apart.max(axis=2) <= within)
