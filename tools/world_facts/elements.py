"""Facts about the chemical elements, from periodictable."""

from __future__ import annotations

from collections.abc import Iterator

from world_facts.names import Triple


def element_triples() -> Iterator[Triple]:
    """Symbol and atomic number of every element, lightest first within each relation."""
    import periodictable

    # the table opens with the neutron, number 0, which is no element
    elements = [element for element in periodictable.elements if element.number >= 1]
    for element in elements:
        yield Triple("symbol", element.name, element.symbol, "periodictable")
    for element in elements:
        yield Triple("atomic_number", element.name, str(element.number), "periodictable")
