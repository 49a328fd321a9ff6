"""DIN, DIEN, BST and DSIN: their layers and their graphs against loops that follow the papers."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf

from feature_repo.contracts.signatures import ONE_USER_SIGNATURE
from models.dataset import TRAIN
from models.encoding import build_encoder
from models.errors import BuildError
from models.evaluation.golden import golden_requests
from models.export import Exported, export
from models.inputs import tensor_specs
from models.layers.attentional_gru import AttentionalGRU
from models.layers.bias_encoding import BiasEncoding
from models.layers.dice import Dice
from models.layers.local_activation_unit import LocalActivationUnit
from models.layers.masked_attention import MaskedAttention
from models.layers.masked_softmax import MaskedSoftmax
from models.layers.next_item_loss import NextItemLoss
from models.layers.sequence_ages import AGE_COUNT, NOW_INDEX
from models.layers.session_division import SessionDivision
from models.ranking.bst import BST
from models.ranking.catalogue import RANKING_MODELS
from models.ranking.dien import DIEN
from models.ranking.din import DIN
from models.ranking.dsin import DSIN
from models.saved_model_loader import SavedModel
from models.sequences import LAST, LONGEST
from models.training.fit import Fitted
from tests.saved_model_session import answers

SIZE = 4
_COLUMNS = (LONGEST.items, LONGEST.types, LONGEST.times, LONGEST.values, LONGEST.sessions)
KNOWN = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], np.float32)
"""Full, with padding anywhere, of one item, and empty."""
MODELS = {"din": DIN, "dien": DIEN, "bst": BST, "dsin": DSIN}


@pytest.fixture
def random():
    return np.random.default_rng(5)


def _normal(random, *shape):
    return random.normal(size=shape).astype(np.float32)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _scramble(model, random, scale=0.7):
    """Give weights values that show: first weights are so small that much could go wrong unseen."""
    for weight in model.trainable_weights:
        weight.assign(scale * random.normal(size=weight.shape))


# Layers


def _dice(values, mean, variance, alpha):
    received = np.empty_like(values)
    for place in np.ndindex(values.shape):
        unit = place[-1]
        p = _sigmoid((values[place] - mean[unit]) / np.sqrt(variance[unit] + 1e-8))
        received[place] = p * values[place] + (1 - p) * alpha[unit] * values[place]
    return received


def test_dice_bends_where_the_batch_says(random):
    values = 3 * _normal(random, 4, 4, 2) + 1
    layer = Dice()
    layer.build(values.shape)
    layer.alpha.assign([0.25, -0.5])
    there = values[KNOWN == 1]
    mean, variance = there.mean(axis=0), there.var(axis=0)
    expected = _dice(values, mean, variance, [0.25, -0.5])
    values[KNOWN == 0] *= 10  # padding is out of the averages
    received = layer(values, KNOWN, training=True).numpy()
    np.testing.assert_allclose(received[KNOWN == 1], expected[KNOWN == 1], rtol=1e-4, atol=1e-5)
    averages = 0.1 * mean, 0.9 + 0.1 * variance
    later = layer(values).numpy()
    np.testing.assert_allclose(later, _dice(values, *averages, [0.25, -0.5]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(values[1:2]).numpy(), later[1:2], rtol=1e-5, atol=1e-6)


def test_dice_over_rows_takes_all_of_them(random):
    values = _normal(random, 50, 3)
    expected = _dice(values, values.mean(axis=0), values.var(axis=0), [0.0] * 3)
    np.testing.assert_allclose(Dice()(values, training=True).numpy(), expected, atol=1e-5)
    alike = tf.constant(np.ones((5, 1), np.float32))
    with tf.GradientTape() as tape:
        tape.watch(alike)
        received = Dice()(alike, training=True)
    np.testing.assert_allclose(received.numpy(), 0.5)
    assert np.isfinite(tape.gradient(received, alike).numpy()).all()


@pytest.mark.parametrize("activation", ["dice", "relu"])
@pytest.mark.parametrize("widths", [(5, 3), ()])
def test_the_activation_unit_weighs_each_item_beside_the_candidate(activation, widths, random):
    items, candidate = _normal(random, 4, 4, SIZE), _normal(random, 4, SIZE)
    layer = LocalActivationUnit(widths, activation)
    received = layer(items, candidate, KNOWN)
    assert received.shape == (4, SIZE)
    _scramble(layer, random)
    dense = [[weight.numpy() for weight in each.weights] for each in layer._hidden]
    alphas = [each.alpha.numpy() for each in layer._dice]
    last, bias = (weight.numpy() for weight in layer._weight.weights)
    expected = np.zeros((4, SIZE))
    for row in range(4):
        for place in range(4):
            if not KNOWN[row, place]:
                continue
            i, c = items[row, place], candidate[row]
            hidden = np.concatenate([i, c, i - c, i * c])
            for number, (kernel, offset) in enumerate(dense):
                hidden = hidden @ kernel + offset
                width = len(hidden)
                hidden = (
                    _dice(hidden[None], np.zeros(width), np.ones(width), alphas[number])[0]
                    if alphas
                    else np.maximum(hidden, 0)
                )
            expected[row] += (hidden @ last + bias) * i
    assert np.abs(expected[:3]).min() > 1e-3
    np.testing.assert_allclose(layer(items, candidate, KNOWN).numpy(), expected, rtol=1e-3, atol=1e-5)
    items[KNOWN == 0] = 7.0
    np.testing.assert_allclose(layer(items, candidate, KNOWN).numpy(), expected, rtol=1e-3, atol=1e-5)
    twice, known_twice = (np.concatenate([each, each], axis=1) for each in (items, KNOWN))
    # Weights are not normalised.
    np.testing.assert_allclose(layer(twice, candidate, known_twice).numpy(), 2 * expected, rtol=1e-3, atol=1e-5)


def test_padding_has_no_part_in_what_the_activation_unit_trains_on(random):
    items, candidate = _normal(random, 4, 4, SIZE), _normal(random, 4, SIZE)
    layer = LocalActivationUnit((5,))
    layer(items, candidate, KNOWN)
    _scramble(layer, random)
    once = layer(items, candidate, KNOWN, training=True).numpy()
    items[KNOWN == 0] = 9.0
    np.testing.assert_allclose(layer(items, candidate, KNOWN, training=True).numpy(), once, rtol=1e-4)


def test_what_is_told_of_an_event_weighs_with_it(random):
    items, candidate, told = _normal(random, 4, 4, SIZE), _normal(random, 4, SIZE), _normal(random, 4, 4, 3)
    layer = LocalActivationUnit((), "relu")
    layer(items, candidate, KNOWN, told)
    _scramble(layer, random)
    kernel, bias = (weight.numpy() for weight in layer._weight.weights)
    expected = np.zeros((4, SIZE))
    for row, place in zip(*np.nonzero(KNOWN), strict=True):
        i, c = items[row, place], candidate[row]
        seen = np.concatenate([i, c, i - c, i * c, told[row, place]])
        expected[row] += (seen @ kernel + bias) * i
    np.testing.assert_allclose(layer(items, candidate, KNOWN, told).numpy(), expected, rtol=1e-3, atol=1e-5)


def _shares(scores, known):
    weights = [np.exp(score) * there for score, there in zip(scores, known, strict=True)]
    return np.array([weight / sum(weights) if sum(weights) else 0.0 for weight in weights])


def test_shares_are_of_what_is_there(random):
    scores = _normal(random, 4, 4)
    scores[1, 0] = 1e4  # of padding
    expected = np.stack([_shares(np.where(k, s, 0), k) for s, k in zip(scores, KNOWN, strict=True)])
    given = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(given)
        received = MaskedSoftmax()(given, KNOWN)
        loss = tf.reduce_sum(received * _normal(random, 4, 4))
    np.testing.assert_allclose(received.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(received.numpy().sum(axis=1), [1, 1, 1, 0], rtol=1e-5)
    gradient = tape.gradient(loss, given).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[KNOWN == 0] == 0).all()


def _attention(queries, keys, values, known, heads):
    """Of one row: the heads' means, one after the other."""
    size = queries.shape[1] // heads
    received = np.zeros_like(queries)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for number, query in enumerate(queries[:, part]):
            shares = _shares([query @ key / np.sqrt(size) for key in keys[:, part]], known)
            received[number, part] = sum(s * value for s, value in zip(shares, values[:, part], strict=True))
    return received


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_attention_by_heads(heads, random):
    queries, keys, values = (_normal(random, 4, length, 6) for length in (2, 4, 4))
    expected = np.stack([_attention(*row, heads) for row in zip(queries, keys, values, KNOWN, strict=True)])
    keys[KNOWN == 0], values[KNOWN == 0] = 50.0, 50.0
    received = MaskedAttention(heads)(queries, keys, values, KNOWN).numpy()
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(received[:3]).min() > 0
    assert (received[3] == 0).all()


