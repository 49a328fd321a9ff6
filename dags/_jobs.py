"""The one operator: run a plane's job by its command line and turn its exit code into a task state.

0             success; the job's result becomes the task's XCom
10, 11        skipped, with the reason (rejected by a gate; superseded by a newer interval)
75, signals   failed, tried again, as is a job that took too long and was ended
else          failed for good, as is a job that was killed for want of memory a second time

A run that was triggered with what no job can be started with fails for good, too, before anything runs.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import IO, TYPE_CHECKING, Any

import jinja2
from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, AirflowTaskTimeout

from dags._memory import oom_kills
from dags._policy import check_conf
from feature_repo.contracts.exit_codes import SIGNAL_BASE, ExitCode, is_transient
from feature_repo.contracts.jobs import reason_told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk import Asset, Context
    from airflow.sdk.types import TaskInstanceKey

REPOSITORY = Path(__file__).resolve().parents[1]
RESULT = "result"
"""The key of a result that is not its task's own XCom."""
_GRACE_SECONDS = 10
_POLL_SECONDS = 0.05
_WATCH_SECONDS = 1
_KILLED = {-signal.SIGKILL, SIGNAL_BASE + signal.SIGKILL}
_OUT_OF_MEMORY = "killed_for_memory"
"""The key in Airflow's state of a task, which its tries share."""
_REASON_LINES = 200
"""The longest reason that is kept of what a job said last."""


class UnfitRunError(AirflowFailException, ValueError):
    """What a run was triggered with makes no command line: another try would end the same."""


