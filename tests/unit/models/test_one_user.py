"""What depends on the user alone is computed of one row, whatever the model's graph looks like."""

from __future__ import annotations

import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from feature_repo.contracts.objectives import TAKEN_AND_LIKED
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, ROWS_SIGNATURE, Scope, ranking
from models.dataset import TEST
from models.encoding import build_encoder
from models.errors import ExportError
from models.export import Exported, export
from models.inputs import to_tensors
from models.one_user import call_for_one_user
from models.ranking.base import encoded_inputs
from models.ranking.catalogue import RANKING_MODELS
from models.saved_model_loader import load_saved_model
from models.training.fit import Fitted
from tests.movielens import MOVIELENS, RANKING

WIDTH, LENGTH, CANDIDATES = 4, 10, 7
USERS = frozenset(column.name for column in RANKING.scoped(Scope.USER))


class _Seen(keras.layers.Layer):
    """Writes down how many rows it sees, each time that the graph runs."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def call(self, values):
        seen = tf.numpy_function(lambda rows: self.rows.append(int(rows)) or rows, [tf.shape(values)[0]], tf.int32)
        with tf.control_dependencies([seen]):
            return tf.identity(values)


class _PlacesFirst(keras.layers.Layer):
    """`[batch, places, WIDTH]` → `[places * batch, WIDTH]`: by its shape, it might be a batch."""

    def call(self, values):
        return ops.reshape(ops.transpose(values, (1, 0, 2)), (-1, WIDTH))


@pytest.fixture(scope="module")
def encoded(dataset):
    keras.utils.set_random_seed(3)
    return build_encoder(dataset.signature, dataset.transforms)


def _embedding(encoded, vocabulary, **options):
    start = keras.initializers.RandomNormal(stddev=1.0)
    return keras.layers.Embedding(encoded.vocabulary_sizes[vocabulary], WIDTH, start, **options)


def _scorer(encoded, build):
    """Return the model whose last hidden values `build` makes of inputs, items' and genres' embeddings."""
    inputs = encoded_inputs(encoded)
    hidden = build(inputs, _embedding(encoded, "item"), _embedding(encoded, "genres"))
    return keras.Model(inputs, keras.layers.Dense(1)(hidden))


def _request(dataset, candidates=CANDIDATES):
    """Return one request, of a user with a short history, and the same with the user repeated."""
    lengths = (dataset[TEST].features["user_last_items"] != "").sum(axis=1)
    (short,) = np.nonzero(lengths == LENGTH // 2)
    rows = dataset[TEST].take(np.arange(short[0], short[0] + candidates) % dataset[TEST].rows).features
    alone = {name: values[:1] if name in USERS else values for name, values in rows.items()}
    repeated = {name: np.repeat(values, candidates // len(values), axis=0) for name, values in alone.items()}
    return to_tensors(alone, RANKING), to_tensors(repeated, RANKING)


def _both(encoded, scorer, dataset):
    """Return the scores of both signatures."""
    functions = Exported(Fitted(encoded, scorer), RANKING).functions()
    alone, repeated = _request(dataset)
    return (
        functions[ONE_USER_SIGNATURE](**alone)["score"].numpy(),
        functions[ROWS_SIGNATURE](**repeated)["score"].numpy(),
    )


def _recurrent(inputs, items, genres):
    history = keras.layers.GRU(WIDTH)(items(inputs["user_last_items"]))
    return ops.concatenate([history, items(inputs["item_id"])], axis=-1)


def _masked_attention(inputs, items, genres):
    """The items' embedding says where a history ends, by Keras's mask, to an attention that the candidate asks."""
    masked = keras.layers.Embedding(items.input_dim, WIDTH, keras.initializers.RandomNormal(stddev=1.0), mask_zero=True)
    query = ops.expand_dims(items(inputs["item_id"]), 1)
    return keras.layers.Attention()([query, masked(inputs["user_last_items"])])[:, 0]


def _stacked(inputs, items, genres):
    """Columns are stacked along a new first axis, where the candidate meets them."""
    last, genre = items(inputs["user_last_items"])[:, 0], genres(inputs["user_top_genres"])[:, 0]
    return ops.sum(ops.stack([last, genre]) * ops.expand_dims(items(inputs["item_id"]), 0), axis=0)


def _stacked_alone(inputs, items, genres):
    """The same of one column: the first axis has one row, and is none of the batch."""
    last = items(inputs["user_last_items"])[:, 0]
    return ops.sum(ops.stack([last]) * ops.expand_dims(items(inputs["item_id"]), 0), axis=0)


def _flattened(inputs, items, genres):
    """Places of lists become rows, one place of all rows after the other; and rows become a batch again."""
    liked, offered = items(inputs["user_last_items"])[:, :3], genres(inputs["item_genres"])
    product = _PlacesFirst()(liked) * _PlacesFirst()(offered)
    return ops.reshape(ops.transpose(ops.reshape(product, (3, -1, WIDTH)), (1, 0, 2)), (-1, 3 * WIDTH))


def _user_alone(inputs, items, genres):
    return keras.layers.Flatten()(items(inputs["user_last_items"]))


def _item_alone(inputs, items, genres):
    return items(inputs["item_id"])


def _nested(inputs, items, genres):
    """A model within the model takes both."""
    some = keras.Input((WIDTH,), name="some"), keras.Input((WIDTH,), name="other")
    inner = keras.Model(some, keras.layers.Dense(WIDTH)(some[0]) * some[1])
    return inner([items(inputs["user_last_items"])[:, 0], items(inputs["item_id"])])


def _several_outputs(inputs, items, genres):
    """An operation has two outputs, one of which is unlike a batch of rows."""
    first, *_ = ops.split(items(inputs["user_last_items"]), 2, axis=1)
    return ops.concatenate([ops.sum(first, axis=1), items(inputs["item_id"])], axis=-1)


GRAPHS = {
    "recurrent": _recurrent,
    "masked attention": _masked_attention,
    "stacked": _stacked,
    "stacked alone": _stacked_alone,
    "flattened": _flattened,
    "user alone": _user_alone,
    "item alone": _item_alone,
    "nested": _nested,
    "several outputs": _several_outputs,
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_both_signatures_agree(graph, encoded, dataset):
    one_user, rows = _both(encoded, _scorer(encoded, GRAPHS[graph]), dataset)
    assert one_user.shape == (CANDIDATES,)
    np.testing.assert_allclose(one_user, rows, atol=1e-6)
    assert (len(np.unique(rows)) > 1) == (graph != "user alone")


def test_a_model_that_is_no_graph_of_keras_gets_the_user_repeated(encoded, dataset):
    class Plain(keras.Model):
        def call(self, columns):
            return columns["user_age"][:, :1] * columns["item_value_mean"][:, :1]

    one_user, rows = _both(encoded, Plain(), dataset)
    np.testing.assert_allclose(one_user, rows, atol=1e-6)
    assert len(np.unique(rows)) > 1


def test_the_users_part_sees_one_row_and_the_rest_sees_every_candidate(encoded, dataset):
    before, between, after = _Seen(), _Seen(), _Seen()

    def build(inputs, items, genres):
        history = between(keras.layers.GRU(WIDTH)(before(items(inputs["user_last_items"]))))
        return after(ops.concatenate([history, items(inputs["item_id"])], axis=-1))

    one_user, rows = _both(encoded, _scorer(encoded, build), dataset)
    np.testing.assert_allclose(one_user, rows, atol=1e-6)
    assert before.rows == between.rows == [1, CANDIDATES], "one_user was called first"
    assert after.rows == [CANDIDATES, CANDIDATES]


@pytest.mark.parametrize("name", ["deepfm", "lr"])
def test_our_models_look_the_users_embeddings_up_once(name, encoded):
    model_class = RANKING_MODELS[name]
    model = model_class(model_class.config_class())
    function = Exported(Fitted(encoded, model.build(encoded, 1)), RANKING).functions()[ONE_USER_SIGNATURE]
    lookups = [each for each in function.graph.get_operations() if each.type == "GatherV2"]
    rows = [each.outputs[0].shape[0] for each in lookups if each.inputs[0].op.type == "ReadVariableOp"]
    read = [encoded.scopes[column] for column in model.reading(encoded).categorical]
    for_each = len(rows) // len(read)
    assert for_each >= 1
    assert rows.count(1) == for_each * read.count(Scope.USER)
    assert rows.count(None) == for_each * read.count(Scope.ITEM)


def test_the_users_part_of_each_head_sees_one_row(encoded, dataset):
    seen = []

    class TwoHeads(RANKING_MODELS["lr"]):
        def build(self, encoded, seed):  # noqa: ARG002 - as all models have it
            inputs = encoded_inputs(encoded)
            seen.append((_Seen(), _Seen()))
            user, item = (
                each(inputs[name]) for each, name in zip(seen[-1], ("user_age", "item_value_mean"), strict=True)
            )
            return keras.Model(inputs, keras.layers.Dense(1)(ops.concatenate([user * item, item], axis=-1)))

    model = TwoHeads(RANKING_MODELS["lr"].config_class())
    scorer = model.build_heads(encoded, 1, TAKEN_AND_LIKED.heads)
    exported = Exported(Fitted(encoded, scorer), ranking(MOVIELENS, objective=TAKEN_AND_LIKED)).functions()
    one, many = _request(dataset, CANDIDATES)
    one_user = exported[ONE_USER_SIGNATURE](**one)["score"]
    np.testing.assert_allclose(one_user, exported[ROWS_SIGNATURE](**many)["score"], atol=1e-6)
    assert [user.rows for user, _ in seen] == [[1, CANDIDATES], [1, CANDIDATES]], "one_user was called first"
    assert [item.rows for _, item in seen] == [[CANDIDATES, CANDIDATES], [CANDIDATES, CANDIDATES]]


def test_a_users_row_that_several_operations_ask_for_is_repeated_once(encoded, dataset):
    def build(inputs, items, genres):
        age = inputs["user_age"]
        return ops.concatenate([age * inputs["item_value_mean"], age + inputs["item_event_count"]], axis=-1)

    function = Exported(Fitted(encoded, _scorer(encoded, build)), RANKING).functions()[ONE_USER_SIGNATURE]
    tiles = [each for each in function.graph.get_operations() if each.type == "Tile"]
    assert len(tiles) == 1


def test_two_hundred_candidates_cost_one_pass_over_a_history(dataset, encoded, tmp_path):
    """A GRU over a history is run once, not once per candidate."""

    def build(inputs, items, genres):
        history = keras.layers.GRU(64)(ops.tile(items(inputs["user_last_items"]), (1, 5, 32)))
        return ops.concatenate([history, items(inputs["item_id"])], axis=-1)

    export(Fitted(encoded, _scorer(encoded, build)), RANKING, tmp_path / "saved_model")
    loaded = load_saved_model(tmp_path / "saved_model")
    one, many = _request(dataset, 1)[0], _request(dataset, 200)
    calls = {
        "one": lambda: loaded.signatures[ONE_USER_SIGNATURE](**one),
        "many": lambda: loaded.signatures[ONE_USER_SIGNATURE](**many[0]),
        "rows": lambda: loaded.signatures[ROWS_SIGNATURE](**many[1]),
    }
    np.testing.assert_allclose(calls["many"]()["score"], calls["rows"]()["score"], atol=1e-6)
    seconds = {name: min(_seconds(call) for _ in range(12)) for name, call in calls.items()}
    assert seconds["many"] < seconds["one"] + (seconds["rows"] - seconds["one"]) / 3, seconds


def _seconds(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def test_an_input_that_is_no_encoded_column_is_named(encoded):
    inputs = {"user_ages": keras.Input((2,), name="user_ages")}
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["user_ages"]), name="mistyped")
    with pytest.raises(ExportError, match=r"model mistyped: expected inputs among .*received \['user_ages'\]"):
        call_for_one_user(model, {"user_age": tf.zeros((1, 2))}, {"user_age"}, tf.constant(3))