def test_sequences_beside_one_another_attend_each_to_itself(random):
    queries, keys, values = (_normal(random, 2, 4, 3, 6) for _ in range(3))
    known = np.stack([KNOWN[:, :3], KNOWN[::-1, :3]])
    received = MaskedAttention(2)(queries, keys, values, known).numpy()
    for place in np.ndindex(2, 4):
        alone = _attention(queries[place], keys[place], values[place], known[place], 2)
        np.testing.assert_allclose(received[place], alone, rtol=1e-4, atol=1e-6)


def _gru(inputs, weights, kernel):
    """Of one row: the states, by the paper's equations."""
    units = kernel.shape[0]
    u_u, u_r, u_c = (kernel[:, part * units : (part + 1) * units] for part in range(3))
    state, states = np.zeros(units), []
    for given, weight in zip(inputs, weights, strict=True):
        x_u, x_r, x_c = given[:units], given[units : 2 * units], given[2 * units :]
        update = weight * _sigmoid(x_u + state @ u_u)
        reset = _sigmoid(x_r + state @ u_r)
        new = np.tanh(x_c + reset * (state @ u_c))
        state = (1 - update) * state + update * new
        states.append(state)
    return np.stack(states)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_gru_goes_as_far_as_its_weights_say(weighted, random):
    inputs = _normal(random, 4, 4, 3 * SIZE)
    weights = KNOWN * random.random((4, 4)).astype(np.float32) if weighted else KNOWN
    layer = AttentionalGRU(SIZE, return_sequences=True)
    layer(inputs, weights)
    _scramble(layer, random)
    expected = np.stack([_gru(x, w, layer.kernel.numpy()) for x, w in zip(inputs, weights, strict=True)])
    received = layer(inputs, weights).numpy()
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(received[1, 0], np.zeros(SIZE))
    np.testing.assert_array_equal(received[1, 2], received[1, 1], "padding leaves the state as it is")
    assert (received[3] == 0).all()
    last = AttentionalGRU(SIZE)
    last.build(inputs.shape)
    last.set_weights(layer.get_weights())
    np.testing.assert_array_equal(last(inputs, weights).numpy(), received[:, -1])


