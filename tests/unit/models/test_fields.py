"""The input layer of ranking models: which columns share a table, what is averaged, which places are empty."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from feature_repo.contracts.signatures import Scope
from models.dataset import TRAIN, read_dataset
from models.encoding import build_encoder
from models.errors import BuildError
from models.ranking.base import encoded_inputs
from models.ranking.deep_crossing import DeepCrossing, DeepCrossingConfig
from models.ranking.fields import Fields
from models.ranking.nfm import NFM, NFMConfig

SIZE = 3


@pytest.fixture(scope="module")
def encoded(dataset):
    return build_encoder(dataset.signature, dataset.transforms)


@pytest.fixture(scope="module")
def rows(dataset, encoded):
    return encoded.run(dataset[TRAIN].take(np.arange(40)).features, dataset.signature)


@pytest.fixture
def fields(encoded):
    return Fields(encoded_inputs(encoded), encoded, 1, unknown_rate=0.3, l2=0.0)


def _values(fields, output, rows):
    """Return what a symbolic tensor is of these rows, and the model, whose weights can be read."""
    model = keras.Model(fields.inputs, output)
    return model(rows, training=False).numpy(), model


def _table(model, name):
    return next(layer for layer in model.layers if layer.name == name).get_weights()[0]


def _mean(table, indices):
    """Average the vectors of one row's terms by hand."""
    there = [index for index in np.atleast_1d(indices) if index]
    return np.mean([table[index] for index in there], axis=0) if there else np.zeros(table.shape[1])


def test_a_vector_per_field(fields, rows):
    vectors, model = _values(fields, fields.vectors(SIZE), rows)
    assert vectors.shape == (40, len(fields.names), SIZE)
    for place, (column, vocabulary) in enumerate(fields.encoded.categorical.items()):
        table = _table(model, f"{vocabulary}_embedding")
        expected = [_mean(table, indices) for indices in rows[column]]
        np.testing.assert_allclose(vectors[:, place], expected, atol=1e-6)
    weights, start = _table(model, "numbers_embedding"), 0
    for place, column in enumerate(fields.encoded.numeric, len(fields.encoded.categorical)):
        own = weights[start : start + rows[column].shape[1]]
        np.testing.assert_allclose(vectors[:, place], rows[column] @ own, atol=1e-5)
        start += len(own)
    assert start == len(weights)


def test_columns_of_one_vocabulary_share_a_table(fields, rows):
    _, model = _values(fields, fields.vectors(SIZE), rows)
    shared = [name for name in fields.encoded.categorical.values() if name == "item"]
    assert len(shared) > 1
    assert sum(layer.name == "item_embedding" for layer in model.layers) == 1


def test_a_weight_per_term_and_number(fields, rows):
    logits, model = _values(fields, fields.linear(2), rows)
    kernel, bias = next(layer for layer in model.layers if layer.name == "weight").get_weights()
    expected = np.concatenate([rows[name] for name in fields.encoded.numeric], axis=1) @ kernel + bias
    for column in fields.encoded.categorical:
        table = _table(model, f"{column}_weight")
        expected += [_mean(table, indices) for indices in rows[column]]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert (_values(fields, fields.linear(1, "alone"), rows)[1].get_layer("item_id_alone").get_weights()[0] == 0).all()


def test_weights_are_what_linear_sums(fields, rows):
    weights, model = _values(fields, fields.weights(), rows)
    assert weights.shape == (40, len(fields.names), 1)
    dice = np.random.default_rng(2)
    for layer in model.layers:
        layer.set_weights([dice.normal(size=each.shape) for each in layer.get_weights()])
    linear = _values(fields, fields.linear(), rows)[1]
    for layer in linear.layers:
        if layer.name == "weight":
            layer.set_weights([_table(model, "numbers_weight"), np.zeros(1)])
        elif layer.weights:
            layer.set_weights([_table(model, layer.name)])
    np.testing.assert_allclose(model(rows, training=False).numpy().sum(axis=1), linear(rows, training=False), atol=1e-4)


