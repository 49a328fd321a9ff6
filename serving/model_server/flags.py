"""The command line of tensorflow_model_server: `--flag=value`; a switch may stand alone."""

from __future__ import annotations

import argparse
import os
from dataclasses import MISSING, dataclass, field, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def _threads() -> int:
    return 4 * len(os.sched_getaffinity(0))


def _flag(says: str, *, default: Any) -> Any:  # noqa: ANN401 - whatever the flag's type is
    """Declare a flag: what `--help` says of it, and its default, or what makes it."""
    if callable(default):
        return field(default_factory=default, metadata={"help": says})
    return field(default=default, metadata={"help": says})


@dataclass(frozen=True, slots=True)
class Flags:
    """How the server runs. The names are those of tensorflow_model_server."""

    port: int = _flag("gRPC port; 0 leaves gRPC out.", default=8500)
    grpc_socket_path: str = _flag("A UNIX socket that answers gRPC, too.", default="")
    rest_api_port: int = _flag("REST port; 0 leaves REST out.", default=0)
    bind_address: str = _flag("Not a flag of the real server, which listens everywhere.", default="127.0.0.1")
    model_config_file: str = _flag(
        "A ModelServerConfig in text format: the models, their versions and labels.", default=""
    )
    model_name: str = _flag("What the one model of --model_base_path is called.", default="default")
    model_base_path: str = _flag("Serves this one model if no configuration file is named.", default="")
    file_system_poll_wait_seconds: float = _flag(
        "How often new versions are looked for; 0 looks once, at the start.", default=1.0
    )
    model_config_file_poll_wait_seconds: float = _flag(
        "How often the configuration file is read anew; 0 reads it once.", default=0.0
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        "Take a label of a version that is not loaded yet.", default=False
    )
    enable_grpc_healthcheck_service: bool = _flag("Answer grpc.health.v1, too.", default=False)
    monitoring_config_file: str = _flag(
        "A MonitoringConfig in text format: whether and where the REST port has Prometheus' page.", default=""
    )
    enable_batching: bool = _flag("Merge concurrent requests of one signature.", default=False)
    batching_parameters_file: str = _flag("BatchingParameters in text format.", default="")
    enable_per_model_batching_parameters: bool = _flag(
        "Batch only versions that have a `batching_params.pbtxt`, as it says.", default=False
    )
    max_num_load_retries: int = _flag("How often a version that does not load is tried again.", default=5)
    load_retry_interval_micros: int = _flag("How long to wait between two tries.", default=60_000_000)
    num_load_threads: int = _flag("How many versions may load at the same time.", default=2)
    num_unload_threads: int = _flag("Without effect: each version is unloaded by a thread of its own.", default=0)
    flush_filesystem_caches: bool = _flag("Without effect.", default=True)
    saved_model_tags: str = _flag(
        "Which of a SavedModel's graphs is served: tags, separated by commas.", default="serve"
    )
    enable_model_warmup: bool = _flag("Replay a version's warm-up records before it is available.", default=True)
    num_request_iterations_for_warmup: int = _flag("How often each warm-up record is replayed; once if 0.", default=0)
    remove_unused_fields_from_bundle_metagraph: bool = _flag("Without effect.", default=True)
    tensorflow_session_parallelism: int = _flag(
        "Threads within one operation and operations at the same time; 0 leaves both to TensorFlow.", default=0
    )
    tensorflow_intra_op_parallelism: int = _flag("Threads within one operation; 0 leaves it to TensorFlow.", default=0)
    tensorflow_inter_op_parallelism: int = _flag(
        "Operations of one request at the same time; 0 leaves it to TensorFlow.", default=0
    )
    tensorflow_session_config_file: str = _flag(
        "A TensorFlow ConfigProto in text format; the flags above win.", default=""
    )
    per_process_gpu_memory_fraction: float = _flag("Of each GPU's memory; 0 leaves it to TensorFlow.", default=0.0)
    grpc_channel_arguments: str = _flag("Of the gRPC server: `key=value`, separated by commas.", default="")
    grpc_max_threads: int = _flag(
        "gRPC calls at the same time; the next is refused at once with RESOURCE_EXHAUSTED. The real server's default "
        "is 4 x CPUs; this one's is what infra/compose.yaml gives the real one.",
        default=256,
    )
    rest_api_num_threads: int = _flag("REST requests computed at the same time.", default=_threads)
    rest_api_timeout_in_ms: int = _flag("How long a client may take to send a request.", default=30_000)
    rest_api_max_body_bytes: int = _flag(
        "Not a flag of the real server: larger bodies are answered with 413.", default=256 * 1024 * 1024
    )
    drain_seconds: float = _flag(
        "Not a flag of the real server: how long requests in flight may take after SIGTERM.", default=20.0
    )


