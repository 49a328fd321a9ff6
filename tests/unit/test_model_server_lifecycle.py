"""Which versions are wanted, and when an unwanted one may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.model_server.flags import Flags, channel_arguments, parse_flags
from serving.model_server.lifecycle import State, aspired, to_unload, versions_on_disk
from serving.model_server.model_config import PolicyKind, VersionPolicy

if TYPE_CHECKING:
    from pathlib import Path

versions = st.frozensets(st.integers(0, 9))
states = st.dictionaries(st.integers(0, 9), st.sampled_from(State))


def test_only_names_that_are_numbers_are_versions(tmp_path: Path) -> None:
    for name in ("1", "007", "7", ".8.part", "9x", "latest", "99999999999999999999"):
        (tmp_path / name).mkdir()
    assert versions_on_disk(tmp_path) == {1: tmp_path / "1", 7: tmp_path / "7"}
    with pytest.raises(FileNotFoundError):
        versions_on_disk(tmp_path / "absent")


def test_policies() -> None:
    on_disk = {1, 2, 5}
    assert aspired(VersionPolicy(), on_disk) == {5}
    assert aspired(VersionPolicy(PolicyKind.LATEST, count=2), on_disk) == {5, 2}
    assert aspired(VersionPolicy(PolicyKind.ALL), on_disk) == on_disk
    assert aspired(VersionPolicy(PolicyKind.SPECIFIC, versions=frozenset({1, 9})), on_disk) == {1}


@settings(deadline=None)
@given(versions, states)
def test_the_last_available_version_never_goes_for_one_that_is_not(
    wanted: frozenset[int], found: dict[int, State]
) -> None:
    gone = to_unload(wanted, found)
    available = {version for version, state in found.items() if state is State.AVAILABLE}
    assert set(gone) <= available - wanted
    if wanted and available:
        assert available - set(gone), "something still serves"
    if not wanted or available & wanted:
        assert set(gone) == available - wanted


def test_flags_are_read_as_the_real_server_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    flags = parse_flags(
        ["--port=1", "--rest_api_port", "2", "--enable_grpc_healthcheck_service", "--file_system_poll_wait_seconds=0.5"]
    )
    assert (flags.port, flags.rest_api_port, flags.enable_grpc_healthcheck_service) == (1, 2, True)
    assert flags.bind_address == Flags().bind_address == "127.0.0.1"
    assert parse_flags(["--allow_version_labels_for_unavailable_models=false"]) == Flags()
    with pytest.raises(SystemExit) as ended:
        parse_flags(["--enable_grpc_healthcheck_service=perhaps"])
    assert ended.value.code == 2
    assert "expected true or false, received 'perhaps'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no_such_flag=1"], "unrecognized arguments: --no_such_flag=1"),
        (["--ssl_config_file=a"], "--ssl_config_file=a: expected no value, this server has no such thing"),
        (["--prefer_tflite_model"], "--prefer_tflite_model=true: expected false, this server has no such thing"),
        (["--port=8501", "--rest_api_port=8501"], "expected another port than --port"),
        (["--batching_parameters_file=a"], "without setting --enable_batching to true"),
        (["--tensorflow_session_parallelism=1", "--tensorflow_intra_op_parallelism=1"], "received both"),
        (["--grpc_max_threads=0"], "--grpc_max_threads: expected at least 1, received 0"),
        (["--grpc_channel_arguments=a"], "expected key=value"),
        (["--rest_api_timeout_in_ms=soon"], "invalid int value: 'soon'"),
    ],
)
def test_flags_that_cannot_be_kept_are_refused_with_usage(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_flags(arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert "usage:" in printed
    assert words in printed


def test_flags_of_the_real_server_that_deployments_pass_are_taken() -> None:
    flags = parse_flags(
        [
            "--enable_batching",
            "--prefer_tflite_model=false",
            "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=pick_first",
            "--rest_api_num_threads=3",
            "--flush_filesystem_caches=false",
            "--num_unload_threads=1",
        ]
    )
    assert (flags.enable_batching, flags.rest_api_num_threads) == (True, 3)
    assert channel_arguments(flags.grpc_channel_arguments) == (
        ("grpc.max_connection_age_ms", 2000),
        ("grpc.lb_policy_name", "pick_first"),
    )