def test_with_weights_of_one_it_is_kerass_gru(random):
    items = _normal(random, 5, 6, 3)
    theirs = keras.layers.GRU(SIZE, return_sequences=True, reset_after=True, use_bias=False)
    theirs.build(items.shape)
    kernel, recurrent = theirs.get_weights()
    ours = AttentionalGRU(SIZE, return_sequences=True)
    ours.build((5, 6, 3 * SIZE))
    # Their update gate says how much is kept, ours how much is new.
    sign = np.repeat([-1.0, 1.0, 1.0], SIZE)
    ours.set_weights([recurrent * sign])
    received = ours(items @ (kernel * sign).astype(np.float32), np.ones((5, 6), np.float32)).numpy()
    np.testing.assert_allclose(received, theirs(items).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [10, 50])
def test_the_graph_of_a_gru_does_not_grow_with_the_history(length):
    layer = AttentionalGRU(SIZE)
    layer.build((None, length, 3 * SIZE))
    specs = tf.TensorSpec((None, length, 3 * SIZE)), tf.TensorSpec((None, length))
    graph = tf.function(layer, autograph=False).get_concrete_function(*specs).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert sum("MatMul" in node.op for node in nodes) == 1


def _divided(events, ago, known, sessions, most):
    """Of one row: `[sessions, most, size]`, and where there is an event."""
    received, there = np.zeros((sessions, most, events.shape[1])), np.zeros((sessions, most))
    for session in range(sessions):
        places = [place for place in range(len(ago)) if known[place] and ago[place] == session + 2]
        for number, place in enumerate(places[:most]):
            received[session, number], there[session, number] = events[place], 1
    return received, there


def test_events_are_divided_into_sessions(random):
    ago = np.array([[2, 2, 2, 3, 3, 5, 6], [2, 0, 3, 3, 0, 3, 4], [2, 3, 4, 5, 6, 7, 8], [0] * 7], np.int32)
    known = (ago != 0).astype(np.float32)
    known[0, 1] = 0.0  # padding may have a number, too
    events = _normal(random, 4, 7, SIZE)
    expected = [_divided(*row, 3, 2) for row in zip(events, ago, known, strict=True)]
    divided, there = SessionDivision(3, 2)(events, ago, known)
    for received, number in ((divided, 0), (there, 1)):
        np.testing.assert_allclose(received.numpy(), np.stack([row[number] for row in expected]), rtol=1e-6)
    assert there.numpy().sum(axis=(1, 2)).tolist() == [4, 4, 3, 0]


