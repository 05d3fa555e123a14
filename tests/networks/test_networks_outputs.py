"""What outputs mean: tables worked out on paper."""

from __future__ import annotations

import math

import pytest
import torch

from vlbias.errors import ConfigError, ShapeError
from vlbias.networks import FaceInput, FaceNetwork, FaceOutput

LOGITS = torch.tensor([[math.log(1), math.log(2), math.log(5)], [math.log(6), math.log(1), math.log(1)]])


def test_classes_by_softmax_joined_by_label():
    output = FaceOutput(classes=("young", "old", "old"))
    assert output.kind == "classes" and output.labels == ("young", "old")
    assert torch.allclose(output.probabilities(LOGITS), torch.tensor([[0.125, 0.875], [0.75, 0.25]]).double())


def test_left_out_and_chosen_columns_share_the_rest():
    left_out = FaceOutput(classes=("a", None, "b")).probabilities(LOGITS)
    assert torch.allclose(left_out, torch.tensor([[1 / 6, 5 / 6], [6 / 7, 1 / 7]]).double())
    chosen = FaceOutput(columns=(2, 0), classes=("b", "a")).probabilities(LOGITS)
    assert torch.allclose(chosen, torch.tensor([[5 / 6, 1 / 6], [1 / 7, 6 / 7]]).double())


def test_sigmoid_and_stated_probabilities():
    sigmoid = FaceOutput(classes=("no", "yes"), activation="sigmoid").probabilities(torch.tensor([[math.log(3)]]))
    assert sigmoid[0].tolist() == pytest.approx([0.25, 0.75])
    stated = FaceOutput(classes=("no", "yes"), activation="none")
    assert stated.probabilities(torch.tensor([[0.3, 0.7]]))[0].tolist() == pytest.approx([0.3, 0.7])
    with pytest.raises(ShapeError, match="are not probabilities .* say activation 'softmax'"):
        stated.probabilities(torch.tensor([[2.0, -1.0]]))


def test_numbers_are_means_by_probability_or_plain_measurements():
    ages = FaceOutput(values=(10, 20, 60))
    assert ages.kind == "number"
    assert ages.numbers(LOGITS).tolist() == pytest.approx([(10 + 40 + 300) / 8, (60 + 20 + 60) / 8])
    # the published gender and age network of insightface: the third output is a hundredth of the age
    plain = FaceOutput(columns=(2,), values=(100,), activation="none")
    assert plain.numbers(torch.tensor([[3.0, -1.0, 0.31]])).tolist() == pytest.approx([31])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ("a",), "values": (1,)}, "`classes` and `values` both say"),
        ({"classes": ("a", "a")}, "at least two different labels; got \\['a', 'a'\\]"),
        ({"classes": ("a", 1)}, "`classes` must be words"),
        ({"classes": "ab"}, "`classes` must be a list"),
        ({"columns": 3}, "`columns` must be a list"),
        ({"columns": (0, 0)}, "different whole numbers"),
        ({"columns": (0,), "classes": ("a", "b")}, "one entry per output, 1 here; got 2"),
        ({"classes": ("a", "b", "c"), "activation": "sigmoid"}, "one entry per output, 2 here; got 3"),
        ({"values": (1, float("inf"))}, "`values` must be finite numbers"),
        ({"activation": "relu"}, "`activation` must be one of softmax, sigmoid, none; got 'relu'"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        FaceOutput(**values)


def test_another_number_of_outputs_is_an_error_that_names_the_network():
    x = torch.zeros(2, 3, 8, 8)

    def network(output, width=3):
        return FaceNetwork("mine.onnx", lambda batch: torch.ones(len(batch), width), FaceInput(8), output)

    with pytest.raises(ShapeError, match="mine.onnx: 3 outputs for 2 `classes`"):
        network(FaceOutput(classes=("a", "b"))).probabilities(x, layout="ffhq")
    with pytest.raises(ShapeError, match="mine.onnx: `columns` names output 7, but there are 3"):
        network(FaceOutput(columns=(7,), values=(1,))).numbers(x, layout="ffhq")
    with pytest.raises(ShapeError, match="activation 'sigmoid' is for one output; got 3"):
        network(FaceOutput(classes=("a", "b"), activation="sigmoid")).probabilities(x, layout="ffhq")


def test_a_function_of_ones_own_is_a_network():
    grey = FaceNetwork("grey", lambda x: x.mean(dim=(2, 3)), FaceInput(8, mean=0, std=1), batch_size=2)
    x = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    assert grey.outputs(x, layout="ffhq")[:, 0].tolist() == pytest.approx([0, 128, 255], abs=1e-4)
    unit = grey.embeddings(x, layout="ffhq")
    assert torch.isnan(unit[0]).all()  # a vector of zeros has no direction
    assert unit[1:].norm(dim=1).tolist() == pytest.approx([1, 1])
    wrong = FaceNetwork("wrong", lambda x: x.mean(), FaceInput(8))
    with pytest.raises(ShapeError, match=r"wrong gave \(\) for 3 pictures; expected \(b, n\)"):
        wrong.outputs(x, layout="ffhq")
    with pytest.raises(ConfigError, match="`batch_size` must be >= 1"):
        FaceNetwork("wrong", lambda x: x, FaceInput(8), batch_size=0)
