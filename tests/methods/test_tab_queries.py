"""What TAB's queries carry, on an image whose bottleneck has 2×2 positions."""

from __future__ import annotations

import torch
from multirater.benchmark.config import resolve
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.tab_layers import sine_positions


def spread(**options):
    """Standard deviation of the query features over the queries, and of their maps."""
    torch.manual_seed(0)
    data = DataDescription("tiny", raters=4, rater_ids=tuple("1234"), identity="derived", size=(64, 64))
    method = create_method("tab", data, width=8, encoder_blocks=[1, 1, 1, 1], dropout=0.0, **options).eval()
    with torch.no_grad():
        projected = method.project(method.encoder(torch.rand(2, 1, 64, 64))[-1])
        tokens = projected.flatten(2).transpose(1, 2)
        positions = sine_positions(2, 2, tokens.shape[-1], tokens)
        queries, memory = method.transformer(tokens, positions, method.queries)
        maps = method.maps(queries, memory)
    return queries.std(1).mean().item(), maps.std(1).mean().item()


def test_queries_that_carry_their_vectors_differ():
    options = {"attention_softmax": "per_head"}
    plain, carrying = spread(**options), spread(**options, query_start="vector")
    assert carrying[0] > 5 * plain[0]
    assert carrying[1] > 5 * plain[1]


def test_the_authors_queries_carry_nothing_and_the_quick_ones_do():
    given = {p: resolve("tab", "synthetic", p, {})["method"]["options"]["query_start"] for p in ("quick", "paper")}
    assert given == {"quick": "vector", "paper": "zero"}