def test_biases_are_of_session_place_and_dimension(random):
    events = _normal(random, 2, 3, 4, SIZE)
    layer = BiasEncoding()
    layer(events)
    _scramble(layer, random)
    session, place, dimension = (weight.numpy() for weight in layer.weights)
    expected = events.copy()
    for _, k, t, c in (places := list(np.ndindex(events.shape))):
        expected[_, k, t, c] += session[k, 0, 0] + place[t, 0] + dimension[c]
    assert len(places) == events.size
    np.testing.assert_allclose(layer(events).numpy(), expected, rtol=1e-5, atol=1e-6)


def _next_item_loss(states, items, indices, known, shift):
    losses = []
    rows, length = known.shape
    for row in range(rows):
        other = (row - shift) % rows
        for place in range(1, length):
            came_before = known[row, :place].any()
            pair = known[row, place] and known[other, place] and indices[row, place] != indices[other, place]
            if came_before and pair:
                state = states[row, place - 1]
                losses.append(-np.log(_sigmoid(state @ items[row, place])))
                losses.append(-np.log(1 - _sigmoid(state @ items[other, place])))
    return 2 * np.mean(losses) if losses else 0.0


@pytest.mark.parametrize("shift", [1, 2, 3, 4])
def test_the_next_item_is_told_from_anothers(shift, random):
    known = np.concatenate([KNOWN, KNOWN[:1]])
    states, items = _normal(random, 5, 4, SIZE), _normal(random, 5, 4, SIZE)
    indices = (random.integers(2, 5, (5, 4)) * known).astype(np.int32)
    expected = _next_item_loss(states, items, indices, known, shift)
    assert expected > 0
    received = float(NextItemLoss(1.0).loss(states, items, indices, known, shift))
    assert received == pytest.approx(expected, rel=1e-4)


def test_the_loss_is_of_training_alone_and_other_rows_are_drawn(random):
    states, items = _normal(random, 4, 4, SIZE), _normal(random, 4, 4, SIZE)
    indices = np.arange(2, 18, dtype=np.int32).reshape(4, 4)
    known = np.ones((4, 4), np.float32)
    layer = NextItemLoss(0.5, seed=3)
    possible = [0.5 * _next_item_loss(states, items, indices, known, shift) for shift in (1, 2, 3)]
    seen = set()
    for _ in range(30):
        np.testing.assert_array_equal(layer(states, items, indices, known, training=True), states)
        (loss,) = (float(each) for each in layer.losses)
        (shift,) = (number for number, each in enumerate(possible, 1) if loss == pytest.approx(each, rel=1e-4))
        seen.add(shift)
    assert seen == {1, 2, 3}
    layer(states, items, indices, known)
    assert layer.losses == []
    off = NextItemLoss(0.0)
    off(states, items, indices, known, training=True)
    assert off.losses == []
    alone = NextItemLoss(1.0)
    alone(states[:1], items[:1], indices[:1], known[:1], training=True)
    assert [float(each) for each in alone.losses] == [0.0]


# Models


def _encoded(dataset, column, lengths):
    """Return an encoder, and encoded columns of five rows each whose history has one of the lengths."""
    encoded = build_encoder(dataset.signature, dataset.transforms)
    found = (dataset[TRAIN].features[column] != "").sum(axis=1)
    chosen = np.concatenate([np.nonzero(found == length)[0][:5] for length in lengths])
    columns = encoded.run(dataset[TRAIN].take(chosen).features, dataset.signature)
    assert (columns[column] != 0).sum(axis=1).tolist() == np.repeat(lengths, 5).tolist()
    return encoded, columns


@pytest.fixture(scope="module")
def of_sequences(sequences):
    """Histories that are empty, of one event, of seven, and full, with all that is told of events."""
    return _encoded(sequences, LONGEST.items, [0, 1, 7, 50])


@pytest.fixture(scope="module")
def encoded(of_sequences):
    return of_sequences[0]


@pytest.fixture(scope="module")
def rows(of_sequences):
    return of_sequences[1]


@pytest.fixture(scope="module")
def of_last_items(dataset):
    """Histories of the default features: at most ten items and their values, without times."""
    return _encoded(dataset, LAST.items, [0, 1, 5, 10])


def _build(name, encoded, **config):
    model_class = MODELS[name]
    keras.utils.set_random_seed(4)
    model = model_class(model_class.config_class(embedding_size=SIZE, hidden=(32,), **config))
    scorer = model.build(encoded, 1)
    _scramble(scorer, np.random.default_rng(6))
    return scorer


