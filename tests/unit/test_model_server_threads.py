"""Which threads run a request's operations."""

from __future__ import annotations

import pytest

from serving.model_server.servable import inter_op_pool, session_options

CALLERS_THREAD, SHARED_POOL = -1, 0


@pytest.mark.parametrize(("threads", "pool"), [(0, CALLERS_THREAD), (1, CALLERS_THREAD), (2, SHARED_POOL)])
def test_operations_leave_the_callers_thread_only_if_threads_for_them_are_asked_for(threads: int, pool: int) -> None:
    assert inter_op_pool(session_options(intra_op=0, inter_op=threads)) == pool
