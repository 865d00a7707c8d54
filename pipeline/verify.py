"""A finished output -> whether every input is accounted for exactly once per recipe, and if not, what is wrong.

Reads the manifest and the written tables only, never the commits they were made from: what a reader of the dataset
sees is what is checked. Manifest and tables are in the same order and are walked side by side, shard by shard; of the
whole only the ids of the images are held, see `pipeline.image_ids`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline.image_ids import ImageIds
from pipeline.ledger import RunFolder
from pipeline.manifest import read_shard, sample_ids
from pipeline.output_names import FINALIZED_FILE, RUN_FILE, RUN_NAME, SUMMARY_FILE
from pipeline.owed import OWED_COLUMNS, owed_labels
from pipeline.recorded_job import job_of
from pipeline.recorded_recipes import RecordedRecipe, read_recipes
from pipeline.run_listing import absences, listed_shards
from pipeline.storage import canonical_uri, join_uri
from pipeline.table_parts import TableParts
from pipeline.table_walk import ShardOfManifest, TableWalk
from pipeline.unchanged import changed_files
from pipeline.versions import version_uri
from pipeline.whole_shards import Finalized
from schemas.tables import QUARANTINE_TABLE

MAX_PROBLEMS_SHOWN = 20


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
    if run is None:
        raise ValueError(f"{output} holds no run of labelmill (no {RUN_NAME}/{RUN_FILE}): give the output of a job")
    summary = folder.get_json(SUMMARY_FILE)
    if summary is None:
        raise ValueError(
            f"the run at {output} has not finished (no {RUN_NAME}/{SUMMARY_FILE}): run its job again to finish it"
        )
    found = Verification()
    shards = listed_shards(run)
    recipes = read_recipes(folder, job)
    tables = dict.fromkeys([*(str(recipe.file.table) for recipe in recipes.values()), QUARANTINE_TABLE])
    finalized = Finalized.read(folder)
    dataset_uri = version_uri(folder, finalized.version if finalized is not None else None)
    part_uris = {}
    for table in tables:
        parts_of_table = TableParts.at(dataset_uri, table)
        part_uris[table] = parts_of_table.uris
        for problem in parts_of_table.problems():
            found.add_problem(problem)
    if finalized is None:
        found.add_problem(
            f"no {RUN_NAME}/{FINALIZED_FILE}: the run ended before it wrote down its parts: run the job again"
        )
    else:
        prefix = f"{dataset_uri}/"
        parts = [uri for uris in part_uris.values() for uri in uris]
        written = {uri: finalized.sha256.get(uri.removeprefix(prefix)) for uri in parts}
        written |= {folder.shard_uri(shard): run["shard_sha256"].get(shard) for shard in shards}
        written |= {join_uri(folder.absent_uri, shard): of.sha256 for shard, of in absences(run).items()}
        for problem in changed_files(written, f"{folder.output_uri}/"):
            found.add_problem(problem)
    ids = ImageIds.of(sample_ids(folder.shard_uri(shard)) for shard in shards)
    walks = {
        table: TableWalk(table, uris, recipes=list(recipes), ids=ids, on_problem=found.add_problem)
        for table, uris in part_uris.items()
    }
    absent = absences(run)
    for place, shard in enumerate(shards):
        of_shard = _shard(folder, shard, place, ids, recipes, found)
        if shard in absent:
            of_shard = of_shard.owed_only(folder.is_present(shard, of_shard.sample_ids))
        _check_shard(of_shard, walks, found)
    for table, walk in walks.items():
        walk.finish()
        found.num_rows[table] = walk.num_rows
    if found.num_images != summary["num_images"]:
        found.add_problem(f"the manifest has {found.num_images} images, the summary {summary['num_images']}")
    for table, num_rows in summary["num_rows"].items():
        if found.num_rows.get(table) != num_rows:
            found.add_problem(f"table {table} has {found.num_rows.get(table)} rows, the summary {num_rows}")
    return found


def _shard(
    folder: RunFolder,
    shard: str,
    place: int,
    ids: ImageIds,
    recipes: Mapping[str, RecordedRecipe],
    found: Verification,
) -> ShardOfManifest:
    """One shard without the images that stand earlier in the manifest."""
    names, owed = [], {recipe: [np.zeros((2, 0), np.int64)] for recipe in recipes}
    columns = ["sample_id", "image_uri", *OWED_COLUMNS]
    for batch in read_shard(folder.shard_uri(shard), columns=columns):
        repeated = ids.is_repeated(batch.column("sample_id"))
        for row in np.flatnonzero(repeated).tolist():
            found.add_problem(
                f"image {batch.column('sample_id')[row]} is in the manifest twice: {batch.column('image_uri')[row]}"
            )
        batch = batch.filter(pa.array(~repeated)) if repeated.any() else batch
        names.append(batch.column("sample_id"))
        for name, recipe in recipes.items():
            owed[name].append(owed_labels(recipe, batch))
        found.num_images += batch.num_rows
    return ShardOfManifest(
        place=place,
        sample_ids=pa.chunked_array(names, pa.string()).combine_chunks(),
        num_owed_2N={recipe: np.concatenate(of, axis=1) for recipe, of in owed.items()},
    )


def _check_shard(shard: ShardOfManifest, walks: Mapping[str, TableWalk], found: Verification) -> None:
    num_images = len(shard.sample_ids)
    labels: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(num_images, np.int64))
    quarantined: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(num_images, np.int64))
    for table, walk in walks.items():
        counts = quarantined if table == QUARANTINE_TABLE else labels
        for recipe, num_rows_N in walk.take(shard).items():
            counts[recipe] += num_rows_N
    for recipe, (fewest_N, most_N) in shard.num_owed_2N.items():
        labels_N, quarantined_N = labels[recipe], quarantined[recipe]
        _count_outcomes(found.outcomes.setdefault(recipe, Counter()), labels_N, quarantined_N)
        is_owed_N = (fewest_N <= labels_N) & (labels_N <= most_N)
        is_right_N = np.where(quarantined_N > 0, (quarantined_N == 1) & (labels_N == 0), is_owed_N)
        for image in np.flatnonzero(~is_right_N).tolist():
            found.add_problem(
                f"image {shard.sample_ids[image]}, recipe {recipe}: {fewest_N[image]} labels expected, "
                f"found {labels_N[image]} and {quarantined_N[image]} rows in quarantine"
            )


def _count_outcomes(outcomes: Counter[str], labels_N: np.ndarray, quarantined_N: np.ndarray) -> None:
    is_quarantined_N, is_labelled_N = quarantined_N > 0, labels_N > 0
    for outcome, num_images in (
        ("quarantined", is_quarantined_N.sum()),
        ("labelled", (is_labelled_N & ~is_quarantined_N).sum()),
        ("skipped", (~is_labelled_N & ~is_quarantined_N).sum()),
    ):
        if num_images:
            outcomes[outcome] += int(num_images)