@pytest.fixture(scope="module")
def scorers(encoded):
    """One of each, as its config begins: for tests that change none of its weights."""
    return {name: _build(name, encoded) for name in MODELS}


def _interest(scorer, rows):
    """Return what the perceptron sees of the history, `[batch, width]`: it stands last."""
    seen = keras.Model(scorer.input, scorer.get_layer("deep_0").input)
    return seen(rows).numpy()[:, -_width(scorer) :]


def _width(scorer):
    return 3 * SIZE if scorer.name == "dsin" else SIZE


def _logits(scorer, rows):
    return scorer(rows).numpy()[:, 0]


def _weights(scorer, layer):
    return [weight.numpy() for weight in scorer.get_layer(layer).weights]


@dataclass(frozen=True)
class _Row:
    """One row's history, the latest first and without padding."""

    items: np.ndarray
    """Vectors, `[events, SIZE]`."""
    told: np.ndarray
    """Type, age, value, as the model's config has them."""
    ages: np.ndarray
    sessions: np.ndarray
    candidate: np.ndarray


def _histories(scorer, rows, *, told_ages=True):
    """Yield what each row has of the sequence, by hand."""
    (table,), (types,) = (_weights(scorer, f"{each}_embedding") for each in ("item", "event_type"))
    for row, candidate in enumerate(rows["item_id"]):
        there = rows[LONGEST.items][row] != 0
        of_row = {name: rows[name][row][there] for name in _COLUMNS}
        ages = of_row[LONGEST.times]
        vectors = [_weights(scorer, "age_embedding")[0][ages]] if told_ages else []
        told = [types[of_row[LONGEST.types]], *vectors, of_row[LONGEST.values]]
        yield _Row(
            table[of_row[LONGEST.items]],
            np.concatenate(told, axis=1),
            ages,
            of_row[LONGEST.sessions],
            table[candidate] * (candidate != 0),
        )


def _moved(rows, places):
    """Return the rows with whole events at other places: `[rows, length]`, from which each place takes its event."""
    moved = {}
    for name in _COLUMNS:
        values = rows[name]
        index = places.reshape(*places.shape, *[1] * (values.ndim - 2))
        moved[name] = np.take_along_axis(values, index, axis=1)
    return rows | moved


@pytest.mark.parametrize("name", MODELS)
def test_an_empty_history_leaves_the_other_features(name, scorers, rows):
    scorer = scorers[name]
    interest, before = _interest(scorer, rows), _logits(scorer, rows)
    width = _width(scorer)
    assert (interest[:5] == 0).all()
    assert (np.abs(interest[5:]).max(axis=1) > 1e-3).all()
    assert np.isfinite(before).all()
    assert len(np.unique(before)) == 20
    random = np.random.default_rng(9)
    kernel, bias = _weights(scorer, "deep_0")
    other = np.concatenate([kernel[:-width], random.normal(size=(width, kernel.shape[1]))])
    scorer.get_layer("deep_0").set_weights([other, bias])
    after = _logits(scorer, rows)
    scorer.get_layer("deep_0").set_weights([kernel, bias])
    np.testing.assert_array_equal(after[:5], before[:5])
    assert (np.abs(after - before)[5:] > 1e-6).any()


@pytest.mark.parametrize("name", MODELS)
def test_padding_may_stand_anywhere(name, scorers, rows):
    scorer, random = scorers[name], np.random.default_rng(3)
    places = np.tile(np.arange(50), (20, 1))
    for row, items in enumerate(rows[LONGEST.items]):
        known = np.count_nonzero(items)
        order = np.full(50, 49)  # padding, wherever there is some
        order[np.sort(random.permutation(50)[:known])] = np.arange(known)
        places[row] = order
    moved = _moved(rows, places)
    assert (moved[LONGEST.items] != rows[LONGEST.items]).any(axis=1).sum() >= 8
    np.testing.assert_allclose(_interest(scorer, moved), _interest(scorer, rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "ordered"), [("din", False), ("dien", True), ("bst", False), ("dsin", True)])
def test_whether_the_order_of_events_matters(name, ordered, scorers, rows):
    """What has an age needs no place: DIN and BST read it from there, DIEN and DSIN count."""
    scorer = scorers[name]
    interest = _interest(scorer, rows)
    backwards = _interest(scorer, _moved(rows, np.tile(np.arange(50)[::-1], (20, 1))))
    np.testing.assert_allclose(backwards[:10], interest[:10], rtol=1e-4, atol=1e-5)
    difference = np.abs(backwards - interest)[10:].max(axis=1)
    assert (difference > 1e-3).all() if ordered else (difference < 1e-3 * np.abs(interest).max()).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("column", ["items", "types", "times", "values", "sessions"])
