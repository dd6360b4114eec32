"""The tables on large models say what layouts and shards say."""

from math import prod
from pathlib import Path

import pytest
import torch
from scale_page import BANKS, MODELS, Plan, llama, memory, networks, parts, rows_of, traffic

import momos
from page_parts import PLACE

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
TINY = {"hidden_size": 24, "intermediate_size": 52, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 37}


@pytest.mark.parametrize(("rows", "ranks"), [(8, 2), (9, 2), (9, 4), (3, 8), (1, 1)])
def test_shards_are_those_of_torch(rows: int, ranks: int) -> None:
    pieces = torch.empty(rows, 2, device="meta").chunk(ranks)
    assert rows_of(rows, ranks) == max(len(piece) for piece in pieces)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [2, 5])
def test_a_rank_holds_what_is_counted_weight_by_weight(ranks: int, size: int) -> None:
    model = llama(TINY)
    plan = Plan.of(model, size, 16, ranks)
    owners = {  # for each weight of a tensor, the rank that holds it
        place.name: torch.arange(place.num_weights)
        // (rows_of(place.shape[0], ranks) * prod(place.shape[1:]))
        for place in plan.layout.placements
    }
    held = sum(int((owner == 0).sum()) for owner in owners.values())
    others = [p for name, p in model.named_parameters() if name not in owners]
    held += sum(rows_of(len(p), ranks) for p in others)
    cut = sum(
        len(set(block.tolist())) > 1
        for owner in owners.values()
        for block in owner.split(size)
    )
    assert plan.held == held
    assert plan.cut == cut
    if ranks == 1:
        assert plan.rows == plan.layout.num_blocks
        assert plan.cut == plan.plain == plan.projection == plan.reassignment == 0


def test_traffic_is_that_of_the_formulas_of_the_page() -> None:
    plan = Plan.of(llama(TINY), 4, 16, 2)
    everything = plan.layout.num_weights + sum(map(prod, plan.dense))
    assert plan.plain == 8 * everything / 2
    assert plan.projection == 4 * 16 * 4 + 4 * plan.cut * 4
    assert plan.reassignment == 24 * 16 * 4 + 8 * 16 + 4 * plan.cut * 4
    others = everything - plan.layout.num_weights
    assert plan.learned == (2 * plan.layout.num_blocks + 4 * others + 4 * everything) / 2
    assert plan.memory == 16 * plan.held + 4 * plan.rows + 4 * 16 * 4


def test_the_page_holds_the_tables_of_its_command() -> None:
    text = PAGE.read_text("utf-8")
    seven = {"7 B": llama(MODELS["7 B"])}
    made = parts(seven)
    places = {match[2]: match[0] for match in PLACE.finditer(text)}
    assert made.keys() == places.keys()
    for name, table in made.items():
        for line in table.splitlines():
            assert line in places[name]


def test_tables_have_a_row_for_each_plan() -> None:
    plans = [("tiny", Plan.of(llama(TINY), *bank, 2)) for bank in BANKS]
    for table in (networks(plans), memory(plans), traffic(plans)):
        assert table.count("\n") == 2 + len(plans)
    assert isinstance(plans[0][1].layout, momos.Layout)
