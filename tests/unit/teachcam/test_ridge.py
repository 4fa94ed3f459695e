"""The head in closed form, against heads that are really fitted without a scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from teachcam import ridge, ridge_inputs, ridge_sums
from teachcam.ridge import Rows, fit_ridge
from teachcam.ridge_sums import IncrementalRidge


def make_rows(num_scenes: int = 6, per_scene: int = 12, views: int = 2, dim: int = 20, seed: int = 0) -> Rows:
    """Return features of three classes; a scene shifts all its features, and views show other scenes' backgrounds."""
    rng = np.random.default_rng(seed)
    num_images = num_scenes * per_scene
    class_ids = np.tile(np.arange(num_images) % 3, 1 + views)
    scenes = np.tile(np.repeat(np.arange(num_scenes), per_scene), 1 + views)
    is_view = np.arange(len(scenes)) >= num_images
    backgrounds = np.where(is_view & (rng.random(len(scenes)) < 0.5), rng.integers(0, num_scenes, len(scenes)), -1)
    means, shifts = rng.normal(0, 1, (3, dim)), rng.normal(0, 1, (num_scenes, dim))
    features = np.abs(means[class_ids] + shifts[scenes] + rng.normal(0, 1, (len(scenes), dim)))
    return Rows(features.astype(np.float32), class_ids, scenes, backgrounds, is_view)


def least_squares(system: ridge._System, keep: np.ndarray, strength: float) -> np.ndarray:
    """Return the coefficients of a head on some rows, solved as a textbook has it."""
    rows, weights = system.rows[keep], system.weights[keep][:, None]
    penalty = np.diag(np.append(0.0, np.full(system.rows.shape[1] - 1, strength)))
    return np.linalg.solve(rows.T @ (weights * rows) + penalty, rows.T @ (weights * system.targets[keep]))


@pytest.mark.parametrize("dim", [20, 200])  # more rows in a block than features, and fewer
def test_held_out_predictions_are_those_of_a_head_fitted_without_the_scene(dim, monkeypatch):
    rows, systems = make_rows(dim=dim), []
    original = ridge._System
    monkeypatch.setattr(ridge, "_System", lambda *parts: systems.append(original(*parts)) or systems[-1])
    head = fit_ridge(rows, 3, strength=0.7)
    (system,) = systems
    evaluated = np.flatnonzero(~rows.is_view)
    for scene in range(6):
        left_out = (rows.fold_ids == scene) | (rows.backgrounds == scene)
        own = evaluated[rows.fold_ids[evaluated] == scene]
        expected = system.rows[own] @ least_squares(system, np.flatnonzero(~left_out), 0.7)
        assert head.held_out_logits[own] == pytest.approx(ridge.LOGIT_SCALE * expected, abs=1e-8)
    coefficients = least_squares(system, np.arange(len(rows.fold_ids)), 0.7)
    assert head.logits(rows.features) == pytest.approx(ridge.LOGIT_SCALE * system.rows @ coefficients, abs=1e-8)


def test_classes_count_the_same_however_many_rows_they_have():
    rows = make_rows()
    keep = np.flatnonzero((rows.class_ids != 0) | (np.arange(len(rows.fold_ids)) % 4 == 0))
    few = rows.select(keep)
    head = fit_ridge(few, 3)
    recall = [(head.logits(few.features).argmax(1) == label)[few.class_ids == label].mean() for label in range(3)]
    assert min(recall) > max(recall) - 0.3


def test_images_weigh_as_much_as_their_views_and_outliers_half_of_a_class():
    rows = make_rows(views=3)
    outliers = replace(rows.select(rows.is_view & (rows.class_ids == 0)), class_ids=np.full(72, -1))
    both = rows + outliers
    weights = [both.weights[(both.class_ids == label)].sum() for label in range(-1, 3)]
    assert weights == pytest.approx(np.array([1, 2, 2, 2]) / 7)
    assert both.weights[~both.is_view].sum() == pytest.approx(3 / 7)


def test_outliers_get_low_scores_for_every_class():
    rows = make_rows(views=1)
    odd = replace(rows.select(rows.is_view), class_ids=np.full(72, -1), fold_ids=np.full(72, -1))
    odd = replace(odd, features=odd.features + np.linspace(3, 0, odd.features.shape[1], dtype=np.float32))
    with_outliers, without = fit_ridge(rows + odd, 3, outliers=True), fit_ridge(rows, 3)
    of_classes, of_outliers = np.split(with_outliers.logits(odd.features), [3], axis=1)
    assert of_classes.sum(1).mean() < 0.6 * without.logits(odd.features).sum(1).mean()
    assert of_outliers[:, 0] == pytest.approx(ridge.LOGIT_SCALE - of_classes.sum(1))  # all scores add up to 1
    assert len(with_outliers.held_out_logits) == len(without.held_out_logits) == 72


