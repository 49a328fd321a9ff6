"""How a job's end becomes a task's state. The jobs here are real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import timedelta
from threading import Thread

import psutil
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, AirflowTaskTimeout
from airflow.sdk.execution_time.task_runner import _run_execute_callable

from dags._jobs import REPOSITORY, JobOperator, ReportingJobOperator
from dags._memory import oom_kills
from dags._policy import FEATURES, run_key
from feature_repo.contracts.exit_codes import ExitCode
from infra.local.processes import wait_until_ended


class OutletEvent:
    """Records what the operator does to Airflow's outlet event."""

    def __init__(self):
        self.partitions, self.extra = [], {}

    def add_partitions(self, key):
        self.partitions.append(key)


class TaskState(dict):
    """What the tries of a task share."""

    def set(self, key, value):
        self[key] = value

    def delete(self, key):
        self.pop(key, None)


class TaskInstance:
    """Records what the operator pushes."""

    def __init__(self):
        self.pushed = {}

    def xcom_push(self, key, value):
        self.pushed[key] = value


@pytest.fixture
def context():
    return {"outlet_events": {FEATURES: OutletEvent()}, "ti": TaskInstance(), "task_state_store": TaskState()}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A module of the given code, run by the operator as any plane's job is."""

    def build(code, kind=JobOperator, **arguments):
        (tmp_path / "stand_in_job.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
        return kind(task_id="job", module="stand_in_job", command="run", options={}, **arguments)

    return build


def test_last_line_of_output_is_the_result_and_the_asset_gets_it_with_the_partition(job, context):
    operator = job(
        "import sys; print('noise'); print('log', file=sys.stderr); print('{\"rows\": 3}')",
        emits=FEATURES,
        partition_key="a|b",
    )
    assert operator.execute(context) == {"rows": 3}
    event = context["outlet_events"][FEATURES]
    assert event.partitions == ["a|b"]
    assert event.extra == {"rows": 3}


@pytest.mark.parametrize("code", [ExitCode.REJECTED, ExitCode.SUPERSEDED])
def test_rejected_and_superseded_are_skipped_with_the_reason_and_emit_nothing(job, context, code):
    operator = job(f"import sys; print('AUC fell', file=sys.stderr); sys.exit({code.value})", emits=FEATURES)
    with pytest.raises(AirflowSkipException, match="AUC fell"):
        operator.execute(context)
    assert context["ti"].pushed == {"reason": "AUC fell"}
    assert context["outlet_events"][FEATURES].partitions == []


@pytest.mark.parametrize(("end", "error"), [("", None), ("sys.exit(1)", AirflowFailException)])
def test_a_report_is_linked_whether_the_job_succeeds_or_not(job, context, end, error, monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080/")
    operator = job(f'import sys; print(\'{{"report": "checks/1-ab"}}\'); {end}', kind=ReportingJobOperator)
    operator.options = {"namespace": "ml-100k"}
    (link,) = operator.operator_extra_links
    assert not link.get_link(operator, ti_key=None), "there is none yet"
    with pytest.raises(error) if error else nullcontext():
        operator.execute(context)
    assert link.get_link(operator, ti_key=None) == "http://127.0.0.1:8080/reports/ml-100k/checks/1-ab"
    assert context["ti"].pushed == ({"result": {"report": "checks/1-ab"}} if error else {})


@pytest.mark.parametrize("words", ["", "not json", "[1]", "3"])
def test_a_failed_job_without_a_result_has_no_report(job, context, words):
    operator = job(f"import sys; print({words!r}); sys.exit(1)", kind=ReportingJobOperator)
    with pytest.raises(AirflowFailException):
        operator.execute(context)
    assert operator.result == {}
    assert context["ti"].pushed == {}


@pytest.mark.parametrize("code", [ExitCode.TERMINAL, ExitCode.USAGE, 3])
def test_terminal_ends_are_not_retried_and_carry_the_last_words(job, context, code):
    operator = job(f"import sys; print('no column rating', file=sys.stderr); sys.exit({int(code)})")
    with pytest.raises(AirflowFailException, match="no column rating"):
        operator.execute(context)


def test_a_reason_of_several_lines_is_told_whole_and_without_the_log_before_it(job, context):
    words = "log\nterminal: my.yaml: 2 faults\n  line 3: no item\n  line 9: no time\n"
    operator = job(f"import sys; sys.stderr.write({words!r}); sys.exit(1)")
    with pytest.raises(AirflowFailException) as error:
        operator.execute(context)
    ending = "job run ended with status 1: terminal: my.yaml: 2 faults\n  line 3: no item\n  line 9: no time"
    assert str(error.value) == f"stand_in_{ending}"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"namespace": "x"}, "Missing option '--source'."),
        ({"namespace": "x", "source": "s", "cutoff": "soon"}, "cutoff 'soon': expected a date such as 1998-04-23"),
        ({"namespace": "NO", "source": "s"}, "expected up to 48 lower case letters"),
    ],
)
def test_a_command_line_that_is_wrong_fails_for_good_with_its_sentence(context, monkeypatch, options, sentence):
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    operator = JobOperator(task_id="ingest", module="pipelines", command="ingest", options=options)
    with pytest.raises(AirflowFailException) as error:
        operator.execute(context)
    assert str(error.value).startswith("pipelines ingest ended with status 2: Error: ")
    assert sentence in str(error.value)


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "x" * 200_000])
def test_an_option_that_no_process_can_have_fails_for_good(job, context, value):
    operator = job("")
    operator.options = {"reason": value}
    with pytest.raises(AirflowFailException, match="correct the conf"):
        operator.execute(context)


