"""A finished output -> whether every input is accounted for exactly once per recipe, and if not, what is wrong.

Reads the manifest and the written tables only, never the commits they were made from: what a reader of the dataset
sees is what is checked.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.ledger import RunFolder
from pipeline.manifest import read_shard
from pipeline.parquet_members import open_table
from pipeline.parts import PART_NAME
from pipeline.recipes import BUILT_IN
from pipeline.storage import canonical_uri, join_uri, open_store
from pipeline.work import RUN_FILE, job_of
from schemas.job import GroundingSpec, JobSpec, QaSpec, RecipeSpec
from schemas.tables import QUARANTINE_TABLE

MAX_PROBLEMS_SHOWN = 20

Pair = tuple[str, str]
"""(sample_id, recipe)"""


@dataclass(kw_only=True)
class Verification:
    """`problems` are sentences for a person, the first `MAX_PROBLEMS_SHOWN` of `num_problems`."""

    num_images: int = 0
    num_rows: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    num_problems: int = 0
    problems: list[str] = field(default_factory=list)

    def add_problem(self, problem: str) -> None:
        self.num_problems += 1
        if len(self.problems) < MAX_PROBLEMS_SHOWN:
            self.problems.append(problem)


def verify(output: str) -> Verification:
    """Re-reads an output.

    Raises:
        ValueError: there is no finished run at `output`, or one of its files cannot be read.
    """
    folder, job = RunFolder(canonical_uri(output)), job_of(output)
    run = folder.get_json(RUN_FILE)
    assert run is not None, "it is written before the job is"
    summary = folder.get_json("summary.json")
    if summary is None:
        raise ValueError(f"the run at {output} has not finished (no _run/summary.json): run its job again to finish it")
    found = Verification()
    labels, quarantined = _count_rows(folder, job, found)
    for sample_id, record in _manifest_rows(
        folder, [shard for shards in run["shards_by_run"] for shard in shards], found
    ):
        for recipe in job.recipes:
            _check_pair((sample_id, recipe.name), num_items(recipe, record), labels, quarantined, found)
    for pair in [*labels, *quarantined]:
        found.add_problem(f"image {pair[0]}, recipe {pair[1]}: in a table, but not in the manifest or not in the job")
    if found.num_images != summary["num_images"]:
        found.add_problem(f"the manifest has {found.num_images} images, the summary {summary['num_images']}")
    for table, num_rows in summary["num_rows"].items():
        if found.num_rows.get(table) != num_rows:
            found.add_problem(f"table {table} has {found.num_rows.get(table)} rows, the summary {num_rows}")
    return found


def num_items(recipe: RecipeSpec, manifest_record: Mapping[str, Any]) -> int:
    """How many labels a recipe owes one image; 0 where nothing is asked of it."""
    if isinstance(recipe, QaSpec):
        return len(recipe.questions or manifest_record["questions"])
    if isinstance(recipe, GroundingSpec):
        return len(recipe.queries or manifest_record["queries"])
    return 1


def _count_rows(folder: RunFolder, job: JobSpec, found: Verification) -> tuple[Counter[Pair], Counter[Pair]]:
    """Rows per (image, recipe), in the label tables and in quarantine."""
    labels: Counter[Pair] = Counter()
    quarantined: Counter[Pair] = Counter()
    tables = dict.fromkeys([*(BUILT_IN[recipe.name].table for recipe in job.recipes), QUARANTINE_TABLE])
    for table in tables:
        counts = quarantined if table == QUARANTINE_TABLE else labels
        rows = Counter(_pairs(_part_uris(folder, table, found)))
        counts.update(rows)
        found.num_rows[table] = rows.total()
    return labels, quarantined


def _part_uris(folder: RunFolder, table: str, found: Verification) -> list[str]:
    """The parts that are there; what is missing among them, or does not belong, is a problem."""
    folder_uri = join_uri(folder.output_uri, table)
    names = [info.uri.removeprefix(f"{folder_uri}/") for info in open_store(folder_uri).list_or_empty(folder_uri)]
    parts = [match for name in names if (match := PART_NAME.fullmatch(name))]
    for name in sorted({*names} - {part.string for part in parts}):
        found.add_problem(f"table {table}: {name} is not a part that a run wrote: move it elsewhere")
    totals = sorted({int(part["total"]) for part in parts})
    if len(totals) != 1:
        found.add_problem(
            f"table {table}: its parts are of {' and of '.join(map(str, totals or [0]))}: run the job again"
        )
    for index in sorted({*range(max(totals, default=0))} - {int(part["index"]) for part in parts}):
        found.add_problem(f"table {table}: part {index} of 0..{totals[-1] - 1} is missing: run the job again")
    return [join_uri(folder_uri, part.string) for part in parts]


def _pairs(part_uris: list[str]) -> Iterator[Pair]:
    for uri in part_uris:
        with open_table(uri) as part:
            for batch in part.iter_batches(columns=["sample_id", "recipe"]):
                yield from zip(batch["sample_id"].to_pylist(), batch["recipe"].to_pylist(), strict=True)


def _manifest_rows(
    folder: RunFolder, shards: list[str], found: Verification
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    seen: set[str] = set()
    for shard in shards:
        for batch in read_shard(folder.shard_uri(shard)):
            for record in batch.to_pylist():
                sample_id = record["sample_id"]
                if sample_id in seen:
                    found.add_problem(f"image {sample_id} is in the manifest twice: {record['image_uri']}")
                    continue
                seen.add(sample_id)
                found.num_images += 1
                yield sample_id, record


def _check_pair(
    pair: Pair, num_expected: int, labels: Counter[Pair], quarantined: Counter[Pair], found: Verification
) -> None:
    """Takes the pair out of both counters: what is left in them in the end belongs to no input."""
    num_labels, num_quarantined = labels.pop(pair, 0), quarantined.pop(pair, 0)
    outcome = "quarantined" if num_quarantined else "labelled" if num_labels else "skipped"
    found.outcomes.setdefault(pair[1], Counter())[outcome] += 1
    if (num_labels, num_quarantined) not in ((num_expected, 0), (0, 1)):
        found.add_problem(
            f"image {pair[0]}, recipe {pair[1]}: {num_expected} labels expected, "
            f"found {num_labels} and {num_quarantined} rows in quarantine"
        )
