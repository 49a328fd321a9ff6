"""Models that cross fields: each layer beside loops over its equation, and models that are simpler ones in part."""

from __future__ import annotations

from itertools import combinations

import keras
import numpy as np
import pytest
from keras import ops

from models.dataset import TRAIN, VALID
from models.encoding import build_encoder
from models.errors import BuildError
from models.evaluation.metrics import auc
from models.layers.attention_pooling import AttentionPooling
from models.layers.bilinear_fusion import BilinearFusion
from models.layers.compressed_interactions import CompressedInteractions
from models.layers.cross import MatrixCross, VectorCross
from models.layers.factorization_machine import bi_interaction
from models.layers.field_attention import FieldAttention
from models.layers.field_aware_products import FieldAwareProducts
from models.layers.grouped_numbers import GroupedNumbers
from models.layers.hashed_crosses import HashedCrosses
from models.layers.mask_block import MaskBlock
from models.layers.mixture_logit import MixtureLogit
from models.layers.pairwise_products import InnerProducts, PairwiseProducts
from models.layers.residual_unit import ResidualUnit
from models.ranking.base import KerasConfig, KerasModel, encoded_inputs
from models.ranking.catalogue import RANKING_MODELS
from models.ranking.wide_deep import WideDeep, WideDeepConfig, is_wide
from models.training.fit import FitContext
from models.training.keras_loop import FitConfig
from tests.gradients import unreached

BATCH, FIELDS, SIZE = 5, 4, 3


@pytest.fixture
def vectors():
    return np.random.default_rng(3).normal(size=(BATCH, FIELDS, SIZE)).astype(np.float32)


@pytest.fixture
def values():
    return np.random.default_rng(4).normal(size=(BATCH, 6)).astype(np.float32)


def _called(layer, *inputs):
    """Return what a layer makes of its inputs, and its weights by name, drawn anew so that no bias is 0."""
    layer(*inputs)
    dice = np.random.default_rng(5)
    for weight in layer.weights:
        weight.assign(dice.normal(size=weight.shape))
    return np.array(layer(*inputs)), {weight.path.split("/", 1)[-1]: weight.numpy() for weight in layer.weights}


def _sigmoid(value):
    return 1 / (1 + np.exp(-value))


def _relu(value):
    return np.maximum(value, 0)


def test_products_of_every_pair(vectors):
    pairs = list(combinations(range(FIELDS), 2))
    expected = [[row[i] * row[j] for i, j in pairs] for row in vectors]
    np.testing.assert_allclose(PairwiseProducts()(vectors), expected, rtol=1e-5)
    inner = [[row[i] @ row[j] for i, j in pairs] for row in vectors]
    np.testing.assert_allclose(InnerProducts()(vectors), inner, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bi_interaction(vectors), np.sum(expected, axis=1), rtol=1e-4, atol=1e-5)


def test_field_aware_products():
    crossed = np.random.default_rng(6).normal(size=(BATCH, FIELDS, FIELDS, SIZE)).astype(np.float32)
    expected = [[sum(row[i, j] @ row[j, i] for i, j in combinations(range(FIELDS), 2))] for row in crossed]
    np.testing.assert_allclose(FieldAwareProducts()(crossed), expected, rtol=1e-4, atol=1e-5)


def test_grouped_numbers(values):
    layer = GroupedNumbers((2, 1, 3), SIZE)
    received, weights = _called(layer, values)
    groups = [(0, 2), (2, 3), (3, 6)]
    expected = [[sum(row[n] * weights["vectors"][n] for n in range(*group)) for group in groups] for row in values]
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_hashed_crosses_average_lists_and_leave_missing_terms_out():
    one, many = np.array([3, 0, 2]), np.array([[4, 5, 0], [4, 0, 0], [0, 0, 0]])
    layer = HashedCrosses([(0, 1)], buckets=1 << 20)
    received, weights = _called(layer, [ops.convert_to_tensor(one), ops.convert_to_tensor(many)])
    (table,) = weights.values()

    def weight(first, second):
        return table[(first * 2_654_435_761 + second * 2_246_822_519) % (1 << 20)]

    expected = [[(weight(3, 4) + weight(3, 5)) / 2], [0], [0]]
    np.testing.assert_allclose(received, expected, rtol=1e-5)
    pairs = {(i * 2_654_435_761 + j * 2_246_822_519) % (1 << 16) for i in range(2, 40) for j in range(2, 40)}
    assert len(pairs) > 38 * 38 * 0.97, "few of 1,444 crosses meet among 65,536 weights"