class JobOperator(BaseOperator):
    """Run `python -m <module> <command> --option value ...` and obey its exit code.

    Options are templates; each value is one argument of the process (no shell reads it), and an option whose value
    renders to nothing is left out. `emits` is sent when the job succeeds, for the partition that `partition_key`
    renders to, with the job's result as the event's extra.

    `returns` names a field of the result, a list, that other tasks are mapped over; the whole result is the XCom of the
    key RESULT then. Such a mapped task has its element in `each`, for its templates.
    """

    template_fields: Sequence[str] = ("command", "options", "partition_key")
    ui_color = "#e8f4f0"

    def __init__(
        self,
        *,
        module: str,
        command: str,
        options: Mapping[str, str],
        emits: Asset | None = None,
        partition_key: str = "",
        returns: str = "",
        each: Any = None,  # noqa: ANN401 - an element of any list
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own
    ) -> None:
        # A mapped task brings outlets of its own, even if there are none.
        super().__init__(**kwargs | {"outlets": [emits] if emits else kwargs.get("outlets", [])})
        self.module = module
        self.command = command
        self.options = dict(options)
        self.emits = emits
        self.partition_key = partition_key
        self.returns = returns
        self.each = each
        self.result: dict[str, Any] = {}
        """What the job had to say, whether it succeeded or not; known once it has run."""
        self._unfit_for = ""
        self._process: subprocess.Popen[str] | None = None

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Check the run's conf and render the options; what is wrong with them fails the task when it is executed.

        Raised here, it would stand in a part of the task's log that the page does not unfold.
        """
        try:
            if dag := self.get_dag():
                check_conf(getattr(context.get("dag_run"), "conf", None) or {}, dag.params)
            super().render_template_fields(context, jinja_env)
        except ValueError as error:
            self._unfit_for = str(error)
        except (LookupError, TypeError, jinja2.TemplateError) as error:
            msg = f"{self.module} {self.command}: its options cannot be rendered: {error!r}; see what the run was given"
            self._unfit_for = msg

    def require_fit(self) -> None:
        """Raise UnfitRunError if the options could not be rendered: another try would end the same."""
        if self._unfit_for:
            raise self._unfit(self._unfit_for)

    def arguments(self) -> list[str]:
        """Return the process's arguments, the interpreter first."""
        python = os.environ.get("KESTREL_PYTHON") or sys.executable
        options = [part for name, value in self.options.items() if value for part in (f"--{name}", str(value))]
        return [python, "-m", self.module, self.command, *options]

    def execute(self, context: Context) -> Any:  # noqa: ANN401 - a result, or one of its fields
        """Run the job; its result, or the field `returns` of it, is the XCom."""
        self.require_fit()
        arguments = self.arguments()
        title = f"{self.module} {self.command}"
        self.log.info("Running %s", " ".join(arguments))
        kills = oom_kills()
        try:
            status, last_line, reason = self._run(arguments)
        except AirflowTaskTimeout as error:
            raise self._too_long(title) from error
        if status == ExitCode.OK:
            self.result = json.loads(last_line)
            if self.emits:
                event = context["outlet_events"][self.emits]
                event.add_partitions(self.partition_key)
                event.extra = self.result
            if self.returns:
                context["ti"].xcom_push(key=RESULT, value=self.result)
                return self.result[self.returns]
            return self.result
        self.result = _result_of_failure(last_line)
        if self.result:
            context["ti"].xcom_push(key=RESULT, value=self.result)
        if status in {ExitCode.REJECTED, ExitCode.SUPERSEDED}:
            context["ti"].xcom_push(key="reason", value=reason)
            msg = f"{title}: {reason}"
            raise AirflowSkipException(msg)
        if status in _KILLED and oom_kills() > kills:
            raise _out_of_memory(title, context)
        msg = f"{title} ended with status {status}: {reason}"
        raise AirflowException(msg) if is_transient(status) else AirflowFailException(msg)

    def _run(self, arguments: list[str]) -> tuple[int, str, str]:
        """Return the exit status, the last line of standard output, and the reason on standard error."""
        output: deque[str] = deque(maxlen=1)
        errors: deque[str] = deque(maxlen=_REASON_LINES)
        with self._started(arguments) as self._process:
            ended = Event()
            threads = [
                Thread(target=_follow, args=(self._process.stdout, output, self.log.info)),
                Thread(target=_follow, args=(self._process.stderr, errors, self.log.info)),
                Thread(target=self._end_with_supervisor, args=(os.getppid(), ended)),
            ]
            try:
                for thread in threads:
                    thread.start()
                status = self._process.wait()
            except BaseException:  # a time-out, which interrupts the wait
                self.on_kill()
                raise
            finally:
                ended.set()
                self._end_group(signal.SIGKILL)  # a job that was killed may leave a Spark, which holds the pipes
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()
        return status, next(iter(output), ""), reason_told(status, errors) or "no message on standard error"

    def _started(self, arguments: list[str]) -> subprocess.Popen[str]:
        """Start a job that ends when this process does, killed or not.

        UnfitRunError for arguments that no process can have, such as a NUL or a megabyte of text.
        """
        try:
            return subprocess.Popen(
                [arguments[0], "-m", "dags._lifeline", *arguments],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.E2BIG:
                raise
            given = " ".join(arguments)[:200]
            msg = f"{given!r}: expected arguments that a process can have: {error}; correct the conf"
            raise self._unfit(msg) from error

    def _unfit(self, reason: str) -> UnfitRunError:
        """Return the error. Its sentence is logged as a line, too: Airflow's own log entry has it in the traceback."""
        self.log.error("%s", reason)
        return UnfitRunError(reason)

    def _too_long(self, title: str) -> AirflowTaskTimeout:
        hours = self.execution_timeout.total_seconds() / 3600 if self.execution_timeout else 0
        msg = (
            f"{title}: expected an end within {hours:g} hours, and was ended after them; see in its log how far it "
            "came; where it only needs longer, raise KESTREL_TASK_TIMEOUT_HOURS"
        )
        self.log.error("%s", msg)
        return AirflowTaskTimeout(msg)

    def on_kill(self) -> None:
        """End the job's whole process group: a Spark job is more than one process."""
        if self._has_ended():
            return
        self._end_group(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while not self._has_ended() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self._end_group(signal.SIGKILL)

    def _has_ended(self) -> bool:
        """Tell whether the process has ended, without reaping it.

        Airflow calls `on_kill` in a signal's handler, within `wait`, whose lock `poll` and `wait` would not get there.
        """
        with suppress(ChildProcessError):
            how = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return self._process is None or os.waitid(os.P_PID, self._process.pid, how) is not None
        return True

    def _end_with_supervisor(self, supervisor: int, ended: Event) -> None:
        """End the job when the process dies that Airflow supervises this one by: its task is tried again elsewhere."""
        while not ended.wait(_WATCH_SECONDS):
            if os.getppid() != supervisor:
                self._end_group(signal.SIGKILL)
                return

    def _end_group(self, signal_number: signal.Signals) -> None:
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal_number)


class ReportLink(BaseOperatorLink):
    """The link "Report" of a task whose job wrote one, be it a success or not. dags/plugins serves the page."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the page's address; empty where there is none. Airflow asks in the task's own process, at its end."""
        if not isinstance(operator, JobOperator) or not (report := operator.result.get("report")):
            return ""
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        return f"{base}/reports/{operator.options['namespace']}/{report}"


class ReportingJobOperator(JobOperator):
    """A job whose result names a report, as a path below the namespace's reports."""

    operator_extra_links = (ReportLink(),)


def _out_of_memory(title: str, context: Context) -> AirflowException:
    """Return the error of a job that was killed while the kernel killed for want of memory.

    Once may have been another's greed, and is tried again; a second time says that there is too little.
    """
    before = context["task_state_store"]
    msg = f"{title} was killed (SIGKILL) while the kernel ended processes for want of memory"
    if before.get(_OUT_OF_MEMORY):
        before.delete(_OUT_OF_MEMORY)
        remedy = (
            "give this machine or container more memory, run less beside the job, or give it less to do: a smaller "
            "KESTREL_SPARK_DRIVER_MEMORY for Spark's jobs, fewer rows or KESTREL_NEGATIVES for trainings"
        )
        return AirflowFailException(f"{msg}, as a try before was; it is not tried again: {remedy}")
    before.set(_OUT_OF_MEMORY, value=True)
    return AirflowException(f"{msg}; another try may find more of it")


def _result_of_failure(last_line: str) -> dict[str, Any]:
    """Return the result that a failed job printed; nothing where its last words are something else."""
    with suppress(ValueError):
        result = json.loads(last_line)
        if isinstance(result, dict):
            return result
    return {}


def _follow(stream: IO[str] | None, lines: deque[str], log: Callable[[str, str], None]) -> None:
    """Log what a job says as it says it, and keep the last lines."""
    for line in stream or ():
        if text := line.rstrip():
            lines.append(text)
            log("%s", text)
