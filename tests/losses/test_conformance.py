"""The conformance vectors are the library's, and the oracle agrees with them."""

import json

import numpy as np
import pytest
import reference
from cases import assert_close

from experiments.conformance import LABELS, conformance
from experiments.pages import RESULTS

CASES = json.loads((RESULTS / "conformance.json").read_text("utf-8"))
FILE = dict(np.load(RESULTS / "conformance.npz"))


@pytest.fixture(scope="module")
def fresh():
    return conformance()


@pytest.mark.slow
def test_the_files_are_fresh(fresh):
    arrays, cases = fresh
    assert json.loads(json.dumps(cases)) == CASES
    assert arrays.keys() == FILE.keys()
    for name, values in arrays.items():
        np.testing.assert_allclose(FILE[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_the_oracle_agrees(case):
    described = CASES[case]
    name = described["loss"]
    x, w = FILE[f"{case}/x"], FILE[f"{case}/w"]
    state = described.get("state", described.get("class_margins"))
    state = np.asarray(state) if isinstance(state, list) and name != "adaface" else state
    frozen = reference.freeze(name, x, w, LABELS, state)
    losses = reference.losses(name, x, w, LABELS, frozen)
    assert_close(FILE[f"{case}/loss"], losses, 1e-7)
    if described["points"] == "ordinary":
        gradients = reference.gradients(name, x, w, LABELS, frozen)
        assert_close(FILE[f"{case}/by_x"], gradients[0], 1e-5)
        assert_close(FILE[f"{case}/by_w"], gradients[1], 1e-5)
    assert all(np.isfinite(FILE[f"{case}/{key}"]).all() for key in ("loss", "by_x", "by_w"))


def test_a_loss_in_pytorch_is_held_to_them():
    torch = pytest.importorskip("torch")
    from experiments.conformance_torch import check

    def cosface(x, w, labels):
        functional = torch.nn.functional
        cosine = functional.linear(functional.normalize(x), functional.normalize(w))
        margin = 0.35 * functional.one_hot(labels, len(w)).to(x.dtype)
        return functional.cross_entropy(64 * (cosine - margin), labels, reduction="none")

    found = check("cosface", cosface)
    assert max(found["ordinary"].values()) < 1e-12
    wrong = check("cosface", lambda x, w, labels: 1.01 * cosface(x, w, labels))
    assert 0.009 < wrong["ordinary"]["loss"] < 0.011