def test_a_mixture_of_logistic_regressions():
    dice = np.random.default_rng(7)
    gates, logits = (dice.normal(size=(BATCH, 4)).astype(np.float32) * 3 for _ in range(2))
    shares = np.exp(gates) / np.exp(gates).sum(axis=1, keepdims=True)
    probability = (shares * _sigmoid(logits)).sum(axis=1)
    np.testing.assert_allclose(_sigmoid(np.array(MixtureLogit()(gates, logits))[:, 0]), probability, rtol=1e-5)
    far = np.array(MixtureLogit()(gates, np.full_like(logits, 90.0)))
    np.testing.assert_allclose(far, 90, rtol=1e-5, err_msg="neither a probability of 1 nor its complement is lost")


def test_residual_unit(values):
    received, weights = _called(ResidualUnit(4), values)
    hidden = _relu(values @ weights["inner/kernel"] + weights["inner/bias"])
    expected = _relu(values + hidden @ weights["outer/kernel"] + weights["outer/bias"])
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_attention_pooling(vectors):
    received, weights = _called(AttentionPooling(2), vectors)
    expected = []
    for row in vectors:
        worth = [
            float((_relu(each @ weights["hidden/kernel"] + weights["hidden/bias"]) @ weights["worth/kernel"])[0])
            for each in row
        ]
        shares = np.exp(worth) / np.exp(worth).sum()
        expected.append(sum(share * each for share, each in zip(shares, row, strict=True)))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_cross_by_a_vector(values):
    first = values[::-1].copy()
    received, weights = _called(VectorCross(), first, values)
    expected = [
        x0 * float(x @ weights["kernel"][:, 0]) + weights["bias"] + x for x0, x in zip(first, values, strict=True)
    ]
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("gated", [False, True])
def test_cross_by_a_matrix(values, rank, gated):
    first = values[::-1].copy()
    received, weights = _called(MatrixCross(rank, gated=gated), first, values)
    matrix = weights["narrow/kernel"] @ weights["wide/kernel"] if rank else weights["wide/kernel"]
    expected = []
    for x0, x in zip(first, values, strict=True):
        crossed = x0 * (x @ matrix + weights["wide/bias"])
        expected.append(crossed * (_sigmoid(x @ weights["gate/kernel"]) if gated else 1) + x)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_compressed_interactions(vectors):
    before = np.random.default_rng(8).normal(size=(BATCH, 2, SIZE)).astype(np.float32)
    received, weights = _called(CompressedInteractions(3), before, vectors)
    kernel = weights["kernel"].reshape(2, FIELDS, 3)
    expected = np.zeros((BATCH, 3, SIZE))
    for row in range(BATCH):
        for h in range(3):
            for i in range(2):
                for j in range(FIELDS):
                    expected[row, h] += kernel[i, j, h] * before[row, i] * vectors[row, j]
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("deep", [False, True])
def test_field_attention(deep, vectors):
    heads, size = 2, 3
    received, weights = _called(FieldAttention(heads, size, scaled=deep, normalised=deep, dropout=0.5 * deep), vectors)
    for row in range(BATCH):
        for field in range(FIELDS):
            found = []
            for head in range(heads):
                own = slice(head * size, (head + 1) * size)
                query, keys, shown = (
                    vectors[row] @ weights[f"{name}/kernel"][:, own] for name in ("query", "key", "value")
                )
                worth = np.array([query[field] @ key for key in keys]) / (np.sqrt(size) if deep else 1)
                shares = np.exp(worth - worth.max()) / np.exp(worth - worth.max()).sum()
                found.append(sum(share * each for share, each in zip(shares, shown, strict=True)))
            whole = np.concatenate(found) + vectors[row, field] @ weights["residual/kernel"]
            if deep:
                whole = (whole - whole.mean()) / np.sqrt(whole.var() + 1e-5) * weights["norm/gamma"]
                whole += weights["norm/beta"]
            np.testing.assert_allclose(received[row, field], _relu(whole), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layer", [FieldAttention(2, 3, dropout=0.5), AttentionPooling(2, 0.5)])
def test_attention_is_dropped_in_training_alone(layer, vectors):
    assert np.array_equal(layer(vectors), layer(vectors))
    assert not np.array_equal(layer(vectors, training=True), layer(vectors, training=True))
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_bilinear_fusion():
    dice = np.random.default_rng(9)
    x, y = dice.normal(size=(BATCH, 4)).astype(np.float32), dice.normal(size=(BATCH, 6)).astype(np.float32)
    received, weights = _called(BilinearFusion(2), x, y)
    for row in range(BATCH):
        expected = x[row] @ weights["first/kernel"] + weights["first/bias"] + y[row] @ weights["second/kernel"]
        for head in range(2):
            expected = (
                expected + x[row, 2 * head : 2 * head + 2] @ weights["kernel"][head] @ y[row, 3 * head : 3 * head + 3]
            )
        np.testing.assert_allclose(received[row], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="expected widths that 3 heads divide, received 4 and 6"):
        BilinearFusion(3)(x, y)


def test_mask_block(values):
    row = np.random.default_rng(10).normal(size=(BATCH, 4)).astype(np.float32)
    received, weights = _called(MaskBlock(3, reduction=0.5), values, row)
    inner = _relu(row @ weights["aggregation/kernel"] + weights["aggregation/bias"])
    assert inner.shape[1] == 2
    mask = inner @ weights["projection/kernel"] + weights["projection/bias"]
    hidden = (mask * values) @ weights["hidden/kernel"]
    normal = (hidden - hidden.mean(axis=1, keepdims=True)) / np.sqrt(hidden.var(axis=1, keepdims=True) + 1e-3)
    expected = _relu(normal * weights["norm/gamma"] + weights["norm/beta"])
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def encoded(dataset):
    return build_encoder(dataset.signature, dataset.transforms)


@pytest.fixture(scope="module")
def rows(dataset, encoded):
    return encoded.run(dataset[TRAIN].take(np.arange(60)).features, dataset.signature)


def _built(name, encoded, **config):
    """Return the untrained graph of a model, its weights drawn so that every part says something."""
    model_class = RANKING_MODELS[name]
    scorer = model_class(model_class.config_class(**config)).build(encoded, seed=1)
    dice = np.random.default_rng(11)
    for weight in scorer.trainable_weights:
        weight.assign(dice.normal(scale=0.3, size=weight.shape))
    return scorer


def _take_over(scorer, other):
    """Give a graph the weights of another's layers of the same names."""
    known = {layer.name: layer for layer in other.layers}
    for layer in scorer.layers:
        if layer.name in known:
            layer.set_weights(known[layer.name].get_weights())


@pytest.mark.parametrize("name", ["fm", "ffm"])
def test_a_factorisation_machine_with_zero_vectors_is_logistic_regression(name, encoded, rows):
    scorer, linear = _built(name, encoded), _built("lr", encoded)
    _take_over(scorer, linear)
    assert not np.allclose(scorer(rows), linear(rows))
    for layer in scorer.layers:
        if layer.name.endswith(("_embedding", "_crossed")):
            layer.set_weights([np.zeros_like(each) for each in layer.get_weights()])
    np.testing.assert_allclose(scorer(rows), linear(rows), atol=1e-5)


def test_neumf_without_its_perceptron_is_gmf(encoded, rows):
    scorer, product = _built("neumf", encoded), _built("gmf", encoded)
    known = {layer.name: layer for layer in product.layers}
    for layer in scorer.layers:
        if layer.name == "logit":
            kernel, bias = known["logit"].get_weights()
            whole = np.zeros_like(layer.get_weights()[0])
            whole[: len(kernel)] = kernel
            layer.set_weights([whole, bias])
        elif layer.name in known:
            layer.set_weights(known[layer.name].get_weights())
    np.testing.assert_allclose(scorer(rows), product(rows), atol=1e-5)


_OF_FIELDS = [
    name for name, model in RANKING_MODELS.items() if issubclass(model, KerasModel) and "history" not in model.inputs
]
"""Those of histories have such a test of their own, with histories of every length."""


@pytest.mark.parametrize("name", _OF_FIELDS)
def test_gradients_reach_every_weight(name, encoded, rows):
    scorer = _built(name, encoded)
    assert scorer.trainable_weights
    assert unreached(scorer, rows) == []


def test_wide_and_deep_parts_have_optimisers_of_their_own(encoded, rows, dataset):
    model = WideDeep(WideDeepConfig(wide_l1=1000))
    scorer = model.build(encoded, seed=1)
    deep = {weight.path: weight.numpy().copy() for weight in scorer.trainable_weights if not is_wide(weight.path)}
    scorer.compile(optimizer=model.optimizer(), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    scorer.fit(rows, dataset[TRAIN].labels[:60], epochs=2, batch_size=20, verbose=0)
    wide = [weight for weight in scorer.trainable_weights if is_wide(weight.path)]
    assert {"wide/kernel", "item_id_wide/embeddings"} <= {weight.path for weight in wide}
    assert all((weight.numpy() == 0).all() for weight in wide), "FTRL's L1 keeps all at 0"
    moved = {path for path, before in deep.items() if not np.array_equal(before, _weight(scorer, path))}
    assert moved == deep.keys()
    assert int(scorer.optimizer.iterations) == 6


def _weight(scorer, path):
    return next(weight.numpy() for weight in scorer.trainable_weights if weight.path == path)


def test_parts_take_the_steps_that_they_would_take_alone():
    def step(optimizer):
        both = []
        for layer in ("item_id_wide", "deep_0"):
            with keras.name_scope(layer):
                both.append(keras.Variable(np.ones(3, np.float32), name="kernel"))
        optimizer.build(both)
        for _ in range(3):
            optimizer.apply([ops.ones(3) * 0.5, ops.ones(3) * 2.0], both)
        return [each.numpy() for each in both]

    config = WideDeepConfig(wide_learning_rate=0.1, wide_l1=0.01, fit={"learning_rate": 0.2})
    first, second = step(WideDeep(config).optimizer())
    np.testing.assert_allclose(first, step(keras.optimizers.Ftrl(0.1, l1_regularization_strength=0.01))[0])
    np.testing.assert_allclose(second, step(keras.optimizers.Adam(0.2))[1])


def test_both_parts_are_slowed_and_their_gradients_shortened(dataset):
    fit = FitConfig(batch_size=512, epochs=3, patience=3, learning_rate=1e-9, plateau_factor=0.5, clip_norm=2.0)
    model = WideDeep(WideDeepConfig(fit=fit, wide_learning_rate=1e-9))
    given = FitContext(dataset.signature, dataset.transforms, dataset[TRAIN], dataset[VALID], seed=1)
    optimizer = model.fit(given).scorer.optimizer
    rates = {type(each).__name__: float(each.learning_rate) for each in optimizer.optimizers}
    assert rates.keys() == {"Ftrl", "Adam"}
    assert max(rates.values()) <= 0.5e-9, "passes that change nothing are no better"
    assert {each.global_clipnorm for each in optimizer.optimizers} == {2.0}


def test_one_optimiser_fits_both_parts_where_ftrl_has_no_rate():
    optimizer = WideDeep(WideDeepConfig(wide_learning_rate=0, fit={"learning_rate": 0.2})).optimizer()
    assert (type(optimizer), float(optimizer.learning_rate)) == (keras.optimizers.Adam, pytest.approx(0.2))


def test_the_perceptron_of_dlrm_sees_vectors_where_it_is_told_to(encoded, rows):
    wide, narrow = (_built("dlrm", encoded, interaction=each) for each in ("vectors", "products"))
    fields = len(encoded.reading(()).categorical) + 1
    widths = [each.get_layer("deep_0").kernel.shape[0] for each in (wide, narrow)]
    assert widths == [fields * 8, fields * (fields - 1) // 2 + 8]
    assert unreached(wide, rows) == []


def test_the_pooled_pairs_have_a_dropout_of_their_own(encoded):
    rates = [
        _built("nfm", encoded, dropout=0.4, **given).get_layer("pooled_dropout").rate
        for given in ({}, {"pooled_dropout": 0})
    ]
    assert rates == [0.4, 0]


def test_what_is_normalised_is_known_after_a_short_epoch(encoded, rows):
    scorer = _built("dcn", encoded, batch_norm=True, unknown_rate=0)
    for _ in range(50):
        scorer(rows, training=True)
    norm = scorer.get_layer("deep_0_norm")
    seen = keras.Model(scorer.input, norm.input)(rows).numpy()
    np.testing.assert_allclose(norm.moving_mean, seen.mean(axis=0), rtol=0.3, atol=0.1)
    assert norm.epsilon == 1e-5, "first vectors are small"


def test_the_fit_stops_by_the_auc_of_rows_that_a_model_is_sure_of(dataset):
    class Sure(KerasModel):
        name = "sure"

        def build(self, encoded, seed):  # noqa: ARG002 - as the fit calls it
            inputs = encoded_inputs(encoded)
            weight = keras.layers.Embedding(encoded.vocabulary_sizes[encoded.categorical["item_id"]], 1)(
                inputs["item_id"]
            )
            return keras.Model(inputs, 40.0 + weight)

    config = KerasConfig(fit=FitConfig(epochs=1, stop_by="auc"))
    given = FitContext(dataset.signature, dataset.transforms, dataset[TRAIN], dataset[VALID], seed=1)
    fitted = Sure(config).fit(given)
    scores = fitted.scorer.predict(fitted.encoded.run(dataset[VALID].features, dataset.signature), verbose=0)
    assert fitted.history["val_auc"] == [pytest.approx(auc(dataset[VALID].labels, scores.ravel()), abs=1e-9)]
    assert fitted.history["val_auc"] != [0.5]


def test_crosses_of_columns_that_are_not_there_are_refused(encoded):
    with pytest.raises(BuildError, match=r"crosses of \['no_such'\]: expected columns of terms among .*item_id"):
        WideDeep(WideDeepConfig(crosses=(("item_id", "no_such"),))).build(encoded, seed=1)
