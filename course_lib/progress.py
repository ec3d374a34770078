"""One progress bar for the whole course: it comes up after two seconds, and is gone when the work is done."""

import os
from collections.abc import Iterable

from tqdm.auto import tqdm


def bar(
    parts: Iterable | None = None, *, total: int | None = None, initial: int = 0, unit: str = "step", show: bool = True
) -> tqdm:
    """``parts`` under a progress bar; without ``parts`` a bar that is moved by ``update()``, as a context manager.

    Nothing is shown where ``show`` is false or the environment says ``TQDM_DISABLE=1`` (tqdm's bar for notebooks
    does not look there by itself), so that no bar gets into the stored outputs of a lesson. Bytes, with ``unit="B"``,
    are shown as kB and MB.
    """
    hidden = not show or os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    scale = unit == "B"
    return tqdm(parts, total=total, initial=initial, unit=unit, unit_scale=scale, delay=2, leave=False, disable=hidden)
