"""A loaded SavedModel: a session of its own, as TensorFlow Serving has it, so that unloading gives all memory back."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.saved_model.loader_impl import SavedModelLoader, get_asset_tensors

from serving.model_server import metrics
from serving.model_server.errors import ServingError, failed_precondition, not_found
from serving.model_server.graph_import import import_graph
from serving.model_server.text_protos import read_text_proto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from serving.model_server.batching import Batching

_VARIABLES = Path("variables/variables")
_VARIABLES_INDEX = Path("variables/variables.index")
_PATTERN = re.compile(r"[*?\[\\]")
_INIT_OP = "__saved_model_init_op"
_INIT_OP_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
_SHARED_POOL, _CALLERS_THREAD = 0, -1
"""RunOptions.inter_op_thread_pool."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How SavedModels are loaded and run."""

    session: tf.compat.v1.ConfigProto
    tags: tuple[str, ...] = ("serve",)
    batching: Batching | None = None


def session_options(
    intra_op: int, inter_op: int, config_file: str = "", gpu_memory_fraction: float = 0.0
) -> tf.compat.v1.ConfigProto:
    """Return the sessions' options: those of a file in text format, and how many threads; 0 leaves it to TensorFlow.

    Without a file, TensorFlow's threads sleep as soon as they have nothing to do. Looking out for work, as they
    otherwise do for a while, they take the core that writes the answer.

    Raises:
        ServerStartError: The file is no ConfigProto.
    """
    if config_file:
        options = read_text_proto(config_file, config_pb2.ConfigProto)
    else:
        options = config_pb2.ConfigProto()
        options.experimental.disable_thread_spinning = True
    options.intra_op_parallelism_threads = intra_op or options.intra_op_parallelism_threads
    options.inter_op_parallelism_threads = inter_op or options.inter_op_parallelism_threads
    if gpu_memory_fraction:
        options.gpu_options.per_process_gpu_memory_fraction = gpu_memory_fraction
    return options


def inter_op_pool(options: tf.compat.v1.ConfigProto) -> int:
    """Return the pool that runs a request's operations: the caller's own thread, unless more threads are asked for.

    Requests are parallel to each other. Within one each hand-over to another thread waits for a core, on a busy machine
    for long.
    """
    return _SHARED_POOL if options.inter_op_parallelism_threads > 1 else _CALLERS_THREAD


def _scalar_dtype(value: Any) -> Any:  # noqa: ANN401 - a numpy scalar or bytes
    return getattr(value, "dtype", object)


@dataclass(frozen=True, slots=True)
class Feeds:
    """What a signature is fed with, in the order of the tensors' names, which errors count by."""

    aliases: tuple[str, ...]
    tensors: tuple[str, ...]
    dtypes: tuple[Any, ...]
    """numpy's; object for text."""
    dtype_names: tuple[str, ...]
    """TensorFlow's words for them."""


_DTYPE_WORDS = {"float32": "float", "float64": "double", "float16": "half", "object": "string"}


def dtype_word(dtype: Any) -> str:  # noqa: ANN401 - a numpy dtype
    """Return TensorFlow's word for a numpy dtype: `float` for float32 and so on."""
    return _DTYPE_WORDS.get(str(dtype), str(dtype))


def _feeds(signature: Any) -> Feeds:  # noqa: ANN401 - a SignatureDef
    inputs = sorted(signature.inputs.items(), key=lambda item: item[1].name)
    dtypes = tuple(np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype) for _, info in inputs)
    return Feeds(
        tuple(alias for alias, _ in inputs),
        tuple(info.name for _, info in inputs),
        dtypes,
        tuple(map(dtype_word, dtypes)),
    )


@contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """Give a folder under a name that is no pattern: by one TensorFlow looks for variables, and `[1]` finds none."""
    if not _PATTERN.search(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="kestrel-model-") as folder:
        plain = Path(folder, path.name)
        plain.symlink_to(path.absolute())
        yield plain


def _init_op(meta_graph: Any) -> str:  # noqa: ANN401 - a MetaGraphDef
    """Return the operation that fills a model's tables; the newest of the three ways to name it counts."""
    if _INIT_OP in meta_graph.signature_def:
        return str(meta_graph.signature_def[_INIT_OP].outputs[_INIT_OP].name)
    for key in _INIT_OP_COLLECTIONS:
        if key in meta_graph.collection_def:
            return str(meta_graph.collection_def[key].node_list.value[0])
    return ""


def _stage_done(path: Path, stage: str, start: float) -> float:
    """Record how long a stage of loading took; return when it ended."""
    metrics.LOAD_LATENCY_BY_STAGE.add(metrics.micros_since(start), (str(path), stage))
    return time.perf_counter()