def test_everything_told_of_an_event_is_read(name, column, scorers, rows):
    changed = rows[getattr(LONGEST, column)][15:].copy()
    changed[:, 12:] = changed[:, 12:] + 1 if column == "sessions" else changed[:, 12:][:, ::-1]
    if column == "types":
        changed[:, 12:] = 1
    full = {name: values[15:] for name, values in rows.items()}
    difference = np.abs(
        _interest(scorers[name], full | {getattr(LONGEST, column): changed}) - _interest(scorers[name], full)
    ).max(axis=1)
    assert (difference > 1e-4).any() if column != "sessions" or name == "dsin" else (difference == 0).all()


def test_the_long_list_is_read_where_the_features_have_it(encoded, of_last_items, rows):
    assert [each.items for each in encoded.sequences] == [LONGEST.items, LAST.items]
    assert of_last_items[0].sequences == (LAST,)
    scorer = _build("din", encoded)
    (other,) = {LAST.items} - {LONGEST.items}
    without = rows | {other: np.zeros_like(rows[other]), LAST.values: np.zeros_like(rows[LAST.values])}
    np.testing.assert_array_equal(_interest(scorer, without), _interest(scorer, rows))


def test_the_vectors_of_youtube_are_of_the_whole_history(encoded, rows):
    model = RANKING_MODELS["youtube"](RANKING_MODELS["youtube"].config_class())
    scorer = model.build(encoded, 1)
    _scramble(scorer, np.random.default_rng(6))
    shorter = rows | {LONGEST.items: np.where(np.arange(50) < 10, rows[LONGEST.items], 0)}
    assert (np.abs(_logits(scorer, shorter) - _logits(scorer, rows)) > 1e-4).tolist() == [False] * 15 + [True] * 5


@pytest.mark.parametrize(
    ("name", "options"),
    [("din", {}), ("din", {"batch_norm": True}), ("dien", {}), ("bst", {"blocks": 2}), ("dsin", {})],
)
def test_gradients_reach_every_weight(name, options, encoded, rows):
    scorer = _build(name, encoded, l2=0.0, dropout=0.0, unknown_rate=0.0, **options)
    with tf.GradientTape() as tape:
        logits = scorer(rows, training=True)[:, 0]
        loss = tf.reduce_mean(logits * np.linspace(-1, 2, 20)) + tf.add_n(scorer.losses or [tf.constant(0.0)])
    gradients = tape.gradient(loss, scorer.trainable_weights)
    # What follows is normalised over the batch, where a bias is taken off again.
    cancelled = {"deep_0/bias"} if "batch_norm" in options else set()
    for weight, gradient in zip(scorer.trainable_weights, gradients, strict=True):
        if weight.path not in cancelled:
            assert gradient is not None, weight.path
            assert np.abs(tf.convert_to_tensor(gradient).numpy()).max() > 1e-9, weight.path


def test_dien_follows_the_paper(scorers, rows):
    scorer = scorers["dien"]
    (kernel, bias), (kernel_2, bias_2) = (_weights(scorer, f"{each}_inputs") for each in ("interest", "evolution"))
    (recurrent,), (recurrent_2,) = (_weights(scorer, each) for each in ("interest", "evolution"))
    (bilinear,) = _weights(scorer, "attention")
    expected = np.zeros((20, SIZE))
    for number, row in enumerate(_histories(scorer, rows)):
        if len(row.items):
            earliest_first = np.concatenate([row.items, row.told], axis=1)[::-1]
            known = np.ones(len(earliest_first))
            states = _gru(earliest_first @ kernel + bias, known, recurrent)
            weights = _shares([state @ bilinear @ row.candidate for state in states], known)
            expected[number] = _gru(states @ kernel_2 + bias_2, weights, recurrent_2)[-1]
    np.testing.assert_allclose(_interest(scorer, rows), expected, rtol=1e-3, atol=1e-4)


def _norm(x, gamma, beta):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * gamma + beta


