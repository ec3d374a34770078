"""Take the README's picture of the temperature widget, in a real JupyterLab.

    python -m tests.browser.screenshot

Writes docs/images/temperature_widget.png, the widget at T = 2, and build/temperature_lab.png, the whole page.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser.lab import LESSON, ROOT, Lab, open_page, press_and_wait, running_lab, watch

PICTURE = ROOT / "docs" / "images" / "temperature_widget.png"
PAGE = ROOT / "build" / "temperature_lab.png"
MOVES = 3  # along the slider from T = 1 to T = 2
COLOURS = 128  # enough for the edges of the letters, and a third of the bytes


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, running_lab(LESSON, Path(scratch)) as url:
        with open_page(pixel_ratio=2) as page:
            cell = Lab(page, url).run_until("widget-temperature")
            image = cell.locator("img.widget-image")
            image.wait_for()
            watch(image)
            cell.get_by_role("slider").first.focus()
            for _ in range(MOVES):
                press_and_wait(image, "ArrowRight")
            page.mouse.move(0, 0)
            widget = cell.locator(".widget-vbox").first.screenshot()
            whole = page.screenshot()
    for path, content in ((PICTURE, widget), (PAGE, whole)):
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.open(io.BytesIO(content)).convert("RGB").quantize(COLOURS)
        small.save(path, optimize=True)
        print(f"{path.relative_to(ROOT)}: {small.width} x {small.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
