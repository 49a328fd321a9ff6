"""A training that does not fit into memory is refused before it begins, and told apart from one that may fit later."""

import pytest

from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.jobs import exit_code_of
from feature_repo.contracts.memory import Memory, memory
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.signatures import DEFAULT_FEATURES
from models.errors import NotNowEnoughMemoryError, TooLittleMemoryError
from models.training.memory import check_memory, needed_bytes
from tests.movielens import RANKING
from tests.training_set_fixture import rewrite_manifest, write_training_set

GB = 10**9


@pytest.fixture
def million(tmp_path):
    """A training set whose manifest says that it has a million rows."""
    place = Namespace(tmp_path, "toy")
    record = write_training_set(place, rows=60)
    rewrite_manifest(place, record, rows={"train": 800_000, "valid": 100_000, "test": 100_000})
    return place.training_sets / "toy"


def test_the_estimate_grows_with_rows_and_values_of_a_row(million):
    values = sum(column.length or 1 for column in RANKING.input_columns)
    assert needed_bytes(million, DEFAULT_FEATURES) == GB + 25 * 1_000_000 * values


def test_too_little_for_ever_is_terminal_and_too_little_for_now_is_transient(million):
    needed = needed_bytes(million, DEFAULT_FEATURES)
    with pytest.raises(
        TooLittleMemoryError, match=r"expected about 2\.\d GB of memory, .* has 1\.0 GB; give it"
    ) as lack:
        check_memory(million, DEFAULT_FEATURES, Memory(total=GB, available=GB, resident=0))
    with pytest.raises(
        NotNowEnoughMemoryError, match=r"expected about 2\.\d GB of memory, 0\.1 GB are free; try"
    ) as now:
        check_memory(million, DEFAULT_FEATURES, Memory(total=needed, available=GB // 10, resident=GB // 2))
    assert exit_code_of(lack.value) == ExitCode.TERMINAL
    assert exit_code_of(now.value) == ExitCode.TRANSIENT
    check_memory(million, DEFAULT_FEATURES, Memory(total=needed, available=needed - GB // 2, resident=GB // 2))
    check_memory(million, DEFAULT_FEATURES, None)


def test_a_container_has_what_it_is_limited_to(tmp_path):
    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    assert memory(tmp_path) is None
    meminfo = "MemTotal:   8000 kB\nMemFree:  1 kB\nMemAvailable:   5000 kB\nHugePages_Total:    0\n"
    write({"proc/meminfo": meminfo, "proc/self/status": "Name:\tpython\nVmRSS:\t  100 kB\n"})
    kb = 1024
    assert memory(tmp_path) == Memory(8000 * kb, 5000 * kb, 100 * kb)
    group = "sys/fs/cgroup/kestrel"
    write({"proc/self/cgroup": "0::/kestrel\n", f"{group}/memory.max": "max\n"})
    assert memory(tmp_path) == Memory(8000 * kb, 5000 * kb, 100 * kb)
    write(
        {
            f"{group}/memory.max": f"{4000 * kb}\n",
            f"{group}/memory.current": f"{3000 * kb}\n",
            f"{group}/memory.stat": f"anon 7\nfile {500 * kb}\nfile_mapped 9\n",
        }
    )
    assert memory(tmp_path) == Memory(4000 * kb, 1500 * kb, 100 * kb)


def test_this_machine_tells():
    found = memory()
    assert found is None or 0 < found.resident <= found.total