@pytest.mark.parametrize("end", [f"sys.exit({ExitCode.TRANSIENT.value})", "os.kill(os.getpid(), 9)", "sys.exit(143)"])
def test_transient_ends_and_signals_are_retried(job, context, end):
    operator = job(f"import os, sys; {end}")
    with pytest.raises(AirflowException) as error:
        operator.execute(context)
    assert not isinstance(error.value, AirflowFailException | AirflowSkipException)


def hanging_code(pids):
    """A job that hangs as its child does, which minds no SIGTERM; their process ids stand in a file then."""
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(); time.sleep(600)"
    return (
        "import json, os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-uc', {child!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        f"open({str(pids)!r} + '.part', 'w').write(json.dumps([os.getpid(), child.pid]))\n"
        f"os.rename({str(pids)!r} + '.part', {str(pids)!r})\n"
        "time.sleep(600)\n"
    )


def hanging_processes(pids):
    deadline = time.monotonic() + 60
    while not pids.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return [psutil.Process(pid) for pid in json.loads(pids.read_text())]


def test_killing_the_task_ends_the_jobs_whole_process_group(job, context, tmp_path):
    pids = tmp_path / "pids"
    operator = job(hanging_code(pids))
    errors = []

    def run():
        try:
            operator.execute(context)
        except AirflowException as error:
            errors.append(error)

    thread = Thread(target=run)
    thread.start()
    processes = hanging_processes(pids)
    operator.on_kill()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert errors
    assert wait_until_ended(processes, 10) == []


def test_a_signal_to_the_task_ends_its_job_without_waiting_for_the_grace_to_pass(job, context, tmp_path, monkeypatch):
    """Airflow calls `on_kill` in the handler, while `execute` waits."""
    monkeypatch.setattr("dags._jobs._GRACE_SECONDS", 600)
    pids = tmp_path / "pids"
    operator = job(hanging_code(pids))
    found = []

    def ask():
        found.extend(hanging_processes(pids))
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        thread = Thread(target=ask)
        thread.start()
        with pytest.raises(AirflowException, match="ended with status 143"):
            operator.execute(context)
        thread.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert wait_until_ended(found, 60) == []


