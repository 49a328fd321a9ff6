"""The command line of tensorflow_model_server: `--flag=value`; a switch may stand alone."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Flags:
    """How the server runs. The names are those of tensorflow_model_server."""

    port: int = 8500
    """gRPC port; 0 leaves gRPC out."""
    rest_api_port: int = 0
    """REST port; 0 leaves REST out."""
    bind_address: str = "127.0.0.1"
    """Not a flag of the real server, which listens everywhere."""
    model_config_file: str = ""
    model_name: str = "default"
    model_base_path: str = ""
    """Serves this one model if no configuration file is named."""
    file_system_poll_wait_seconds: float = 1.0
    """How often new versions are looked for; 0 looks once, at the start."""
    model_config_file_poll_wait_seconds: float = 0.0
    """How often the configuration file is read anew; 0 reads it once."""
    allow_version_labels_for_unavailable_models: bool = False
    enable_grpc_healthcheck_service: bool = False
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    num_load_threads: int = 2
    """How many versions may load at the same time."""
    tensorflow_intra_op_parallelism: int = 0
    """Threads within one operation; 0 leaves it to TensorFlow."""
    tensorflow_inter_op_parallelism: int = 0
    """Operations of one request at the same time; 0 leaves it to TensorFlow."""
    request_threads: int = 8
    """Not a flag of the real server: requests computed at the same time, on either side."""
    rest_api_max_body_bytes: int = 256 * 1024 * 1024
    """Not a flag of the real server: larger bodies are answered with 413."""
    drain_seconds: float = 20.0
    """Not a flag of the real server: how long requests in flight may take after SIGTERM."""


def parse_flags(arguments: Sequence[str]) -> Flags:
    """Read the command line; SystemExit 2, with usage on standard error, if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.model_server",
        description="Serve TensorFlow SavedModels over gRPC and REST, as tensorflow_model_server does.",
        epilog="python -m serving.model_server check --help: compare a SavedModel's answers with recorded ones.",
        allow_abbrev=False,
    )
    for field in fields(Flags):
        name, default = f"--{field.name}", field.default
        if isinstance(default, bool):
            parser.add_argument(name, type=_boolean, nargs="?", const=True, default=default, metavar="BOOL")
        else:
            parser.add_argument(name, type=type(default), default=default, help="default: %(default)s")
    return Flags(**vars(parser.parse_args(arguments)))


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return words[text.lower()]
    except KeyError:
        msg = f"expected true or false, received {text!r}"
        raise argparse.ArgumentTypeError(msg) from None