_NOT_HERE: dict[str, str] = {
    "enable_profiler": "false",
    "enable_signature_method_name_check": "false",
    "num_tflite_interpreters_per_pool": "0",
    "num_tflite_pools": "0",
    "platform_config_file": "",
    "prefer_tflite_model": "false",
    "rest_api_enable_cors_support": "false",
    "ssl_config_file": "",
    "thread_pool_factory_config_file": "",
    "use_alts_credentials": "false",
    "xla_cpu_compilation_enabled": "false",
}
"""Flags of the real server that change what this one cannot → the value that asks for nothing."""


def parse_flags(arguments: Sequence[str]) -> Flags:
    """Read the command line; SystemExit 2, with usage on standard error, if it is wrong."""
    parser = _parser()
    values = vars(parser.parse_args(arguments))
    for name, nothing in _NOT_HERE.items():
        given = values.pop(name)
        if given is not None and given.lower() != nothing:
            parser.error(
                f"--{name}={given}: expected {nothing or 'no value'}, this server has no such thing; leave the flag "
                "out, or run tensorflow_model_server"
            )
    flags = Flags(**values)
    wrong = _contradiction(flags)
    if wrong:
        parser.error(wrong)
    return flags


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.model_server",
        description="Serve TensorFlow SavedModels over gRPC and REST, as tensorflow_model_server does.",
        epilog="python -m serving.model_server check --help: compare a SavedModel's answers with recorded ones.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_versions())
    for one in fields(Flags):
        name, default = f"--{one.name}", _default(one)
        if isinstance(default, bool):
            parser.add_argument(
                name, type=_boolean, nargs="?", const=True, default=default, metavar="BOOL", help=_help(one, default)
            )
        else:
            metavar = type(default).__name__.upper()
            parser.add_argument(name, type=type(default), default=default, metavar=metavar, help=_help(one, default))
    for name in _NOT_HERE:
        parser.add_argument(f"--{name}", nargs="?", const="true", help=argparse.SUPPRESS)
    return parser


def _help(one: Any, default: object) -> str:  # noqa: ANN401 - a dataclass field
    shown = str(default).lower() if isinstance(default, bool) else default if default != "" else "none"
    return f"{one.metadata['help']} Default: {shown}".replace("%", "%%")


def _versions() -> str:
    return f"Kestrel model server {version('tensorflow-serving-api')}\nTensorFlow Library: {version('tensorflow')}"


def _default(one: Any) -> Any:  # noqa: ANN401 - a dataclass field and its default
    return one.default if one.default is not MISSING else one.default_factory()


def _contradiction(flags: Flags) -> str | None:
    """Return what the real server would not start with, either."""
    if flags.port and flags.port == flags.rest_api_port:
        return f"--rest_api_port={flags.rest_api_port}: expected another port than --port; choose one"
    if flags.batching_parameters_file and not flags.enable_batching:
        return (
            "--batching_parameters_file is set without setting --enable_batching to true; set it or leave the file out"
        )
    if flags.tensorflow_session_parallelism and (
        flags.tensorflow_intra_op_parallelism or flags.tensorflow_inter_op_parallelism
    ):
        return (
            "--tensorflow_session_parallelism: expected either it, or --tensorflow_intra_op_parallelism and "
            "--tensorflow_inter_op_parallelism, received both; leave one out"
        )
    for name in ("grpc_max_threads", "rest_api_num_threads", "rest_api_timeout_in_ms"):
        if getattr(flags, name) < 1:
            return f"--{name}: expected at least 1, received {getattr(flags, name)}; leave it out for the default"
    if any("=" not in argument for argument in flags.grpc_channel_arguments.split(",") if argument):
        return f"--grpc_channel_arguments: expected key=value,…, received {flags.grpc_channel_arguments!r}"
    return None


def channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    """Return the options of `--grpc_channel_arguments`; a value that is a number is one."""
    pairs = (argument.split("=", 1) for argument in text.split(",") if argument)
    return tuple((key, int(value) if value.lstrip("-").isdigit() else value) for key, value in pairs)


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return words[text.lower()]
    except KeyError:
        msg = f"expected true or false, received {text!r}"
        raise argparse.ArgumentTypeError(msg) from None
