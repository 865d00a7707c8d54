"""An output -> what an export reads of it: its job, its manifest and the parts of its tables.

Refuses what is not finished. Knows no format, and reads no rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.exports.conversations import Told
from pipeline.ledger import RunFolder
from pipeline.output_names import RUN_FILE, SUMMARY_FILE
from pipeline.recipes.prompts import style_of
from pipeline.recorded_job import job_of
from pipeline.recorded_recipes import RecordedRecipe, read_recipes
from pipeline.run_listing import listed_shards
from pipeline.storage import canonical_uri
from pipeline.table_parts import TableParts, read_parts
from pipeline.versions import dataset_uri
from schemas.job import JobSpec
from schemas.tables import QUARANTINE_TABLE


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """`num_rows` by label table, those that are empty too; `recipes` by their ids."""

    folder: RunFolder
    dataset_uri: str
    job: JobSpec
    shards: Sequence[str]
    num_rows: Mapping[str, int]
    recipes: Mapping[str, RecordedRecipe]

    @classmethod
    def at(cls, output: str) -> "FinishedRun":
        """
        Raises:
            ValueError: no run is there, or one that has not finished, or a later one that has not.
        """
        job = job_of(output)
        folder = RunFolder(canonical_uri(output))
        run, summary = folder.get_json(RUN_FILE), folder.get_json(SUMMARY_FILE)
        if run is None or summary is None:
            raise ValueError(f"the run at {output} has not finished: run its job again, and export then")
        known, wanted = set(summary["recipes"]), set(run["identity"]["recipes"])
        if summary["num_images"] != run["num_images"] or known != wanted:
            raise ValueError(
                f"the last run at {output} has not finished: its dataset is of {summary['num_images']} samples and the "
                f"recipes {', '.join(sorted(known))}, the job of {run['num_images']} and {', '.join(sorted(wanted))}; "
                "run the job again, and export then"
            )
        return cls(
            folder=folder,
            dataset_uri=dataset_uri(folder),
            job=job,
            shards=listed_shards(run),
            num_rows={table: num for table, num in summary["num_rows"].items() if table != QUARANTINE_TABLE},
            recipes=read_recipes(folder, job),
        )

    def part_uris(self, table: str) -> Sequence[str]:
        """In order.

        Raises:
            ValueError: they are not one whole table.
        """
        parts = TableParts.at(self.dataset_uri, table)
        if not parts.are_whole:
            raise ValueError(
                f"table {table} of {self.folder.output_uri} lacks parts, or has those of two runs: "
                f"labelmill verify {self.folder.output_uri} says which"
            )
        return parts.uris

    def has_several_images(self, tables: Sequence[str]) -> bool:
        """Whether any row of these tables is of a sample with more than one image."""
        uris = [uri for table in tables for uri in self.part_uris(table)]
        return any(len(batch.column("more_images").flatten()) for batch in read_parts(uris, columns=["more_images"]))

    def told(self) -> Mapping[str, Told]:
        """By recipe, how its answers become a conversation."""
        return {
            name: Told(
                in_turns="turns" in recipe.file.repeats_for(),
                final_answer=style_of(recipe.file.last, recipe.spec)[1].final_answer,
            )
            for name, recipe in self.recipes.items()
        }
