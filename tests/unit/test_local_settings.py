from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from infra.local.errors import SettingsError
from infra.local.settings import (
    ensure_settings_file,
    initial_settings,
    known_settings,
    parse_address,
    read_settings,
    set_setting,
    settings_file,
    state_folder,
    stated_settings,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_first_use_makes_a_private_file_with_random_passwords(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for state in (one, two):
        path = ensure_settings_file(state)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first, second = read_settings(one, {}), read_settings(two, {})
    assert first.airflow_password != second.airflow_password
    assert first.redis_url != second.redis_url
    assert len(first.airflow_password) >= 16


def test_second_use_keeps_the_passwords(tmp_path: Path) -> None:
    first = read_settings(tmp_path, {})
    assert read_settings(tmp_path, {}) == first


def test_every_setting_of_a_new_file_is_known_to_some_plane() -> None:
    lines = [line.removeprefix("#") for line in initial_settings().splitlines()]
    names = {line.partition("=")[0] for line in lines if line.startswith("KESTREL_")}
    assert len(names) > 15
    assert names <= known_settings()


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    ensure_settings_file(tmp_path)
    environ = {"KESTREL_MLFLOW_URI": "http://127.0.0.1:5999"}
    assert read_settings(tmp_path, environ).addresses["mlflow_uri"].port == 5999
    assert stated_settings(tmp_path, environ)["KESTREL_MLFLOW_URI"] == "http://127.0.0.1:5999"


def test_unknown_setting_in_the_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = ensure_settings_file(tmp_path)
    path.write_text(path.read_text() + "KESTREL_REDIS_ULR=redis://127.0.0.1:1/0\n")
    with pytest.raises(SettingsError, match=r"settings\.env: unknown setting KESTREL_REDIS_ULR.*KESTREL_REDIS_URL"):
        read_settings(tmp_path, {})


def test_unknown_setting_in_the_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"environment: unknown setting KESTREL_NAMESPASE.*KESTREL_NAMESPACE"):
        read_settings(tmp_path, {"KESTREL_NAMESPASE": "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KESTREL_MIN_FREE_DISK_GB", "plenty"),
        ("KESTREL_MIN_FREE_DISK_GB", "-1"),
        ("KESTREL_START_TIMEOUT_S", "0"),
        ("KESTREL_NAMESPACE", "My Data"),
        ("KESTREL_AIRFLOW_PASSWORD", "short"),
    ],
)
def test_value_out_of_range_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: .*received '{value}'"):
        read_settings(tmp_path, {name: value})


@pytest.mark.parametrize("value", ["nowhere", "127.0.0.1:99999", "http://:80", "127.0.0.1:", "http://host:port"])
def test_address_without_host_and_port_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"KESTREL_MODEL_SERVER_GRPC=.*expected an address with a host and a port"):
        parse_address("KESTREL_MODEL_SERVER_GRPC", value)


@pytest.mark.parametrize(
    ("value", "is_loopback"),
    [
        ("127.0.0.1:1", True),
        ("http://localhost:5000", True),
        ("redis://:secret@[::1]:6390/0", True),
        ("http://mlflow.example.org:80", False),
        ("10.0.0.7:8500", False),
    ],
)
def test_only_loopback_addresses_are_ours(value: str, *, is_loopback: bool) -> None:
    assert parse_address("KESTREL_X", value).is_loopback is is_loopback


def test_setting_is_written_in_place_and_comments_stay(tmp_path: Path) -> None:
    path = ensure_settings_file(tmp_path)
    before = path.read_text().splitlines()
    assert set_setting(tmp_path, "KESTREL_NAMESPACE", "ml-1m")
    after = path.read_text().splitlines()
    assert [line for line in before if line not in after] == ["KESTREL_NAMESPACE=ml-100k"]
    assert read_settings(tmp_path, {}).namespace == "ml-1m"
    assert not set_setting(tmp_path, "KESTREL_NAMESPACE", "ml-1m")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_commented_default_is_replaced_where_it_stands(tmp_path: Path) -> None:
    path = ensure_settings_file(tmp_path)
    count = len(path.read_text().splitlines())
    assert set_setting(tmp_path, "KESTREL_START_TIMEOUT_S", "7")
    assert len(path.read_text().splitlines()) == count
    assert read_settings(tmp_path, {}).start_timeout_s == 7


def test_state_folder_is_absolute_and_must_be_writable_as_configuration(tmp_path: Path) -> None:
    assert state_folder({}).is_absolute()
    assert state_folder({"KESTREL_STATE": str(tmp_path)}) == tmp_path.resolve()
    for name in ("/srv/50%", "/srv/a;b", "/srv/a #b", "/srv/$HOME", "/srv/a?b", "/srv/a:b", "/srv/it's"):
        with pytest.raises(SettingsError, match=r"expected a path without quotes.*KESTREL_STATE"):
            state_folder({"KESTREL_STATE": name})


def test_settings_file_lies_in_the_state_folder(tmp_path: Path) -> None:
    assert settings_file(tmp_path) == tmp_path / "settings.env"


@pytest.mark.parametrize("hours", ["0", "nan", "9000", "six"])
def test_a_time_that_no_task_can_have_is_refused_before_anything_starts(tmp_path: Path, hours: str) -> None:
    with pytest.raises(SettingsError, match=f"KESTREL_TASK_TIMEOUT_HOURS: .*{hours}"):
        read_settings(tmp_path, {"KESTREL_TASK_TIMEOUT_HOURS": hours})
    assert read_settings(tmp_path, {"KESTREL_TASK_TIMEOUT_HOURS": "12"}).task_timeout_hours == 12
