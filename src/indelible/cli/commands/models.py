"""``indelible models``: what can be loaded without a model hub."""

from __future__ import annotations

from indelible.cli.terminal import say

EXAMPLES = ("Example: `indelible models`",)


def models() -> None:
    """List the bundled models, and whether they are fetched already."""
    from indelible.models.bundled.fetch import MODELS, cache_folder, is_cached

    for name, archive in sorted(MODELS.items()):
        origin = f"{archive.package} {archive.version} from the package index, {archive.licence}"
        say(f"{name}: {'fetched' if is_cached(name) else 'not fetched yet, the first use does that'} ({origin})")
    say(f"Cache: {cache_folder()} (set INDELIBLE_CACHE to move it)")
    say("Any folder written by save_pretrained works too, and any hub id where the hub can be reached.")
