"""The mapping that the end-to-end test brings its own events by says what MovieLens' layout says."""

from pathlib import Path

from feature_repo.contracts.schemas import MOVIELENS
from pipelines.sources.mapping_file import read_mapping

FILMS = Path(__file__).parents[1] / "e2e" / "films.yaml"


def test_the_schema_is_that_of_movielens() -> None:
    _, schema = read_mapping(FILMS)
    assert schema == MOVIELENS