def test_a_job_that_hangs_is_ended_on_time_out_and_the_failure_says_so(job, context, tmp_path):
    """As Airflow runs a task; the time-out comes once the job hangs, however busy the machine is."""
    pids = tmp_path / "pids"
    operator = job(hanging_code(pids), execution_timeout=timedelta(hours=2))
    found = []

    def let_time_pass():
        found.extend(hanging_processes(pids))
        os.kill(os.getpid(), signal.SIGALRM)

    thread = Thread(target=let_time_pass)
    thread.start()
    before = signal.getsignal(signal.SIGALRM)
    try:
        with pytest.raises(AirflowTaskTimeout, match="stand_in_job run: expected an end within 2 hours, and was ended"):
            _run_execute_callable(context, operator.execute, operator)
    finally:
        signal.signal(signal.SIGALRM, before)
    thread.join()
    assert len(found) == 2
    assert wait_until_ended(found, 60) == []


@pytest.mark.parametrize("killed", ["task", "supervisor"])
def test_a_job_dies_with_the_task_that_was_killed_and_so_do_its_children(job, tmp_path, killed):
    pids = tmp_path / "pids"
    job(hanging_code(pids))  # the module, and the environment that finds it
    task = (
        "from dags._jobs import JobOperator\n"
        "JobOperator(task_id='job', module='stand_in_job', command='run', options={}).execute({})\n"
    )
    supervisor = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {task!r}])"
    code = task if killed == "task" else supervisor
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.DEVNULL) as process:
        processes = hanging_processes(pids)
        process.kill()
    assert len(processes) == 2
    assert wait_until_ended(processes, 60) == []


@pytest.fixture
def memory(monkeypatch):
    """What the kernel's counter says, look by look."""

    def counter(*looks):
        values = iter(looks)
        monkeypatch.setattr("dags._jobs.oom_kills", lambda: next(values))

    return counter


def test_a_second_kill_for_want_of_memory_is_terminal_and_names_the_remedy(job, context, memory):
    operator = job("import os; os.kill(os.getpid(), 9)")
    memory(3, 4, 4, 6)
    with pytest.raises(AirflowException, match="for want of memory; another try may find more") as first:
        operator.execute(context)
    assert not isinstance(first.value, AirflowFailException)
    with pytest.raises(AirflowFailException, match=r"as a try before was.*more memory.*KESTREL_SPARK_DRIVER_MEMORY"):
        operator.execute(context)
    assert context["task_state_store"] == {}, "who mended it and clears the task begins anew"


@pytest.mark.parametrize(("end", "looks"), [("os.kill(os.getpid(), 9)", (3, 3)), ("os.kill(os.getpid(), 15)", (3, 4))])
def test_other_kills_stay_transient_however_often_they_come(job, context, memory, end, looks):
    operator = job(f"import os; {end}")
    for _ in range(2):
        memory(*looks)
        with pytest.raises(AirflowException, match="ended with status 1") as error:
            operator.execute(context)
        assert not isinstance(error.value, AirflowFailException)


def test_the_kernels_counters_of_killed_processes_are_added_up(tmp_path):
    files = {
        "proc/vmstat": "nr_free_pages 7\noom_kill 2\n",
        "proc/self/cgroup": "1:cpu:/x\n0::/kestrel/jobs\n",
        "sys/fs/cgroup/kestrel/jobs/memory.events": "low 0\noom 9\noom_kill 5\noom_group_kill 1\n",
    }
    assert oom_kills(tmp_path) == 0
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert oom_kills(tmp_path) == 7
    assert oom_kills() >= 0


def test_run_key_is_a_folder_name_that_stays_the_same():
    key = run_key("asset_triggered__1998-04-23T00:00:00+00:00_a/../B")
    assert key == run_key("asset_triggered__1998-04-23T00:00:00+00:00_a/../B")
    assert os.sep not in key
    assert ".." not in key
