"""`python -m infra.local`: what the Makefile calls."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.jobs import JobError, run_job
from infra.local.settings import state_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PATIENCE_S = 60.0
"""How long a command may take to end after Ctrl-C where nobody sits who would press it again."""
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _for_a_person(command: Callable[[], int]) -> NoReturn:
    """Run a command whose output is for a person: an error is its sentence, Ctrl-C ends it quietly."""
    try:
        status = command()
    except JobError as error:
        _say(f"error: {error}")
        status = int(error.exit_code)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _state() -> Path:
    """Return the state folder; one that cannot be is told as every error is."""
    try:
        return state_folder(os.environ)
    except JobError as error:
        _say(f"error: {error}")
        sys.exit(int(error.exit_code))


Only = Annotated[str, typer.Option(help="Parts to start, separated by commas; default: all of this machine.")]


@app.command()
def up(only: Only = "") -> None:
    """Start what does not run yet and wait until it is healthy."""
    from infra.local.stack import start_stack  # noqa: PLC0415 - keeps --help quick

    names = [name.strip() for name in only.split(",") if name.strip()]

    def job() -> int:
        from infra.local.tables import addresses  # noqa: PLC0415

        stack = start_stack(state_folder(os.environ), os.environ, only=names, say=_say)
        print(addresses(stack))
        return 0

    _for_a_person(job)


@app.command()
def down() -> None:
    """Stop everything; no process is left."""
    from infra.local.stack import stop_stack  # noqa: PLC0415

    def job() -> int:
        stop_stack(state_folder(os.environ), say=_say)
        _say("Nothing of the stack runs")
        return 0

    _for_a_person(job)


@app.command()
def status() -> None:
    """Show every part; exit 1 if one that was asked for is not healthy."""
    from infra.local.stack import leftovers, stack_memory, stack_status  # noqa: PLC0415
    from infra.local.tables import print_status  # noqa: PLC0415

    def job() -> int:
        state = state_folder(os.environ)
        rows = stack_status(state, os.environ)
        print_status(rows, stack_memory(state))
        left = leftovers(state)
        if left:
            _say(f"{left} processes have lost their supervisor: make up ends them and starts anew, make down ends them")
        if not any(row.is_wanted for row in rows):
            _say("Nothing of the stack runs: make up starts it")
        return int(any(row.is_wanted and not row.is_healthy for row in rows))

    _for_a_person(job)


Part = Annotated[str, typer.Argument(help="The part's name, as `status` shows it.")]


@app.command()
def start(part: Part) -> None:
    """Start one part and wait until it is healthy."""
    from infra.local.stack import start_stack  # noqa: PLC0415

    def job() -> int:
        start_stack(state_folder(os.environ), os.environ, only=[part], say=_say)
        return 0

    _for_a_person(job)


@app.command()
def stop(part: Part) -> None:
    """Stop one part and leave the others alone."""
    from infra.local.stack import stop_part  # noqa: PLC0415

    def job() -> int:
        stop_part(state_folder(os.environ), os.environ, part)
        return 0

    _for_a_person(job)


@app.command()
def logs(part: Annotated[str, typer.Option(envvar="KESTREL_ARG_PART")] = "") -> None:
    """Follow the logs of all parts, or of one."""
    from infra.local.logs import follow  # noqa: PLC0415

    _for_a_person(lambda: follow(state_folder(os.environ), part))


@app.command()
def demo(
    data: Annotated[str, typer.Option(envvar="KESTREL_ARG_DATA", help="Folder, zip or file.")] = "",
    source: Annotated[str, typer.Option(envvar="KESTREL_ARG_SOURCE", help="What DATA means: a YAML.")] = "",
    namespace: Annotated[str, typer.Option(envvar="KESTREL_ARG_NAMESPACE", help="Default: the data set's name.")] = "",
    cutoff: Annotated[str, typer.Option(envvar="KESTREL_ARG_CUTOFF", help="Default: after the last event.")] = "",
) -> None:
    """Run the whole loop on one data set, and report."""
    from infra.local.demo import demo as run_demo  # noqa: PLC0415
    from infra.local.demo import only_demo  # noqa: PLC0415
    from infra.local.tables import console_for_a_person  # noqa: PLC0415

    state, console = _state(), console_for_a_person()

    def job() -> int:
        with only_demo(state):
            return run_demo(
                state=state,
                data=data,
                mapping=source,
                namespace=namespace,
                cutoff=cutoff,
                console=console,
                say=_say,
            )

    _for_a_person(job)


@app.command()
def watch(
    run_id: Annotated[str, typer.Argument(help="The run of feature_refresh, as the demo or Airflow shows it.")],
    *,
    resume: Annotated[bool, typer.Option(help="First let the tasks that failed run again.")] = False,
) -> None:
    """Follow the runs that a refresh set off to their end, and report."""
    from infra.local.demo import watch_again  # noqa: PLC0415
    from infra.local.tables import console_for_a_person  # noqa: PLC0415

    state, console = _state(), console_for_a_person()
    _for_a_person(lambda: watch_again(state=state, run_id=run_id, resume=resume, console=console, say=_say))


@app.command()
def reset(
    yes: Annotated[str, typer.Option(envvar="KESTREL_ARG_YES", help="Anything: do not ask.")] = "",
    everything: Annotated[
        str, typer.Option("--all", envvar="KESTREL_ARG_ALL", help="Anything: downloads and tools too.")
    ] = "",
) -> None:
    """Stop the stack and delete its state."""
    from infra.local.stack import reset_state  # noqa: PLC0415

    state = _state()
    what = "everything in it" if everything else "its data, models, experiments and settings"
    if not yes and not typer.confirm(f"Stop the stack of {state} and delete {what}?"):
        _say("Nothing was deleted")
        sys.exit(ExitCode.TERMINAL)

    def job() -> int:
        kept = reset_state(state, everything=bool(everything), say=_say)
        _say(f"Deleted; kept: {', '.join(kept) or 'nothing'}")
        return 0

    _for_a_person(job)


@app.command()
def settings() -> None:
    """Check the settings; the result names the file and the parts of this machine."""
    from infra.local.stack import describe_stack  # noqa: PLC0415

    def job() -> dict[str, object]:
        stack = describe_stack(state_folder(os.environ), os.environ)
        return {"state": str(stack.places.state), "parts": list(stack.parts)}

    run_job(job)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def run(
    context: typer.Context,
    *,
    toolchain_only: Annotated[bool, typer.Option(help="Java, redis-server and Python, but no settings.")] = False,
) -> None:
    """Run a command as a part of the stack would run it: `run -- airflow dags list`. Nothing of it is left."""
    from infra.local.running import run_whole  # noqa: PLC0415 - keeps --help quick
    from infra.local.stack import command_environment  # noqa: PLC0415

    def job() -> int:
        if not context.args:
            _say("error: expected a command after --, such as: run -- airflow dags list")
            return int(ExitCode.USAGE)
        environment = command_environment(state_folder(os.environ), os.environ, toolchain_only=toolchain_only)
        patience_s = math.inf if os.isatty(0) else _PATIENCE_S  # whoever sits at a terminal may ask again
        try:
            return run_whole(context.args, environment, patience_s=patience_s, say=_say)
        except FileNotFoundError:
            _say(f"error: {context.args[0]}: no such program on the PATH")
            return 127
        except PermissionError:
            _say(f"error: {context.args[0]}: expected a program, found what may not be run")
            return 126

    _for_a_person(job)


if __name__ == "__main__":
    app()
