from __future__ import annotations

import os
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from supervisor.options import ServerOptions

from feature_repo.contracts.orchestration import POOL_COMMAND
from infra.local import stack
from infra.local.errors import PartFailedError, PreflightError, SettingsError
from infra.local.parts import Part, common_environment, local_parts
from infra.local.places import Places
from infra.local.preflight import check_machine, check_ports
from infra.local.settings import Address, LocalSettings, read_settings
from infra.local.supervisor import render, write_configuration
from infra.local.toolchain import Toolchain
from tests.movielens import FEATURES

if TYPE_CHECKING:
    from types import SimpleNamespace

TOOLCHAIN = Toolchain(Path("/opt/java home"), Path("/usr/bin/redis-server"), Path("/archives"))


def part(name: str, *command: str, environment: dict[str, str] | None = None) -> Part:
    return Part(name, command or ("/bin/true",), environment or {}, (), lambda: None, "")


def parsed(places: Places, parts: list[Part], environment: dict[str, str]) -> dict[str, SimpleNamespace]:
    """What supervisor itself reads out of the rendered configuration."""
    places.logs.mkdir(parents=True)
    write_configuration(parts, environment, places)
    options = ServerOptions()
    options.realize(args=["-c", str(places.supervisor_config)])
    return {group.process_configs[0].name: group.process_configs[0] for group in options.process_group_configs}


def test_supervisor_reads_back_the_commands_and_variables_that_went_in(tmp_path: Path) -> None:
    values = {"PLAIN": "1", "PASSWORD": "a%b(c)s,=;x y", "QUOTED": 'say "hi" twice'}
    odd = part("odd", "/bin/echo", "a b", "50%", "--x=y", environment={"OWN": "it's"})
    programs = parsed(Places(tmp_path), [odd, part("other")], values)
    assert list(programs) == ["odd", "other"]
    assert programs["odd"].environment == {**values, "OWN": "it's"}
    assert programs["other"].environment == values
    assert programs["odd"].command == "/bin/echo 'a b' 50% --x=y"
    assert not programs["odd"].autostart
    assert programs["odd"].killasgroup


def test_configuration_is_private(tmp_path: Path) -> None:
    places = Places(tmp_path)
    write_configuration([part("a")], {"SECRET": "x"}, places)
    assert places.supervisor_config.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("value", ["a\"'b", '"quoted"', "two\nlines"])
def test_value_that_supervisor_cannot_hold_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match="BAD: expected one printable line"):
        render([part("a")], {"BAD": value}, Places(tmp_path))


def test_long_state_path_gets_a_short_socket(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    socket = Places(long).socket
    assert len(os.fsencode(socket)) < 100
    assert socket != Places(tmp_path / ("y" * 120)).socket
    assert Places(Path("/s")).socket == Path("/s/run/supervisor.sock")


def settings_of(tmp_path: Path, **values: str) -> LocalSettings:
    return read_settings(tmp_path, {f"KESTREL_{name.upper()}": value for name, value in values.items()})


def test_foreign_addresses_are_not_started(tmp_path: Path) -> None:
    places = Places(tmp_path)
    everything = local_parts(places, settings_of(tmp_path), TOOLCHAIN)
    assert next(iter(everything)) == "redis"
    assert {"mlflow", "airflow-scheduler", "model-server", "recommender", "stream"} < set(everything)
    foreign = settings_of(tmp_path, mlflow_uri="http://mlflow.example.org:80", redis_url="redis://10.1.2.3:6379/0")
    assert set(everything) - set(local_parts(places, foreign, TOOLCHAIN)) == {"mlflow", "redis"}


def test_a_changed_feature_restarts_what_derives_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rendered() -> dict[str, dict[str, str]]:
        parts = local_parts(Places(tmp_path), settings_of(tmp_path), TOOLCHAIN)
        return {name: dict(each.environment) for name, each in parts.items()}

    before = rendered()
    monkeypatch.setattr("infra.local.parts.declared", lambda _: replace(FEATURES, item_profile=None))
    after = rendered()
    assert {name for name in before if before[name] != after[name]} == {"recommender", "stream"}


def test_only_the_recommender_is_told_the_namespace(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, namespace="ml-1m")
    stated = {"KESTREL_NAMESPACE": "ml-1m", "KESTREL_SPARK_MASTER": "local[1]"}
    common = common_environment(Places(tmp_path), stated, TOOLCHAIN, {"PATH": "/bin"})
    assert "KESTREL_NAMESPACE" not in common
    assert common["KESTREL_SPARK_MASTER"] == "local[1]"
    assert common["JAVA_HOME"] == "/opt/java home"
    parts = local_parts(Places(tmp_path), settings, TOOLCHAIN)
    assert {name for name, each in parts.items() if "KESTREL_NAMESPACE" in each.environment} == {"recommender"}
    assert {name for name, each in parts.items() if "ml-1m" in each.command} == {"stream"}


def test_call_from_another_terminal_changes_nothing(tmp_path: Path) -> None:
    here, there = {"PATH": "/bin", "TERM": "dumb"}, {"PATH": "/opt/tool/bin:/bin", "VIRTUAL_ENV": "/elsewhere"}
    first, second = (common_environment(Places(tmp_path), {}, TOOLCHAIN, environ) for environ in (here, there))
    assert first == second


def test_airflow_keys_are_made_once(tmp_path: Path) -> None:
    first = local_parts(Places(tmp_path), settings_of(tmp_path), TOOLCHAIN)["airflow-scheduler"].environment
    again = local_parts(Places(tmp_path), settings_of(tmp_path), TOOLCHAIN)["airflow-scheduler"].environment
    assert first == again
    assert len(first["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 64


def test_two_settings_with_one_port_are_refused() -> None:
    one = replace(part("one"), addresses=(Address("KESTREL_A", "127.0.0.1", 1),))
    two = replace(part("two"), addresses=(Address("KESTREL_B", "127.0.0.1", 1),))
    with pytest.raises(PreflightError, match="KESTREL_A"):
        check_ports([one, two])


def test_short_disk_and_memory_are_refused_with_the_setting(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with pytest.raises(PreflightError, match=r"GB of free disk, expected at least 1e\+07.*KESTREL_MIN_FREE_DISK_GB"):
        check_machine(tmp_path, settings.model_copy(update={"min_free_disk_gb": 1e7}))
    with pytest.raises(PreflightError, match="KESTREL_MIN_FREE_MEMORY_GB"):
        check_machine(tmp_path, settings.model_copy(update={"min_free_disk_gb": 0, "min_free_memory_gb": 1e6}))


def test_airflows_pool_is_made_once_for_each_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    places = Places(tmp_path)
    for folder in (places.airflow, places.logs):
        folder.mkdir(parents=True)
    described = stack.Stack(places, settings, {}, {})
    calls: list[list[str]] = []

    def run(command: list[str], *, env: dict[str, str], **_: object) -> subprocess.CompletedProcess[bytes]:
        calls.append(command[1:])
        sqlite3.connect(env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///")).close()
        return subprocess.CompletedProcess(command, int("pools" in command and len(calls) == 2))

    monkeypatch.setattr("infra.local.stack.subprocess.run", run)

    def up() -> None:
        stack.migrate_airflow(described, lambda _: None)
        stack.make_airflow_pool(described)

    with pytest.raises(PartFailedError, match="Airflow's pool could not be made"):
        up()
    up()
    up()
    (places.airflow / "airflow.db").unlink()
    up()
    migration, pool = ["-m", "airflow", "db", "migrate"], list(POOL_COMMAND)
    assert calls == [migration, pool, pool, migration, pool]
