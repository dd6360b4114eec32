"""The rows of a measurement: what each says, and how they leave Python."""

import json
import math
import sys

import pytest
import torch
from torch import nn

import momos

ALL = ("default", "paper", "qubd")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.Linear(11, 5))


def test_codes_have_bits_per_weight_and_scores_have_none():
    for row in momos.measure(network(), measures=ALL, controls=0).rows:
        assert row.value is not None
        assert row.value >= 0
        if row.kind == "code":
            assert row.bits_per_weight == row.value / row.num_weights
            assert row.unit == "bits"
        else:
            assert row.bits_per_weight is None
            assert row.unit in ("score", "ratio")
        assert row.about


def test_a_measure_asked_for_twice_has_one_row():
    names = [row.name for row in momos.measure(network(), measures=ALL, controls=0).rows]
    assert len(names) == len(set(names))
    twice = momos.measure(network(), measures=("signs", "signs"), controls=0)
    assert [row.name for row in twice.rows] == ["signs"]


def test_an_absent_row_is_a_key_error_that_lists_the_others():
    with pytest.raises(KeyError, match="signs, got 'x'"):
        momos.measure(network(), measures="signs")["x"]


def test_a_dictionary_of_it_survives_json():
    measures = ("default", "qubd", "gzip rate, float32")
    measured = momos.measure(network(), measures=measures, controls=2, per_tensor=True)
    found = measured.to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["rows"][0]["bits_per_weight"] == pytest.approx(
        found["rows"][0]["value"] / found["rows"][0]["num_weights"]
    )


def test_without_pandas_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas: pip install pandas"):
        momos.measure(network(), measures="signs").to_pandas()


def test_with_a_start_and_no_shuffles_the_ratio_to_the_start_is_known():
    """Only its split into arrangement and values needs shuffles; the ratio itself does not."""
    row = momos.measure(network(), measures="signs, BDM", controls=0, init=network()).rows[
        0
    ]
    assert (row.value, row.factors) == (row.init_value, None)


def test_the_order_of_hidden_units_is_worth_the_logarithm_of_their_permutations():
    weights = {"a": torch.randn(4, 6), "b": torch.randn(3, 4)}
    found = momos.measure(weights, measures="signs", controls=0, hidden_widths=(4, 3))
    assert found["symmetry slack"].value == pytest.approx(math.log2(24) + math.log2(6))
    assert found["symmetry slack"].num_weights == 36
    plain = momos.measure(weights, measures="signs", controls=0)
    assert [row.name for row in plain.rows] == ["signs"]


def test_qubd_says_how_many_weights_it_is_of():
    weights = {
        "a.weight": torch.randn(8, 6),
        "a.bias": torch.randn(8),
        "b.weight": torch.randn(9),
    }
    found = momos.measure(weights, measures=("QuBD", "signs"), controls=0)
    assert (found["QuBD"].num_weights, found["QuBD"].raw_bits) == (48, 48 * 32)
    assert found["signs"].num_weights == 65
