"""The job file -> `JobSpec`: which images, which labels, where they go, and within which limits.

Does not know how a job runs: no storage, checkpoint or cluster is looked at here.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from schemas.budget import BudgetSpec
from schemas.job_places import moved
from schemas.job_problems import CREDENTIALS, JobError, JobProblem, problems_of, refuse, shown
from schemas.job_yaml import apply_override, parse_mapping, read_text
from schemas.recipe_specs import (
    Real,
    RecipeSpec,
    Spec,
    Text,
    Texts,
    Whole,
    all_different,
    columns_of,
)

__all__ = [
    "BudgetSpec",
    "EngineSpec",
    "JobError",
    "JobProblem",
    "JobSpec",
    "LimitsSpec",
    "OutputSpec",
    "RecipeSpec",
    "ResourcesSpec",
    "SourceSpec",
    "load_job",
]

# A password may hold an unescaped "/"; host:port and abfs://container@account carry none.
_PASSWORD_IN_URI = re.compile(r"://[^/:@]*:(?!\d+(/|$))[^@]*@")


def _no_password(uri: str) -> str:
    if _PASSWORD_IN_URI.search(uri):
        raise refuse(f"holds a user and a password before its @: {CREDENTIALS}")
    return uri


def _auto_or_count(value: object) -> object:
    text = str(value).replace("_", "").strip()
    if value == "auto" or (not isinstance(value, bool | float) and text.isdecimal() and int(text) >= 1):
        return value if value == "auto" else int(text)
    raise refuse(f"must be auto or a whole number of at least 1, got {shown(value)}")


Location = Annotated[Text, AfterValidator(_no_password)]
Locations = Annotated[tuple[Location, ...], AfterValidator(all_different)]
AutoOrCount = Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_count)]


class SourceSpec(Spec):
    """The images to label. In a job file, a plain text stands for `{uri: <text>}`."""

    TRUST: ClassVar[tuple[str, ...]] = ("image_roots", "allow_http")
    """Keys that say what URIs in tables are followed; the others say which images there are."""

    uri: Location
    """A folder, a glob, an `s3://` prefix, a file of samples (Parquet, JSON, JSON lines, a WebDataset shard), a PDF
    document, or several files in braces (`shard-{000000..000099}.tar`)."""
    format: Literal["auto", "images", "parquet", "json", "webdataset", "pdf"] = "auto"
    """`images`: image files below the URI; `parquet`: tables with an image column; `json`: arrays or lines of samples;
    `webdataset`: tar shards; `pdf`: pages of documents; `auto` looks at the names."""
    image_column: Text | None = None
    """Column or key with a sample's image or list of images, as bytes or as URIs; by default type and name tell. Of a
    WebDataset shard the extension of the images."""
    image_root: Location | None = None
    """Folder or `s3://` prefix that relative names of images start from; by default that of the file they stand in."""
    carry: Texts | None = None
    """Columns or keys that are copied into the labels; by default all columns of a table but the images, and `id` of
    JSON samples, `__key__` of WebDataset samples, and `pdf`, `page` and `num_pages` of documents. Keys of JSON, and
    `txt` and `cls` of WebDataset samples, become columns of text: what is no text there is written as its JSON."""
    pdf_dpi: Whole = Field(default=144, ge=18, le=1200)
    """Pixels of a rendered page of a PDF document per inch; fewer for pages of more than `limits.max_pixels` pixels."""
    image_roots: Locations | None = None
    """Folders and `s3://` prefixes below which the images lie that a sample names by URI; others are quarantined.

    By default `image_root`; without one, the folder of the source: the one that `uri` names, or that the table or the
    glob that it names lies in.
    The same for files and S3, so that a table reads nothing by default that was not put beside it. A list given here is
    the whole list: it replaces the default.
    """
    allow_http: bool = False
    """Whether a table may name images by `http://` and `https://` URLs, of hosts with public addresses."""

    @model_validator(mode="after")
    def _image_files_have_no_columns(self) -> "SourceSpec":
        for key in ("image_column", "carry"):
            if self.format == "images" and getattr(self, key):
                raise refuse("names columns, but image files have none: set format to parquet, or remove it", key)
        for key in (*self.TRUST, "image_root"):
            if self.format in ("images", "pdf") and getattr(self, key):
                raise refuse(f"is about URIs in tables, but the format is {self.format}: remove it", key)
        return self


class LimitsSpec(Spec):
    """What is still accepted; an image beyond a limit is quarantined."""

    max_pixels: Whole = Field(default=200_000_000, ge=1)
    """Largest image, width times height in pixels; read from its header, before anything is decoded."""
    max_bytes: Whole = Field(default=100_000_000, ge=1)
    """Largest encoded image, in bytes."""
    max_images: Whole = Field(default=16, ge=1)
    """Most images of one sample; one with more is quarantined before any of them is fetched."""
    min_decoded_fraction: Real = Field(default=0.9, gt=0, le=1)
    """An image file that ends too early is used, and flagged `truncated`, if this share of its rows can be decoded."""
    decode_timeout_s: Real = Field(default=60, gt=0, le=86_400)
    """Longest time for decoding and tiling one image, in seconds; the process that does it is killed then."""
    decode_memory_mb: Whole = Field(default=4096, ge=256)
    """Address space of the process that decodes one image at a time, in MiB; 150 of it are Python and libraries."""
    max_quarantined_fraction: Real = Field(default=0.05, ge=0, le=1)
    """A run that quarantines more than this share of its images ends with exit code 3."""


class EngineSpec(Spec):
    """How the model runs."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of weights and activations; `auto` is bfloat16 on CUDA and float32 on CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `auto` takes a GPU where there is one."""
    expert_ranks: AutoOrCount = "auto"
    """GPUs of one replica, over which its routed experts are partitioned (on CPUs: processes); `auto` takes as few as
    hold the checkpoint."""
    prefill_chunk_tokens: Whole = Field(default=1024, ge=16)
    """Prompt tokens computed in one step at most; bounds the memory of activations."""
    max_num_sequences: Whole = Field(default=16, ge=1)
    """Answers decoded at the same time in one replica at most."""


