"""Take the README's pictures of the widgets, in a real JupyterLab.

    python -m tools.screenshot                      all of them
    python -m tools.screenshot sparsity rounds      some

Writes docs/images/temperature_widget.png and its like, and the whole page to build/temperature_lab.png.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tools.lab import ROOT, picture_of, press_and_wait, widget_cell

# The key presses on the first slider from where the lesson starts it to what the picture shows: the key of the first
# entry as often as its number says, and so on.
MOVES = {
    "time": [],
    "temperature": [("ArrowRight", 3)],  # from T = 1 to T = 2
    "sparsity": [],
    "rounds": [("End", 1)],
}
COLOURS = 128  # enough for the edges of the letters, and a third of the bytes


def take(name: str) -> None:
    """Write the pictures of the widget ``name``."""
    with tempfile.TemporaryDirectory() as scratch:
        with widget_cell(f"widget-{name}", Path(scratch), pixel_ratio=2) as cell:
            cell.get_by_role("slider").first.focus()
            for key, times in MOVES[name]:
                for _ in range(times):
                    press_and_wait(picture_of(cell), key)
            cell.page.mouse.move(0, 0)
            widget = cell.locator(".widget-vbox").first.screenshot()
            whole = cell.page.screenshot()
    picture, page = ROOT / "docs" / "images" / f"{name}_widget.png", ROOT / "build" / f"{name}_lab.png"
    for path, content in ((picture, widget), (page, whole)):
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.open(io.BytesIO(content)).convert("RGB").quantize(COLOURS)
        small.save(path, optimize=True)
        print(f"{path.relative_to(ROOT)}: {small.width} x {small.height}, {path.stat().st_size / 1000:.0f} kB")


def main() -> int:
    """Take the pictures that the command line names; 1 for a name that is no widget."""
    names = sys.argv[1:] or list(MOVES)
    if unknown := [name for name in names if name not in MOVES]:
        print(f"unknown: {', '.join(unknown)}; expected any of {', '.join(MOVES)}", file=sys.stderr)
        return 1
    for name in names:
        take(name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