def test_scenes_of_minus_one_are_never_left_out():
    rows = make_rows()
    head = fit_ridge(replace(rows, fold_ids=np.where(rows.fold_ids < 2, -1, rows.fold_ids)), 3)
    assert len(head.held_out_logits) == 4 * 12


def test_it_is_deterministic_and_chooses_a_strength():
    first, again = fit_ridge(make_rows(), 3), fit_ridge(make_rows(), 3)
    assert (first.weight == again.weight).all()
    assert first.strength in ridge.STRENGTHS


def test_one_scene_leaves_nothing_to_judge_by():
    head = fit_ridge(make_rows(num_scenes=1), 3)
    assert (len(head.held_out_logits), head.strength) == (0, ridge.DEFAULT_STRENGTH)


def test_of_strengths_that_are_about_equal_the_usual_one_is_taken():
    noisy = [np.array([0.5, 0.9, 0.7]) + shift for shift in (0.0, 0.02, 0.01, -0.2)]
    assert ridge._choose(noisy, (0.1, 10.0, 1.5, 1.0)) == 2
    sure = [np.full(3, accuracy) for accuracy in (0.5, 0.9, 0.7)]
    assert ridge._choose(sure, (1.0, 10.0, 2.0)) == 1


def test_features_that_are_all_alike_are_no_error():
    rows = make_rows()
    alike = Rows(np.ones_like(rows.features), rows.class_ids, rows.fold_ids, rows.backgrounds, rows.is_view)
    assert np.isfinite(fit_ridge(alike, 3).logits(alike.features)).all()


@pytest.mark.parametrize("dim", [20, 200])
@pytest.mark.parametrize("max_dense_groups", [64, 0])  # all groups have products, or keep their rows while they are few
def test_rows_added_and_removed_give_the_head_of_those_that_are_left(dim, max_dense_groups, monkeypatch):
    monkeypatch.setattr(ridge_sums, "MAX_DENSE_GROUPS", max_dense_groups)
    rows = make_rows(dim=dim)
    outliers = make_rows(num_scenes=1, dim=dim, seed=1)
    nobody = np.full(len(outliers.fold_ids), -1)
    rows += Rows(outliers.features, nobody, nobody, nobody, nobody < 0)
    sums = IncrementalRidge(dim)
    for part in range(5):
        sums.add(rows.select(np.arange(len(rows.fold_ids)) % 5 == part))
    keep = np.random.default_rng(0).random(len(rows.fold_ids)) < 0.6
    sums.remove(rows.select(~keep))
    expected, head = fit_ridge(rows.select(keep), 3, 2.0, outliers=True), sums.fit(range(3), 2.0, outliers=True)
    assert head.weight == pytest.approx(expected.weight, abs=1e-9)
    assert head.bias == pytest.approx(expected.bias, abs=1e-9)
    sums.remove(rows.select(keep))
    assert sums.fit(range(3)).weight == pytest.approx(0, abs=1e-9)


def test_a_class_without_rows_scores_nothing():
    rows = make_rows()
    sums = IncrementalRidge(20)
    sums.add(rows.select(rows.class_ids > 0))
    assert sums.fit(range(3)).logits(rows.features)[:, 0] == pytest.approx(0)


@pytest.mark.parametrize("max_dense_groups", [64, 0])
def test_rows_of_classes_that_are_not_asked_for_do_not_matter(max_dense_groups, monkeypatch):
    monkeypatch.setattr(ridge_sums, "MAX_DENSE_GROUPS", max_dense_groups)
    rows, sums, fewer = make_rows(dim=400), IncrementalRidge(400), IncrementalRidge(400)
    sums.add(rows)
    assert any(group.products is None for group in sums._groups.values()) == (max_dense_groups == 0)
    fewer.add(rows.select(rows.class_ids != 1))
    assert sums.fit([2, 0]).weight == pytest.approx(fewer.fit(range(3)).weight[:, [2, 0]])


def test_many_rows_are_computed_in_chunks_with_the_same_result(monkeypatch):
    rows = make_rows()
    whole = fit_ridge(rows, 3)
    monkeypatch.setattr(ridge_inputs, "CHUNK", 50)
    assert len(rows.fold_ids) > 2 * 50
    chunked = fit_ridge(rows, 3)
    assert chunked.weight == pytest.approx(whole.weight, abs=1e-9)
    assert chunked.held_out_logits == pytest.approx(whole.held_out_logits, abs=1e-9)
    assert chunked.strength == whole.strength
