"""Templates: pooling by hand, 1:1 against scikit-learn, 1:N on paper."""

import json

import numpy as np
import pytest
from on_paper import at_degrees, unit
from sklearn import metrics

from sphereface_jax.evaluation.templates import (
    Templates,
    ijb_1n,
    ijb_1n_insightface,
    ijb_11,
    pool_templates,
)


def test_frames_of_one_medium_count_as_one() -> None:
    # Template 7: a still (3, 0) and two frames of a video, (0, 1) and (0, 3), of mean (0, 2).
    # Template 5: one still. Medium 1 of template 5 is another than that of template 7.
    embeddings = np.array([[3.0, 0], [0, 1], [1, 1], [0, 3]])
    templates = pool_templates(embeddings, [7, 7, 5, 7], [1, 2, 1, 2])
    assert templates.ids.tolist() == [5, 7]
    expected = unit(np.array([[1.0, 1], [3, 2]]))
    np.testing.assert_allclose(templates.features, expected, atol=1e-7)


def test_mirror_images_are_added_and_quality_weighs() -> None:
    embeddings, mirrored = np.array([[1.0, 0], [0, 1]]), np.array([[0.0, 1], [0, 3]])
    templates = pool_templates(embeddings, [1, 1], [1, 2], mirrored=mirrored, quality=[0.5, 2.0])
    np.testing.assert_allclose(templates.features, unit(np.array([[0.5, 8.5]])), atol=1e-7)


def test_pooling_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(200, 8)).astype(np.float32)
    template, media = rng.integers(100, 120, 200), rng.integers(0, 6, 200)
    templates = pool_templates(embeddings, template, media)
    for row, number in enumerate(np.unique(template)):
        of_media = [
            embeddings[(template == number) & (media == medium)].mean(axis=0)
            for medium in np.unique(media[template == number])
        ]
        expected = unit(np.sum(of_media, axis=0, keepdims=True))[0]
        np.testing.assert_allclose(templates.features[row], expected, atol=1e-6)


def test_ijb_11_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(50), 4)
    features = unit(rng.normal(size=(50, 16))[subject] + rng.normal(size=(200, 16)))
    ids = 1000 + 3 * np.arange(200)
    left, right = rng.integers(0, 200, size=(2, 5000))
    right[:2500] = 4 * (left[:2500] // 4) + rng.integers(0, 4, 2500)
    is_same = subject[left] == subject[right]
    result = ijb_11(Templates(ids, features.astype(np.float32)), ids[left], ids[right], is_same)
    scores = np.einsum("pd,pd->p", features[left], features[right])
    assert result.auc == pytest.approx(metrics.roc_auc_score(is_same, scores), abs=1e-6)
    far, tar, _ = metrics.roc_curve(is_same, scores, drop_intermediate=False)
    # Of fewer than 5,000 different pairs.
    assert {far for far, rate in result.tar_at_far.items() if rate is None} == {
        *("1e-6", "1e-5", "1e-4")
    }
    for name in ("1e-1", "1e-2", "1e-3"):
        assert result.tar_at_far[name] == pytest.approx(tar[far <= float(name)].max(), abs=1e-3)
    assert (result.num_pairs, result.num_templates) == (5000, 200)
    assert result.num_same == is_same.sum()
    json.dumps(result.to_json(), allow_nan=False)


# Subjects 1 and 2 in the first gallery, at 0° and 90°; 3 in the second, at 180°.
IDS = np.array([10, 11, 20, 31, 32, 33])
TEMPLATES = Templates(IDS, at_degrees(0, 90, 180, 10, 40, 150).astype(np.float32))
GALLERIES = [([10, 11], [1, 2]), ([20], [3])]
PROBES = ([31, 32, 33], [1, 2, 3])


def test_ijb_1n_on_paper() -> None:
    # First gallery: probe 31 is 10° from its mate, first. 32 at 40° is nearer to 0° than to its
    # mate, second. 33 is unmated and 60° from 90°: an alarm at 60°. Second gallery: 33 is 30° from
    # its mate, first; 31 and 32 are unmated, 170° and 140° from it.
    result = ijb_1n(TEMPLATES, PROBES, GALLERIES, fars=(0.1, 0.5, 1.0))
    assert result.rank_k["1"] == pytest.approx((0.5 + 1.0) / 2)
    assert result.rank_k["5"] == 1.0
    # Whatever passes: 31 and 33 are first, 32 is not. The one unmated probe of the first gallery
    # shows no rate below 1, the two of the second none below a half.
    assert result.dir_at_far == {"1e-1": None, "5e-1": None, "1e0": 0.75}
    assert (result.num_probes, result.num_searches, result.num_galleries) == (3, 3, 2)
    json.dumps(result.to_json(), allow_nan=False)


def test_ijb_1n_insightface_on_paper() -> None:
    # Joined: the impostors' angles are 31: 80°, 170°; 32: 40°, 140°; 33: 60°, 150°. The mates' are
    # 10°, 50° and 30°. ⌈3 / 3⌉ = 1: above 40° are 31 and 33; ⌈0.5 · 3⌉ = 2: above 60° all are.
    # Three probes show no rate below a third.
    result = ijb_1n_insightface(TEMPLATES, PROBES, GALLERIES, fars=(0.1, 1 / 3, 0.5))
    assert result.rank_k["1"] == pytest.approx(2 / 3)
    assert result.dir_at_far == {"1e-1": None, "3.33333e-1": pytest.approx(2 / 3), "5e-1": 1.0}
    for galleries, message in (
        (GALLERIES[:1], "galleries: expected exactly one mate for each probe"),
        (GALLERIES[1:], "galleries: expected two templates or more in all, got 1"),
        ([], "galleries: expected two templates or more in all, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ijb_1n_insightface(TEMPLATES, PROBES, galleries)
    # The 0-th highest impostor would be the lowest.
    with pytest.raises(ValueError, match=r"fars: expected rates in \(0, 1\], got \(0.0,\)"):
        ijb_1n_insightface(TEMPLATES, PROBES, GALLERIES, fars=(0.0,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template_ids": [1]}, r"template_ids: expected shape \[2\], got \[1\]"),
        ({"media_ids": [1, 2, 3]}, r"media_ids: expected shape \[2\], got \[3\]"),
        ({"quality": [1.0, -1.0]}, "quality: expected finite numbers from 0 up"),
        ({"quality": [0.0, 0.0]}, "templates: expected nonzero rows, row 0"),
        ({"mirrored": np.ones((2, 3))}, r"mirrored: expected shape \[2, 2\] as embeddings"),
    ],
)
def test_what_cannot_be_pooled_is_named(change: dict, message: str) -> None:
    arguments = {
        "embeddings": at_degrees(0, 10),
        "template_ids": [1, 1],
        "media_ids": [1, 2],
    } | change
    with pytest.raises(ValueError, match=message):
        pool_templates(**arguments)


def test_an_unknown_template_is_named() -> None:
    with pytest.raises(ValueError, match=r"right_ids: expected ids of templates .* found 12"):
        ijb_11(TEMPLATES, [10, 11], [11, 12], [True, False])
    with pytest.raises(ValueError, match=r"galleries\[1\] ids: expected ids of templates"):
        ijb_1n(TEMPLATES, PROBES, [GALLERIES[0], ([21], [3])])
    with pytest.raises(ValueError, match=r"probes subjects: expected shape \[3\], got \[2\]"):
        ijb_1n(TEMPLATES, ([31, 32, 33], [1, 2]), GALLERIES)
    with pytest.raises(ValueError, match="galleries: expected at least one, got none"):
        ijb_1n(TEMPLATES, PROBES, [])