class Servable:
    """One version in memory. Requests lease it; closing waits for the last of them.

    Attributes:
        model: The model's name.
        version: Its number.
        signatures: Name → SignatureDef.
        feeds: Name → how the signature is fed.
    """

    def __init__(self, model: str, version: int, path: Path, loading: Loading) -> None:
        """Load the SavedModel in `path`.

        Raises:
            ServingError: It is not complete, or TensorFlow refuses it.
        """
        self.model = model
        self.version = version
        start = time.perf_counter()
        try:
            self._load(path, loading)
        except ServingError:
            metrics.LOAD_ATTEMPT_COUNT.add((str(path), "fail"))
            raise
        metrics.LOAD_ATTEMPT_COUNT.add((str(path), "success"))
        metrics.LOAD_LATENCY.add((str(path),), metrics.micros_since(start))

    def _load(self, path: Path, loading: Loading) -> None:
        if path.exists() and not path.is_dir():
            msg = f"{path}; Not a directory"
            raise ServingError.from_tensorflow(tf.errors.FailedPreconditionError(None, None, msg))
        if not any((path / name).is_file() for name in _SAVED_MODEL):
            msg = (
                "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
                f"`saved_model.pb`)\nSpecified file path: {path}"
            )
            raise not_found(msg)
        self._leases = 0
        self._closing = False
        self._idle = threading.Condition()
        self._calls: dict[tuple[tuple[str, ...], tuple[str, ...]], Callable[..., list[Any]]] = {}
        self._making = threading.Lock()
        self._pool = inter_op_pool(loading.session)
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=loading.session)
        start = time.perf_counter()
        try:
            meta_graph = SavedModelLoader(str(path)).get_meta_graph_def_from_tags(loading.tags)
            if meta_graph.HasField("saver_def") and not (path / _VARIABLES_INDEX).is_file():
                # TensorFlow takes a missing folder for a model without variables, loads it, and then fails every call.
                msg = f"{path / _VARIABLES_INDEX}; No such file or directory"
                raise not_found(msg)
            with graph.as_default():
                import_graph(meta_graph.graph_def, meta_graph.meta_info_def.stripped_op_list)
                self._restore(path, meta_graph)
                start = _stage_done(path, "restore_graph", start)
                self._initialize(path, meta_graph)
                _stage_done(path, "init_graph", start)
        except ServingError:
            self._session.close()
            raise
        except tf.errors.OpError as error:
            self._session.close()
            raise ServingError.from_tensorflow(error) from error
        except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
            self._session.close()
            raise ServingError.from_tensorflow(tf.errors.InvalidArgumentError(None, None, str(error))) from error
        self.signatures = dict(meta_graph.signature_def)
        self._check_tensors(graph)
        self.feeds = {name: _feeds(signature) for name, signature in self.signatures.items()}
        try:
            self._batching = None if loading.batching is None else loading.batching.session(path, self._run)
        except ServingError:
            self._session.close()
            raise

    def _restore(self, path: Path, meta_graph: Any) -> None:  # noqa: ANN401 - a MetaGraphDef
        """Give the variables their values."""
        saver = meta_graph.saver_def
        if saver.restore_op_name and (path / _VARIABLES_INDEX).is_file():
            with _plain(path) as plain:
                self._session.run(saver.restore_op_name, {saver.filename_tensor_name: str(plain / _VARIABLES)})

    def _initialize(self, path: Path, meta_graph: Any) -> None:  # noqa: ANN401 - a MetaGraphDef
        """Give the tables their rows, as TensorFlow's own loader does."""
        init_op = _init_op(meta_graph)
        if init_op:
            self._session.run([init_op], get_asset_tensors(str(path), meta_graph))

    def _check_tensors(self, graph: tf.Graph) -> None:
        """Refuse what the real server would load, and then fail every call of: names that the graph does not have."""
        for name, signature in self.signatures.items():
            for alias, info in (*signature.inputs.items(), *signature.outputs.items()):
                if ":" not in info.name:
                    continue
                try:
                    graph.get_tensor_by_name(info.name)
                except (KeyError, ValueError) as error:
                    self._session.close()
                    msg = (
                        f"Signature {name}: expected a tensor of the graph for {alias}, received {info.name}; export "
                        "the model anew"
                    )
                    raise failed_precondition(msg) from error

    def run(self, feeds: tuple[str, ...], fetches: tuple[str, ...], values: Sequence[NDArray[Any]]) -> list[Any]:
        """Compute the tensors named in `fetches` from `values`, one for each tensor named in `feeds`.

        Raises:
            ServingError: TensorFlow reports an error, or the values cannot be batched.
        """
        if self._batching is not None:
            return self._batching.run(feeds, fetches, values)
        return self._run(feeds, fetches, values)

    def _run(self, feeds: tuple[str, ...], fetches: tuple[str, ...], values: Sequence[NDArray[Any]]) -> list[Any]:
        start = time.perf_counter()
        call = self._calls.get((feeds, fetches))
        try:
            if call is None:
                call = self._first_call(feeds, fetches)
            found = call(*values)
        except tf.errors.OpError as error:
            raise ServingError.from_tensorflow(error) from error
        metrics.record_run(metrics.micros_since(start))
        return [
            value if isinstance(value, np.ndarray) else np.array(value, dtype=_scalar_dtype(value)) for value in found
        ]

    def _first_call(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> Callable[..., list[Any]]:
        """Return the callable, made once: each making optimises the graph, which takes a core for a good while."""
        with self._making:
            call = self._calls.get((feeds, fetches))
            return self._make_call(feeds, fetches) if call is None else call

    def _make_call(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> Callable[..., list[Any]]:
        options = config_pb2.CallableOptions()
        options.feed.extend(feeds)
        options.fetch.extend(fetches)
        options.run_options.inter_op_thread_pool = self._pool
        # The public Session.run and make_callable look every tensor up again in each call.
        call: Callable[..., list[Any]] = self._session._make_callable_from_options(options)  # noqa: SLF001 - see above
        self._calls[feeds, fetches] = call
        return call

    def lease(self) -> bool:
        """Take the servable for one request; False if it is being unloaded."""
        with self._idle:
            if self._closing:
                return False
            self._leases += 1
            return True

    def release(self) -> None:
        """Give a lease back."""
        with self._idle:
            self._leases -= 1
            if not self._leases:
                self._idle.notify_all()

    def close(self) -> None:
        """Refuse new leases, wait for those that are out, and free the memory."""
        with self._idle:
            self._closing = True
            while self._leases:
                self._idle.wait()
        if self._batching is not None:
            self._batching.close()
        self._calls.clear()
        self._session.close()
