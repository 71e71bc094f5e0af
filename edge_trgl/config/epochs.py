"""How many epochs each module trains for, as the user writes it."""

from __future__ import annotations

from edge_trgl.runtime.errors import UsageError


def parse_epochs(text: str, num_modules: int) -> tuple[int, ...]:
    """Read the epochs of each module from `30`, `50+10k` (module k: 50 + 10 k) or `5,6,7`.

    With `num_modules` 1 a list may have any length: the configuration is checked before the network is known.

    Raises:
        UsageError: the text has none of these forms, or lists another number of modules.
    """
    try:
        epochs = _read(text.strip(), num_modules)
    except ValueError:
        raise UsageError(
            f"train.epochs must be a number, a form like 50+10k, or a list like 5,6,7, not {text!r}"
        ) from None
    if num_modules not in (1, len(epochs)):
        raise UsageError(f"train.epochs lists {len(epochs)} numbers for {num_modules} modules")
    if min(epochs) < 1:
        raise UsageError(f"train.epochs must be at least 1 for every module, not {text!r}")
    return epochs


def _read(text: str, num_modules: int) -> tuple[int, ...]:
    if "," in text:
        return tuple(int(part) for part in text.split(","))
    if text.endswith("k"):
        base, step = text[:-1].split("+")
        return tuple(int(base) + int(step) * module for module in range(num_modules))
    return (int(text),) * num_modules
