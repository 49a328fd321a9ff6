"""The pages that Airflow's web server shows beside its own."""

import asyncio
import subprocess
import sys

import httpx
import pytest

from dags.plugins.kestrel_reports import HEADERS, KestrelReports, find_report, reports_app
from feature_repo.contracts.places import REPORT, REPOSITORY, Namespace

NAME = "19980425T000000Z-0123abcd"


@pytest.fixture
def report(tmp_path, monkeypatch):
    monkeypatch.setenv("KESTREL_STATE", str(tmp_path))
    file = Namespace(tmp_path, "ml-100k").reports / "checks" / NAME / REPORT
    file.parent.mkdir(parents=True)
    file.write_text("<p>fine</p>")
    (tmp_path / "settings.env").write_text("SECRET=1")
    (file.parent.parent / "other-0123abcd").mkdir()
    return file


def test_a_report_is_found_by_its_names(report):
    assert find_report("ml-100k", "checks", NAME) == report


@pytest.mark.parametrize(
    ("namespace", "kind", "name"),
    [
        ("ml-100k", "checks", "19980425T000000Z-99999999"),
        ("ml-100k", "checks", "other-0123abcd"),
        ("ml-100k", "checks", "../../../settings.env"),
        ("ml-100k", "checks", ".."),
        ("ml-100k", "lake", NAME),
        ("../ml-100k", "checks", NAME),
        ("ML", "checks", NAME),
    ],
)
def test_no_other_file_is(report, namespace, kind, name):
    assert find_report(namespace, kind, name) is None


def ask(app, path, method="GET"):
    """Send one request to the application."""

    async def send():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://airflow") as client:
            return await client.request(method, path)

    return asyncio.run(send())


@pytest.mark.parametrize("name", [NAME, "nothing-0", "%2e%2e"])
def test_nobody_learns_anything_without_logging_in(report, name):
    answer = ask(reports_app(), f"/ml-100k/checks/{name}")
    assert (answer.status_code, answer.json()) == (401, {"detail": "Not authenticated"})


def test_who_may_see_it_gets_a_page_that_can_do_nothing(report):
    app = reports_app()
    (dependency,) = (each.call for each in app.routes[0].dependant.dependencies)
    app.dependency_overrides[dependency] = lambda: None
    answer = ask(app, f"/ml-100k/checks/{NAME}")
    assert (answer.status_code, answer.text) == (200, "<p>fine</p>")
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert ask(app, "/ml-100k/checks/nothing-0").status_code == 404
    assert ask(app, f"/ml-100k/checks/{NAME}", "POST").status_code == 405


def test_the_plugin_brings_nothing_but_this_application():
    (app,) = KestrelReports.fastapi_apps
    assert app["url_prefix"] == "/reports"
    paths = {f"/{{namespace}}/{kind}/{{name}}" for kind in ("checks", "embeddings", "refusals")}
    assert {route.path for route in app["app"].app.routes} == paths


def test_loading_the_plugin_costs_a_task_nothing():
    """Airflow loads it in every process; the web server's own modules take seconds."""
    code = "import airflow.plugins_manager, sys; before = set(sys.modules); import dags.plugins.kestrel_reports\n"
    code += "print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if not name.startswith(("dags", "feature_repo"))}
    assert not {name for name in loaded if name.split(".")[0] in {"airflow", "fastapi", "starlette"}}, loaded