def _block(scorer, name, sequence, heads, leak):
    """Of one sequence: what a block of self-attention makes of it."""
    (queries,), (keys,), (values,), (joined,), hidden, outputs, norm, norm_behind = (
        _weights(scorer, f"{name}_{each}")
        for each in ("queries", "keys", "values", "joined", "hidden", "outputs", "norm", "norm_behind")
    )
    every = np.ones(len(sequence))
    found = _attention(sequence @ queries, sequence @ keys, sequence @ values, every, heads) @ joined
    attended = np.stack([_norm(each, *norm) for each in sequence + found])
    inner = attended @ hidden[0] + hidden[1]
    inner = np.where(inner > 0, inner, leak * inner) @ outputs[0] + outputs[1]
    return np.stack([_norm(each, *norm_behind) for each in attended + inner])


@pytest.mark.parametrize("blocks", [1, 2])
def test_bst_follows_the_paper(blocks, encoded, rows):
    heads, leak = 3, 0.1
    scorer = _build("bst", encoded, blocks=blocks, heads=heads, head_size=2, leak=leak)
    (positions,), (told,) = _weights(scorer, "position"), _weights(scorer, "told")
    assert positions.shape == (AGE_COUNT, SIZE)
    expected = np.zeros((20, SIZE))
    for number, row in enumerate(_histories(scorer, rows, told_ages=False)):
        if not len(row.items):
            continue
        events = row.items + row.told @ told + positions[row.ages]
        sequence = np.concatenate([(row.candidate + positions[NOW_INDEX])[None], events])
        for block in range(blocks):
            sequence = _block(scorer, f"block_{block}", sequence, heads, leak)
        expected[number] = sequence[0]
    np.testing.assert_allclose(_interest(scorer, rows), expected, rtol=1e-3, atol=1e-4)


def test_without_times_bst_counts_places(of_last_items):
    encoded, rows = of_last_items
    scorer = _build("bst", encoded)
    (positions,), (told,), (table,) = (_weights(scorer, each) for each in ("position", "told", "item_embedding"))
    assert positions.shape == (11, SIZE)
    expected = np.zeros((20, SIZE))
    for row, (items, values, candidate) in enumerate(
        zip(rows[LAST.items], rows[LAST.values], rows["item_id"], strict=True)
    ):
        there = items != 0
        if there.any():
            events = table[items[there]] + values[there] @ told
            sequence = np.concatenate([(table[candidate] * (candidate != 0))[None], events])
            expected[row] = _block(scorer, "block_0", sequence + positions[: len(sequence)], 2, 0.2)[0]
    np.testing.assert_allclose(_interest(scorer, rows), expected, rtol=1e-3, atol=1e-4)


def _lstm(inputs, kernel, recurrent, bias):
    """Of one row: the outputs, by Hochreiter's and Schmidhuber's equations, in Keras's order of gates."""
    units = recurrent.shape[0]
    output, cell, outputs = np.zeros(units), np.zeros(units), []
    for given in inputs:
        i, f, c, o = np.split(given @ kernel + output @ recurrent + bias, 4)
        cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(c)
        output = _sigmoid(o) * np.tanh(cell)
        outputs.append(output)
    return np.stack(outputs)


def _activated(scorer, name, interests, candidate):
    (keys,) = _weights(scorer, f"{name}_keys")
    weights = _shares([interest @ keys @ candidate for interest in interests], np.ones(len(interests)))
    return sum(weight * interest for weight, interest in zip(weights, interests, strict=True))


def test_dsin_follows_the_paper(encoded, rows):
    heads, leak, most, longest = 3, 0.1, 4, 3
    scorer = _build("dsin", encoded, heads=heads, head_size=2, leak=leak, sessions=most, session_events=longest)
    (told,) = _weights(scorer, "told")
    of_session, of_place, of_dimension = _weights(scorer, "bias_encoding")
    lstm = _weights(scorer, "evolution")
    expected = np.zeros((20, 3 * SIZE))
    divided = []
    for number, row in enumerate(_histories(scorer, rows)):
        events = row.items + row.told @ told
        latest_first = [events[row.sessions == ago][:longest] for ago in sorted(set(row.sessions))][:most]
        divided.append([len(each) for each in latest_first])
        if not latest_first:
            continue
        interests = []
        for k, session in enumerate(latest_first):
            biased = session + of_session[k, 0] + of_place[: len(session)] + of_dimension
            interests.append(_block(scorer, "session", biased, heads, leak).mean(axis=0))
        forwards, backwards = _lstm(interests, *lstm[:3]), _lstm(interests[::-1], *lstm[3:])[::-1]
        evolved = np.concatenate([forwards, backwards], axis=1)
        expected[number] = np.concatenate(
            [
                _activated(scorer, "interest", interests, row.candidate),
                _activated(scorer, "evolved", evolved, row.candidate),
            ]
        )
    assert max(map(len, divided)) == most
    assert max(max(each, default=0) for each in divided) == longest
    assert min(min(each) for each in divided if each) == 1
    np.testing.assert_allclose(_interest(scorer, rows), expected, rtol=1e-3, atol=1e-4)