class ResourcesSpec(Spec):
    """How many workers run at once."""

    tile_actors: AutoOrCount = "auto"
    """CPU processes that decode and tile images; `auto` follows the cluster's cores."""
    label_actors: AutoOrCount = "auto"
    """Replicas of the model that a run starts with; `auto` follows the cluster's GPUs, or is one on CPU."""
    max_label_actors: Whole | None = Field(default=None, ge=1)
    """Replicas that a run grows to while GPUs are free or can be added; by default it keeps those it started with."""
    stop_grace_s: Real = Field(default=25.0, ge=0)
    """Seconds that answers under way get after Ctrl-C or SIGTERM, to end and be committed; a second signal ends the
    run at once."""

    @model_validator(mode="after")
    def _pool_does_not_shrink(self) -> "ResourcesSpec":
        start, most = self.label_actors, self.max_label_actors
        if most is not None and start != "auto" and most < start:
            raise refuse(f"is {most}, but label_actors, which a run starts with, is {start}", "max_label_actors")
        return self


class OutputSpec(Spec):
    """Where the dataset is written."""

    uri: Location
    """Folder or `s3://` prefix."""
    keep_versions: Whole | None = Field(default=None, ge=1)
    """So many datasets are kept side by side, each in `versions/<run>/`, and `LATEST` names the newest; by default
    there is one, and a run replaces it in place."""


