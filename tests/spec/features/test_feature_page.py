"""docs/features.md says what the contracts say."""

from feature_repo.contracts.features import declared
from feature_repo.contracts.on_demand import on_demand
from feature_repo.contracts.places import REPOSITORY
from pipelines.feature_page.example_log import SCHEMA
from pipelines.feature_page.page import COMMAND, render


def test_the_page_is_what_the_contracts_and_the_transforms_make_of_it(spark):
    page = (REPOSITORY / "docs" / "features.md").read_text(encoding="utf-8")
    assert page == render(spark), f"docs/features.md is stale; run `{COMMAND}`"


def test_every_feature_is_on_the_page_with_its_example():
    page = (REPOSITORY / "docs" / "features.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(" `"): line for line in page.splitlines() if line.startswith("| `")}
    stored = {column.name for group in declared(SCHEMA).groups for column in group.features}
    assert set(rows) == stored | {feature.name for feature in on_demand(SCHEMA)}
    assert "`['heat', 'alien', 'totoro', 'vertigo', …]`" in rows["user_last_items"]
    assert all(cell.strip() for row in rows.values() for cell in row.strip("|").split("|"))
