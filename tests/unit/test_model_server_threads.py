"""Which threads run a request's operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serving.model_server.servable import inter_op_pool, session_options

if TYPE_CHECKING:
    from pathlib import Path

CALLERS_THREAD, SHARED_POOL = -1, 0


@pytest.mark.parametrize(("threads", "pool"), [(0, CALLERS_THREAD), (1, CALLERS_THREAD), (2, SHARED_POOL)])
def test_operations_leave_the_callers_thread_only_if_threads_for_them_are_asked_for(threads: int, pool: int) -> None:
    assert inter_op_pool(session_options(intra_op=0, inter_op=threads)) == pool


def test_idle_threads_do_not_keep_a_core_unless_a_configuration_says_so(tmp_path: Path) -> None:
    file = tmp_path / "session.pbtxt"
    file.write_text("inter_op_parallelism_threads: 3")
    assert session_options(0, 0).experimental.disable_thread_spinning
    chosen = session_options(0, 0, str(file))
    assert not chosen.experimental.disable_thread_spinning
    assert inter_op_pool(chosen) == SHARED_POOL