class JobSpec(Spec):
    """One labeling job, complete and checked. Equal specs describe the same job."""

    name: Text
    """Name of the job: letters, digits, `-`, `_` and `.`, starting with a letter or digit."""
    source: SourceSpec
    """The images to label."""
    checkpoint: Location = "nano"
    """The model: `nano` (built in), a folder, an `s3://` prefix or a hub id."""
    recipes: tuple[RecipeSpec, ...]
    """What to produce for every image; each recipe once, by name alone or with its own settings."""
    output: OutputSpec
    """Where the dataset is written."""
    limits: LimitsSpec = LimitsSpec()
    """What is still accepted."""
    engine: EngineSpec = EngineSpec()
    """How the model runs."""
    resources: ResourcesSpec = ResourcesSpec()
    """How many workers run at once."""
    budget: BudgetSpec = BudgetSpec()
    """When a run stops, with the rest left to the next one."""

    @model_validator(mode="before")
    @classmethod
    def _without_shorthands(cls, document: object) -> object:
        return _spelled_out(document) if isinstance(document, Mapping) else document

    @field_validator("name")
    @classmethod
    def _name_is_a_slug(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise refuse(f"must start with a letter or digit and hold only those, '-', '_' and '.', got {name!r}")
        return name

    @field_validator("recipes")
    @classmethod
    def _each_recipe_once(cls, recipes: tuple[RecipeSpec, ...]) -> tuple[RecipeSpec, ...]:
        if not recipes:
            raise refuse("needs at least one recipe")
        names = [recipe.id or recipe.name for recipe in recipes]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise refuse(f"the recipe {name} is given twice: keep one, or give one of them another id", index)
        return recipes

    @model_validator(mode="after")
    def _columns_come_from_a_table(self) -> "JobSpec":
        without_columns = {"images": "image files", "pdf": "pages of documents"}.get(self.source.format)
        for index, recipe in enumerate(self.recipes):
            for key in columns_of(recipe) if without_columns else ():
                raise refuse(f"names a column, but {without_columns} have none: use a table", "recipes", index, key)
        return self

    def digest(self) -> str:
        """SHA-256 in hex of what determines the labels: two jobs with the same digest write the same tables.

        The name, the output, the resources, the budget, the time and memory of decoding and the tolerated share of
        quarantined images do not count, nor does the order of the recipes, nor what the source's tables are trusted
        with: that lets images in or keeps them out, and changes none. What a recipe's file says has digests of its own.
        """
        record = self.model_dump(
            mode="json",
            exclude={
                "name": True,
                "output": True,
                "resources": True,
                "budget": True,
                "limits": {"max_quarantined_fraction", "decode_timeout_s", "decode_memory_mb"},
                "source": set(SourceSpec.TRUST),
            },
        )
        record["recipes"].sort(key=lambda recipe: recipe["id"] or recipe["name"])
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The job with every default spelled out; `load_job` reads it back as an equal spec."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


RecipeCheck = Callable[[Mapping[int, RecipeSpec]], Sequence[JobProblem]]
"""Entries of a job's `recipes` by their places, without those that are wrong in themselves -> what is wrong."""


def load_job(
    path_or_text: str | Path,
    overrides: Sequence[str] = (),
    *,
    folder: Path | None = None,
    check_recipes: RecipeCheck | None = None,
) -> JobSpec:
    """Reads and checks a job.

    Args:
        path_or_text: a file, as a `Path` or a string of one line; with line breaks in it, the YAML itself.
        overrides: `path=value` pairs applied in order, e.g. `engine.dtype=float32`, `recipes.caption.seed=1`
            or `recipes.0.seed=1`; values are YAML.
        folder: where the job's relative places start from, but for those of overrides; by default all start from the
            working folder.
        check_recipes: holds the recipes to their files, whatever else is wrong with the job.

    Raises:
        JobError: with one problem for each mistake.
    """
    document, problems = parse_mapping(read_text(path_or_text))
    document = _spelled_out(document)
    if folder is not None and folder != Path():
        document = moved(document, lambda place: os.path.join(folder, place.removeprefix("./")))
    for override in overrides:
        try:
            document = _spelled_out(apply_override(document, override))
        except JobError as error:
            problems.extend(error.problems)
    spec = None
    try:
        spec = JobSpec.model_validate(document)
    except ValidationError as error:
        problems += problems_of(error, JobSpec)
    if check_recipes is not None:
        problems += check_recipes(_sound_entries(document.get("recipes")))
    if problems or spec is None:
        raise JobError(list(dict.fromkeys(problems)))
    return spec


def _sound_entries(recipes: object) -> dict[int, RecipeSpec]:
    sound = {}
    for place, entry in enumerate(recipes if isinstance(recipes, list) else ()):
        with contextlib.suppress(ValidationError):
            sound[place] = RecipeSpec.model_validate(entry)
    return sound


def _spelled_out(document: Mapping[Any, Any]) -> dict[Any, Any]:
    """A source and an output that are plain URIs and recipes that are plain names, as the mappings they stand for."""
    full = dict(document)
    for key in ("source", "output"):
        if isinstance(full.get(key), str):
            full[key] = {"uri": full[key]}
    if isinstance(full.get("recipes"), list | tuple):
        full["recipes"] = [{"name": entry} if isinstance(entry, str) else entry for entry in full["recipes"]]
    return full
