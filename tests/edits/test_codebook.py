"""GRACE's codebook: how entries are added, expanded and split, and where they answer."""

from __future__ import annotations

import torch

from indelible.edits.beside.codebook import Codebook, CodebookManifest, Entries, nearest
from indelible.edits.deltas.manifest import Origin
from indelible.models.layout import find_layout
from tiny_models import Make


def entries(*of: tuple[float, float, str, float]) -> Entries:
    """Entries with keys in the plane, numbered values, objects and radii."""
    return Entries(
        torch.tensor([[x, y] for x, y, _, _ in of], dtype=torch.float32),
        torch.arange(len(of)).float().reshape(-1, 1),
        torch.tensor([radius for *_, radius in of]),
        tuple(spoken for *_, spoken, _ in of),
    )


def test_entries_are_added_expanded_and_split_as_in_the_paper() -> None:
    """Algorithm 1 of GRACE by hand, on keys in the plane; a new entry's radius is 1."""
    book = Entries.empty(2, 1).with_entry(torch.tensor([10.0, 0.0]), torch.tensor([0.0]), "Rome", 1.0)
    assert (book.objects, book.radii_n.tolist()) == (("Rome",), [1.0])

    def then(x: float, spoken: str, start: Entries = book) -> tuple[list[float], list[float], tuple[str, ...]]:
        grown = start.with_entry(torch.tensor([x, 0.0]), torch.tensor([7.0]), spoken, 1.0)
        return grown.radii_n.tolist(), grown.values_no[:, 0].tolist(), grown.objects

    assert then(12.5, "Rome") == ([1.0, 1.0], [0.0, 7.0], ("Rome", "Rome")), "far: added"
    assert then(12.5, "Oslo") == ([1.0, 1.0], [0.0, 7.0], ("Rome", "Oslo"))
    assert then(11.75, "Rome") == ([1.75], [0.0], ("Rome",)), "near, same object: the radius reaches it"
    assert then(10.5, "Rome") == ([1.0], [0.0], ("Rome",)), "it never shrinks"
    assert then(11.0, "Oslo") == ([0.5, 0.5], [0.0, 7.0], ("Rome", "Oslo")), "near, another: half the way each"
    assert then(12.0, "Oslo") == ([1.0, 1.0], [0.0, 7.0], ("Rome", "Oslo"))
    assert then(10.0, "Oslo") == ([1.0], [7.0], ("Oslo",)), "the same prompt: the later object"
    wide, narrow = entries((0, 0, "Rome", 3.0)), entries((0, 0, "Rome", 0.5))
    assert then(3.5, "Oslo", wide)[0] == [1.75, 1.0], "half the way, but no further than each reaches by itself"
    assert then(1.25, "Oslo", narrow)[0] == [0.5, 0.625]
    pair = entries((0, 0, "Rome", 1.0), (5, 0, "Oslo", 1.0))
    assert then(4.0, "Oslo", pair) == ([1.0, 1.0], [0.0, 1.0], ("Rome", "Oslo")), "the nearest entry decides"
    distances, which = nearest(torch.tensor([[4.0, 0.0], [0.0, 3.0]]), pair.keys_nd)
    assert (distances.tolist(), which.tolist()) == ([1.0, 3.0], [1, 0])


def test_small_distances_between_long_keys_are_not_lost() -> None:
    key = 1000 * torch.ones(1, 64)
    near = key.clone()
    near[0, 0] += 0.5
    distances, _ = nearest(near.repeat(40, 1), key.repeat(40, 1))
    torch.testing.assert_close(distances, torch.full((40,), 0.5))


def test_a_codebook_answers_within_its_radius_and_nowhere_else(tiny_model: Make) -> None:
    model = tiny_model("gpt2")
    layout = find_layout(model)
    path, name = layout.mlp_out[1], layout.mlp_out_weight[1]
    memory = model.get_submodule(path)
    generator = torch.Generator().manual_seed(0)
    keys_qd = torch.randn(2, 3, layout.key_width, generator=generator)
    with torch.no_grad():
        old = memory(keys_qd)
    key = keys_qd[1, 2]
    value = torch.randn(layout.hidden_size, generator=generator)
    said = {"fingerprint": "", "model": Origin(name="", architecture=""), "made": (), "facts": ()}
    manifest = CodebookManifest(parameters=(name,), objects=("x",), **said)
    for radius, reached in ((1e-3, [(1, 2)]), (1e9, [(row, place) for row in range(2) for place in range(3)])):
        book = Codebook(Entries(key[None], value[None], torch.tensor([radius]), ("x",)), manifest)
        with book.installed(model), torch.no_grad():
            new = memory(keys_qd)
            low = memory.to(torch.bfloat16)(keys_qd.bfloat16()) if radius > 1 else None
            memory.to(torch.float32)
        for row in range(2):
            for place in range(3):
                expected = value if (row, place) in reached else old[row, place]
                assert torch.equal(new[row, place], expected)
        assert low is None or low.dtype == torch.bfloat16