def test_dsin_without_sessions_says_so(of_last_items):
    with pytest.raises(BuildError, match=r"expected user_sequence_sessions, received .*; give the spec user_sequence"):
        _build("dsin", of_last_items[0])


def test_din_activates_as_its_config_says(encoded, rows):
    names = {
        activation: {layer.name for layer in _build("din", encoded, activation=activation)._flatten_layers()}
        for activation in ("dice", "relu")
    }
    assert {"deep_0_dice", "dice_0"} <= names["dice"]
    assert not {"deep_0_dice", "dice_0"} & names["relu"]
    scorer = _build("din", encoded, activation="relu", attention_hidden=(3,))
    hidden, weight = (
        [each.numpy() for each in layer.weights]
        for layer in (scorer.get_layer("interest")._hidden[0], scorer.get_layer("interest")._weight)
    )
    expected = np.zeros((20, SIZE))
    for number, row in enumerate(_histories(scorer, rows)):
        c = row.candidate
        for item, told in zip(row.items, row.told, strict=True):
            seen = np.concatenate([item, c, item - c, item * c, told])
            expected[number] += (np.maximum(seen @ hidden[0] + hidden[1], 0) @ weight[0] + weight[1]) * item
    np.testing.assert_allclose(_interest(scorer, rows), expected, rtol=1e-3, atol=1e-4)


def test_the_loss_of_the_next_item_has_its_weight_in_training_alone(encoded, rows):
    added = []
    for weight in (1.0, 3.0):
        scorer = _build("dien", encoded, l2=0.0, unknown_rate=0.0, next_item_weight=weight)
        scorer(rows, training=True)
        added.append(sum(float(each) for each in scorer.losses))
        scorer(rows)
        assert sum(float(each) for each in scorer.losses) == 0
    assert added[0] > 0.1
    assert added[1] == pytest.approx(3 * added[0], rel=1e-5)


_PARTS = {
    "dien": ({"interest_inputs", "interest", "attention", "evolution_inputs"}, {"evolution"}),
    "bst": ({"block_0_keys", "block_0_values"}, {"block_0_queries", "block_0_keys", "block_0_values"}),
    "dsin": ({"told", "session_keys", "session_outputs", "evolution", "interest_keys", "evolved_keys"}, {"deep_0"}),
}
"""Layers of the user alone, and of each candidate."""


@pytest.mark.parametrize("name", _PARTS)
def test_the_users_part_is_computed_once(name, encoded, scorers, sequences, monkeypatch):
    seen = set()

    def watch(layer_class):
        original = layer_class.call

        @functools.wraps(original)
        def call(self, inputs, *args, **kwargs):
            seen.add((self.name, inputs.shape[0]))
            return original(self, inputs, *args, **kwargs)

        monkeypatch.setattr(layer_class, "call", call)

    watch(keras.layers.Dense)
    watch(AttentionalGRU)
    watch(keras.layers.Bidirectional)
    exported = Exported(Fitted(encoded, scorers[name]), sequences.signature)
    seen.clear()
    call = tf.function(exported._one_user, autograph=False)
    call.get_concrete_function(**tensor_specs(sequences.signature, ONE_USER_SIGNATURE))
    once, for_each = _PARTS[name]
    one, every = ({layer for layer, batch in seen if batch == rows} for rows in (1, None))
    assert once <= one
    assert for_each <= every
    assert not (once - for_each) & every


@pytest.mark.parametrize("name", ["dien", pytest.param("dsin", marks=pytest.mark.zoo)])
def test_loops_run_in_a_session_as_the_model_server_has_them(name, encoded, scorers, sequences, tmp_path):
    fitted = Fitted(encoded, scorers[name])
    export(fitted, sequences.signature, tmp_path / "saved_model")
    saved_model = SavedModel(tmp_path / "saved_model")
    golden = golden_requests(saved_model, sequences[TRAIN], sequences.signature, rows=9, users=2, candidates=7, seed=1)
    for request, scores in answers(tmp_path / "saved_model", golden["requests"]):
        np.testing.assert_allclose(scores, request["score"], atol=1e-5)
        assert len(np.unique(scores)) > 1
