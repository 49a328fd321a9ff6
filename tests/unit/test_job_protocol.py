"""How a job ends, seen from outside: real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from feature_repo.contracts.exit_codes import ExitCode, is_transient
from feature_repo.contracts.jobs import (
    JobError,
    RejectedError,
    SupersededError,
    TransientError,
    exit_code_of,
    reason_told,
)
from feature_repo.contracts.planes import JobFailedError, run_plane

REPOSITORY = Path(__file__).parents[2]


def run(body):
    code = f"from feature_repo.contracts.jobs import *\nimport errno, logging\ndef job():\n    {body}\nrun_job(job)"
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_the_result_is_the_last_line_and_logs_go_elsewhere():
    done = run("print('progress'); logging.info('log'); return {'rows': 3}")
    assert done.returncode == ExitCode.OK
    assert json.loads(done.stdout.splitlines()[-1]) == {"rows": 3}
    assert "log" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("JobError('no')", ExitCode.TERMINAL),
        ("TransientError('no')", ExitCode.TRANSIENT),
        ("RejectedError('no')", ExitCode.REJECTED),
        ("SupersededError('no')", ExitCode.SUPERSEDED),
        ("ConnectionRefusedError('no')", ExitCode.TRANSIENT),
        ("TimeoutError('no')", ExitCode.TRANSIENT),
        ("OSError(errno.ENOSPC, 'no')", ExitCode.TRANSIENT),
        ("OSError(errno.EACCES, 'no')", ExitCode.TERMINAL),
        ("KeyError('no')", ExitCode.TERMINAL),
    ],
)
def test_every_error_has_its_exit_code_and_the_reason_is_the_last_word(error, code):
    done = run(f"raise {error}")
    assert done.returncode == code
    assert "no" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "error",
    [
        "OSError(errno.ENOSPC, 'no')",
        "OSError(errno.EFBIG, 'no')",
        "ValueError('Py4JJavaError:\\n java.io.IOException: No space left on device\\n\\tat Task.java:7')",
        "ValueError('Out of Memory Error: limit set by max_temp_directory_size')",
        "ValueError('(sqlite3.OperationalError) database or disk is full')",
        "FileNotFoundError(2, 'No usable temporary directory found in /tmp')",
        "KeyError('while it cleaned up') from OSError(errno.EDQUOT, 'no')",
    ],
)
def test_a_full_disk_is_worth_another_try_whoever_came_upon_it_and_the_remedy_is_named(error):
    done = run(f"raise {error}")
    assert done.returncode == ExitCode.TRANSIENT
    assert "free some of the disk" in done.stderr.splitlines()[-1]


def test_an_error_with_a_result_prints_it_where_results_are_printed():
    done = run("error = JobError('2 checks failed'); error.result = {'report': 'checks/1-ab'}; raise error")
    assert done.returncode == ExitCode.TERMINAL
    assert json.loads(done.stdout.splitlines()[-1]) == {"report": "checks/1-ab"}
    assert done.stderr.splitlines()[-1] == "terminal: 2 checks failed"
    assert not run("raise JobError('no')").stdout


@pytest.mark.parametrize("kind", [JobError, TransientError, RejectedError, SupersededError])
def test_whoever_started_a_job_finds_its_reason_whole(kind):
    done = run(f"logging.info('log'); raise {kind.__name__}('two lines:\\n\\n- one')")
    name = kind.exit_code.name.lower()
    assert reason_told(done.returncode, done.stderr.splitlines()) == f"{name}: two lines:\n\n- one"


@pytest.mark.parametrize(
    ("status", "lines", "reason"),
    [
        (1, ["terminal: a", "terminal: b"], "terminal: a\nterminal: b"),
        (1, ["transient: a", "b", " "], "b"),
        (75, ["transient: a", "b"], "transient: a\nb"),
        (2, ["Usage: x", "Try 'x --help' for help.", "", "Error: no y"], "Error: no y"),
        (2, ["usage: x [-h]", "x: error: no y"], "x: error: no y"),
        (-9, ["killed soon"], "killed soon"),
        (3, [], ""),
    ],
)
def test_the_reason_begins_where_the_job_says_how_it_ended(status, lines, reason):
    assert reason_told(status, lines) == reason


@pytest.mark.parametrize(
    "module",
    [
        *("pipelines", "models", "serving.rollout", "serving.lists", "serving.recommender"),
        "serving.model_server check",
    ],
)
def test_a_wrong_command_line_ends_with_its_sentence(module):
    command = [sys.executable, "-m", *module.split(), "--nonsense"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.splitlines()[-1].startswith("Error: No such option: --nonsense")


@pytest.mark.parametrize(
    "command",
    ["check", "features", "embeddings", "channels", "materialize", "publish", "training-set", "questions", "ingest"],
)
def test_a_cutoff_after_the_clock_is_refused_by_every_command(command):
    source = ["--source", "s"] if command == "ingest" else []
    arguments = ["--namespace", "x", *source, "--cutoff", "9000-01-01"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", command, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.USAGE
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: Invalid value for '--cutoff': cutoff 9000-01-01T00:00:00Z lies after the clock, ")
    assert last.endswith("at the latest")


def test_an_ingestion_is_refused_by_the_clock_that_it_is_given():
    command = [sys.executable, "-m", "pipelines", "ingest", "--namespace", "x", "--source", "/nowhere"]
    clock = ["--clock", "1998-04-23T23:59:59Z"]
    for cutoff, status in (("1998-04-24", ExitCode.USAGE), ("1998-04-23", ExitCode.TERMINAL)):
        arguments = [*command, *clock, "--cutoff", cutoff]
        done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
    assert "/nowhere" in done.stderr.splitlines()[-1]


def test_a_jobs_own_error_shows_no_traceback_and_a_bug_does():
    assert "Traceback" not in run("raise JobError('file a: expected b')").stderr
    assert "Traceback" in run("raise KeyError('bug')").stderr


@pytest.mark.parametrize(
    ("status", "transient"),
    [(0, False), (1, False), (2, False), (10, False), (11, False), (75, True), (137, True), (143, True), (-9, True)],
)
def test_only_the_transient_code_and_signals_are_worth_another_try(status, transient):
    assert is_transient(status) is transient


def test_errors_know_their_codes():
    codes = {exit_code_of(error("x")) for error in (JobError, TransientError, RejectedError, SupersededError)}
    assert len(codes) == 4


@pytest.mark.parametrize(
    ("status", "is_transient"), [(ExitCode.TERMINAL, False), (ExitCode.TRANSIENT, True), (ExitCode.REJECTED, False)]
)
def test_whoever_runs_a_job_is_told_whether_another_try_may_succeed(status, is_transient, tmp_path):
    text = f"import sys; sys.stderr.write('no luck'); sys.exit({int(status)})"
    (tmp_path / "a_job.py").write_text(text, encoding="utf-8")
    told = rf"python -m a_job --now ended with status {int(status)}:\nno luck"
    with pytest.raises(JobFailedError, match=told) as raised:
        run_plane(["a_job", "--now"], {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert raised.value.status == status
    assert isinstance(raised.value, TransientError) is is_transient
    assert exit_code_of(raised.value) is (ExitCode.TRANSIENT if is_transient else ExitCode.TERMINAL)


def test_a_jobs_result_is_its_last_line(tmp_path):
    (tmp_path / "a_job.py").write_text("print('words'); print('{\"rows\": 3}')", encoding="utf-8")
    assert run_plane(["a_job"], {**os.environ, "PYTHONPATH": str(tmp_path)}) == {"rows": 3}
