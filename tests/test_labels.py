"""What a label is, and what a group of several labels is called."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlbias.errors import ConfigError, LabelError
from vlbias.labels import group_name, group_texts, in_order, label_text, label_texts, label_value, typed_labels


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (1.0, "1"), (True, "1"), (np.int64(0), "0"), (np.bool_(False), "0"), ("old", "old"), (" x ", "x")]
    + [(2.5, "2.5"), (np.float32(0.1), "0.1"), (Decimal("1.00"), "1"), (2**60 + 1, str(2**60 + 1)), ("01", "01")]
    + [(word, word) for word in ("None", "NA", "nan", "null", "True", "Ja", "e\u0301"[:1])]
    + [("e\u0301", "\u00e9"), (0.1234567, "0.1234567"), ("\u00a0light", "light")]
    + [(value, None) for value in (None, float("nan"), pd.NA, pd.NaT, "", " \t", np.float32("nan"), Decimal("NaN"))],
)
def test_a_label_reads_the_same_from_any_type(value, text):
    assert label_text(value) == text
    assert label_texts([value, "other", value]).tolist() == [text, "other", text]


@pytest.mark.parametrize("value", [[1], (1, 2), {"a": 1}, {1}, np.array([1, 2])])
def test_a_list_is_no_label(value):
    with pytest.raises(LabelError, match="a label is one value"):
        label_value(value)
    with pytest.raises(LabelError, match="a label is one value"):
        label_texts(pd.Series(["a", value], dtype=object))


def test_half_a_character_is_no_label():
    with pytest.raises(LabelError, match=r"'caf\\udce9' has half a character"):
        label_texts(["caf\udce9", "tea"])


def test_values_keep_their_type():
    values = [label_value(value) for value in (True, 1, 1.0, " 1", np.int8(3), np.bool_(False))]
    assert values == [True, 1, 1.0, "1", 3, False]
    assert [type(value) for value in values] == [bool, int, float, str, int, bool]


@pytest.mark.parametrize("dtype", ["boolean", "Int64", "Float64", "str", "category", object])
def test_columns_of_every_dtype(dtype):
    special = {"boolean": [True, False, None], "str": ["a", "b", None], "category": ["a", "b", None]}
    values = special.get(dtype, [1, 2, None])
    column = pd.Series(values, index=[7, 8, 9], dtype=dtype)
    texts = label_texts(column)
    assert texts.tolist() == [label_text(value) for value in values] and texts.index.tolist() == [7, 8, 9]


def test_numbers_of_32_bits_are_those_that_were_meant():
    column = pd.Series([0.1, None, 2.0], dtype="float32")
    assert label_texts(column).tolist() == ["0.1", None, "2"]
    assert typed_labels(column).tolist()[0] == 0.1


_PART = st.text(alphabet='a&" ', min_size=1).filter(str.strip)


@given(st.lists(st.lists(_PART, min_size=2, max_size=2), unique_by=tuple))
def test_no_two_groups_share_a_name(rows):
    assert len({group_name(row) for row in rows}) == len(rows)


def test_groups_of_several_columns():
    table = pd.DataFrame({"x": ["a & b", "a", None, "a"], "y": ["c", "b & c", "c", 1.0]}, index=list("pqrs"))
    assert group_texts(table, ["x", "y"]).tolist() == ['"a & b" & c', 'a & "b & c"', None, "a & 1"]
    assert group_texts(table, ["x"]).tolist() == ["a & b", "a", None, "a"]
    with pytest.raises(ConfigError, match="is named twice that makes groups: x, x"):
        group_texts(table, ["x", "x"])


def test_numbers_come_by_size_and_before_words():
    assert in_order(["b", "10", "9", "-1", "a", "9", "nan"]) == ["-1", "9", "10", "a", "b", "nan"]


def test_labels_of_other_libraries():
    assert label_value(b"light") == label_value(np.bytes_(b"light ")) == "light"
    assert label_value(np.datetime64("2020-01-01", "ns")) == label_value(pd.Timestamp("2020-01-01"))
    assert label_value(np.datetime64("NaT", "ns")) is None