def test_a_field_has_a_vector_for_each_other(fields, rows):
    crossed, model = _values(fields, fields.crossed(SIZE), rows)
    count = len(fields.names)
    assert crossed.shape == (40, count, count, SIZE)
    column = next(iter(fields.encoded.categorical))
    table = _table(model, f"{column}_crossed").reshape(-1, count, SIZE)
    expected = [_mean(table.reshape(len(table), -1), indices).reshape(count, SIZE) for indices in rows[column]]
    np.testing.assert_allclose(crossed[:, 0], expected, atol=1e-6)


def test_flat_has_the_terms_then_the_numbers_and_a_size_per_field(encoded, fields, rows):
    sized = Fields(encoded_inputs(encoded), encoded, 1, unknown_rate=0.3, l2=0.0, sizes={"item_id": 5})
    flat, _ = _values(sized, sized.flat(SIZE), rows)
    numbers = np.concatenate([rows[name] for name in fields.encoded.numeric], axis=1)
    assert flat.shape[1] == SIZE * (len(fields.encoded.categorical) - 1) + 5 + numbers.shape[1]
    np.testing.assert_allclose(flat[:, -numbers.shape[1] :], numbers)


def test_a_config_says_which_columns_have_sizes_of_their_own(encoded):
    model = DeepCrossing(DeepCrossingConfig(embedding_size=SIZE, sizes={"item_id": 7}))
    tables = {layer.name: layer.output_dim for layer in _tables(model.build(encoded, 1))}
    assert tables["item_id_own_embedding"] == 7
    assert tables["item_embedding"] == SIZE, "the history's, which shares the vocabulary"
    with pytest.raises(
        BuildError, match=r"sizes of \['no_such'\]: expected columns of terms, received none such among"
    ):
        DeepCrossing(DeepCrossingConfig(sizes={"no_such": 7})).build(encoded, 1)
    with pytest.raises(BuildError, match=r"sizes of \['item_id'\]: expected none for model nfm"):
        NFM(NFMConfig(sizes={"item_id": 7})).build(encoded, 1)


def _tables(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Embedding)]


def test_the_user_and_the_item_alone(fields, rows):
    for scope, own, other in (
        (Scope.USER, "user_event_count", "item_event_count"),
        (Scope.ITEM, "item_event_count", 0),
    ):
        values, model = _values(fields, fields.of(scope, SIZE, f"{scope.value}_only"), rows)
        read = _read(model)
        assert own in read
        assert other not in read
        assert values.shape[0] == 40


def _read(model):
    """Return the names of the inputs that something in the graph takes."""
    taken = {id(each) for nodes in model._nodes_by_depth.values() for node in nodes for each in node.input_tensors}
    return {each.name for each in model.inputs if id(each) in taken}


def test_the_history_has_zeros_and_no_mask_where_there_is_no_item(fields, rows):
    history = fields.history(SIZE)
    found = [_values(fields, each, rows)[0] for each in (history.items, history.mask, history.candidate)]
    items, mask, candidate = found
    there = rows["user_last_items"] != 0
    np.testing.assert_array_equal(mask, there.astype(np.float32))
    assert (items[~there] == 0).all()
    assert (np.abs(items[there]).sum(axis=-1) > 0).all()
    assert candidate.shape == (40, SIZE)


def test_columns_that_are_not_there_are_named(namespace):
    dataset = read_dataset(namespace.training_sets / "toy", features=("item_event_count",))
    alone = build_encoder(dataset.signature, dataset.transforms)
    fields = Fields(encoded_inputs(alone), alone.reading(()), 1, unknown_rate=0.0, l2=0.0)
    with pytest.raises(BuildError, match="expected columns of the user, received"):
        fields.of(Scope.USER, SIZE)
    with pytest.raises(BuildError, match="expected a list of the user's and a term of the item's of one vocabulary"):
        fields.history(SIZE)
