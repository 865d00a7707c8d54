import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from schemas.job import (
    JobError,
    JobProblem,
    JobSpec,
    RecipeSpec,
    SourceSpec,
    load_job,
)

FULL = """
name: photos
source:
  uri: s3://bucket/prefix/
  format: parquet
  image_column: picture
  carry: [license]
  image_roots: [s3://bucket/photos, /mnt/photos]
  allow_http: true
checkpoint: s3://models/small
recipes:
  - ocr
  - {name: caption, hints: [ocr], temperature: 0.4, top_p: 0.9, seed: 7}
  - {name: grounding, queries: ["red circle", "the dog"]}
  - {name: qa, questions_from: questions, answers_from: answers}
output: s3://bucket/labels/photos
limits:
  max_pixels: 200_000_000
  max_bytes: 1_000
  min_decoded_fraction: 1
  decode_timeout_s: 2.5
  decode_memory_mb: 1_024
  max_quarantined_fraction: 0.5
engine: {dtype: bfloat16, device: cpu, expert_ranks: 1, prefill_chunk_tokens: 64, max_num_sequences: 2}
resources: {tile_actors: 3, label_actors: auto}
budget: {max_gpu_hours: 2.5, max_images: 1000, deadline: 6h}
"""
SMALL = """
name: photos
source: images
recipes: [ocr]
output: labels
"""


LAUGHS = "a0: &a0 [ha]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGES = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


def job_with(**parts: str) -> str:
    """The small job with some of its keys written differently, as YAML."""
    lines = {"name": "photos", "source": "images", "recipes": "[ocr]", "output": "labels", **parts}
    return "\n".join(f"{key}: {value}" for key, value in lines.items())


def problems(text: str, *overrides: str) -> dict[str, str]:
    with pytest.raises(JobError) as caught:
        load_job(textwrap.dedent(text) + "\n", overrides)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_every_key_of_a_job_file_is_read():
    job = load_job(FULL)

    assert job.source.image_column == "picture"
    assert job.source.carry == ("license",)
    assert job.source.image_roots == ("s3://bucket/photos", "/mnt/photos")
    assert job.source.allow_http is True
    assert job.checkpoint == "s3://models/small"
    assert job.recipes == (
        RecipeSpec(name="ocr"),
        RecipeSpec(name="caption", hints=("ocr",), temperature=0.4, top_p=0.9, seed=7),
        RecipeSpec(name="grounding", queries=("red circle", "the dog")),
        RecipeSpec(name="qa", questions_from="questions", answers_from="answers"),
    )
    assert job.limits.max_pixels == 200_000_000
    assert (job.limits.min_decoded_fraction, job.limits.decode_timeout_s, job.limits.decode_memory_mb) == (1, 2.5, 1024)
    assert (job.engine.dtype, job.engine.expert_ranks, job.engine.max_num_sequences) == ("bfloat16", 1, 2)
    assert (job.resources.tile_actors, job.resources.label_actors) == (3, "auto")
    assert (job.budget.max_gpu_hours, job.budget.max_images, job.budget.deadline) == (2.5, 1000, "6h")


def test_a_job_needs_only_a_name_a_source_a_recipe_and_an_output():
    job = load_job(SMALL)

    assert job.checkpoint == "nano"
    assert job.source == SourceSpec(uri="images")
    assert job.limits.model_dump() == {
        "max_pixels": 200_000_000,
        "max_bytes": 100_000_000,
        "max_images": 16,
        "min_decoded_fraction": 0.9,
        "decode_timeout_s": 60,
        "decode_memory_mb": 4096,
        "max_quarantined_fraction": 0.05,
    }
    assert job.engine.model_dump() == {
        "dtype": "auto",
        "device": "auto",
        "expert_ranks": "auto",
        "prefill_chunk_tokens": 1024,
        "max_num_sequences": 16,
    }


def test_what_a_job_does_not_say_of_a_recipe_is_left_to_its_file():
    (spec,) = load_job(SMALL).recipes

    assert (spec.max_new_tokens, spec.temperature, spec.top_p, spec.hints, spec.style, spec.seed) == (*[None] * 5, 0)


def specs_below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        pending = [field.annotation]
        while pending:
            annotation = pending.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from specs_below(annotation)
            else:
                pending.extend(getattr(annotation, "__args__", ()))


ALL_SPECS = sorted(set(specs_below(JobSpec)), key=lambda spec: spec.__name__)


@pytest.mark.parametrize("spec", ALL_SPECS, ids=lambda spec: spec.__name__)
def test_every_key_is_described(spec: type[BaseModel]):
    assert [name for name, field in spec.model_fields.items() if not field.description] == []
    assert len(ALL_SPECS) == 8


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        load_job(SMALL).engine.dtype = "float32"


class TestProblems:
    def test_all_are_reported_at_once_one_line_each(self):
        text = """
        name: my photos
        source: {url: images}
        recipes: [caption, {name: ocr, max_new_tokens: 0}]
        limits: {max_bytes: many}
        """
        with pytest.raises(JobError) as caught:
            load_job(textwrap.dedent(text))

        assert str(caught.value).splitlines() == [
            "name: must start with a letter or digit and hold only those, '-', '_' and '.', got 'my photos'",
            "source.uri: is missing",
            "source.url: unknown key; did you mean 'uri'? known keys: uri, format, image_column, image_root, "
            "carry, pdf_dpi, image_roots, allow_http",
            "recipes.1.max_new_tokens: must be at least 1, got 0",
            "output: is missing",
            "limits.max_bytes: must be a whole number, got 'many'",
        ]

    @pytest.mark.parametrize(
        ("parts", "path", "message"),
        [
            pytest.param({"name": "2024"}, "name", "must be text, got 2024; put it in quotes", id="number for a name"),
            pytest.param({"name": "'../up'"}, "name", "letter or digit", id="name with a slash"),
            pytest.param({"output": "' '"}, "output.uri", "must not be empty", id="blank output"),
            pytest.param({"source": "{uri: x, format: csv}"}, "source.format", "got 'csv'", id="unknown format"),
            pytest.param({"recipes": "[]"}, "recipes", "at least one recipe", id="no recipes"),
            pytest.param({"recipes": "ocr"}, "recipes", "must be a list, got 'ocr'", id="recipes as text"),
            pytest.param({"recipes": "[ocr, ocr]"}, "recipes.1", "given twice", id="recipe twice"),
            pytest.param(
                {"recipes": "[5]"},
                "recipes.0",
                "a mapping with a name, got 5",
                id="number for a recipe",
            ),
            pytest.param({"recipes": "[null]"}, "recipes.0", "is empty", id="empty list entry"),
            pytest.param({"recipes": "[{hints: [ocr]}]"}, "recipes.0.name", "is missing", id="recipe without a name"),
            pytest.param(
                {"recipes": "[{ocr: {seed: 1}}]"},
                "recipes.0",
                "write {name: ocr, ...}",
                id="recipe name as the key",
            ),
            pytest.param(
                {"recipes": "[{name: ocr, hint: []}]"},
                "recipes.0.hint",
                "unknown key; did you mean 'hints'?",
                id="key of no recipe",
            ),
            pytest.param(
                {"recipes": "[{name: ocr, id: a}, {name: caption, id: a}]"},
                "recipes.1",
                "the recipe a is given twice: keep one, or give one of them another id",
                id="id twice",
            ),
            pytest.param({"recipes": "[{name: ocr, id: ../up}]"}, "recipes.0.id", "lower case", id="id with a slash"),
            pytest.param({"recipes": "[{name: ocr, variants: [0, 0]}]"}, "recipes.0.variants.1", "0 is given twice"),
            pytest.param(
                {"recipes": "[{name: ocr, top_p: 0}]"},
                "recipes.0.top_p",
                "greater than 0",
                id="top_p of zero",
            ),
            pytest.param(
                {"recipes": "[{name: ocr, temperature: .nan}]"},
                "recipes.0.temperature",
                "finite",
                id="temperature nan",
            ),
            pytest.param(
                {"recipes": "[{name: ocr, seed: yes}]"},
                "recipes.0.seed",
                "a number, got true",
                id="yes for a number",
            ),
            pytest.param({"limits": ""}, "limits", "is empty", id="section without keys"),
            pytest.param({"limits": "5"}, "limits", "max_pixels, max_bytes", id="number for a section"),
            pytest.param({"limits": "{max_quarantined_fraction: 5}"}, "limits.max_quarantined_fraction", "at most 1"),
            pytest.param({"limits": "{min_decoded_fraction: 0}"}, "limits.min_decoded_fraction", "greater than 0"),
            pytest.param({"limits": "{decode_memory_mb: 100}"}, "limits.decode_memory_mb", "at least 256"),
            pytest.param({"engine": "{dtype: float16}"}, "engine.dtype", "did you mean 'bfloat16'", id="other dtype"),
            pytest.param({"engine": "{prefill_chunk_tokens: 8}"}, "engine.prefill_chunk_tokens", "at least 16"),
            pytest.param({"engine": "{expert_ranks: 0}"}, "engine.expert_ranks", "auto or a whole number"),
            pytest.param({"resources": "{tile_actors: all}"}, "resources.tile_actors", "auto or a whole number"),
            pytest.param(
                {"source": "{uri: x, format: images, carry: [a]}"},
                "source.carry",
                "have none",
                id="columns of images",
            ),
            pytest.param(
                {"source": "{uri: x, format: images, image_roots: [/]}"},
                "source.image_roots",
                "the format is images: remove it",
                id="roots of images",
            ),
            pytest.param({"source": "{uri: x, image_roots: /data}"}, "source.image_roots", "must be a list"),
            pytest.param({"source": "{uri: x, image_roots: [a, a]}"}, "source.image_roots.1", "given twice"),
            pytest.param({"source": "{uri: x, allow_http: maybe}"}, "source.allow_http", "must be true or false"),
        ],
    )
    def test_value_that_makes_no_sense_is_explained(self, parts: dict[str, str], path: str, message: str):
        found = problems(job_with(**parts))

        assert list(found) == [path]
        assert message in found[path]

    @pytest.mark.parametrize(
        ("recipe", "path", "message"),
        [
            ("{name: qa, questions: [a], questions_from: b}", "", "questions or questions_from, not both"),
            ("{name: qa, questions: [a], answers_from: b}", ".answers_from", "only goes with questions_from"),
            ("{name: qa, questions: [a, '']}", ".questions.1", "must not be empty"),
            ("{name: qa, questions: [a, b, a]}", ".questions.2", "'a' is given twice"),
            ("{name: qa, questions: why}", ".questions", "must be a list, got 'why'"),
            ("{name: grounding, queries: [dog], queries_from: b}", "", "queries or queries_from, not both"),
            ("{name: grounding, queries: [' ']}", ".queries.0", "must not be empty"),
        ],
    )
    def test_questions_and_queries_come_from_exactly_one_place(self, recipe: str, path: str, message: str):
        found = problems(job_with(recipes=f"[ocr, {recipe}]"))

        assert list(found) == [f"recipes.1{path}"]
        assert message in found[f"recipes.1{path}"]

    def test_column_of_questions_is_refused_for_image_files(self):
        text = job_with(source="{uri: x, format: images}", recipes="[{name: qa, questions_from: q}]")

        assert problems(text) == {"recipes.0.questions_from": "names a column, but image files have none: use a table"}

    def test_mistake_in_one_recipe_hides_none_in_another(self):
        found = problems(job_with(recipes="[{id: a}, {name: grounding, query: dog}, {name: ocr, seed: x}]"))

        assert list(found) == ["recipes.0.name", "recipes.1.query", "recipes.2.seed"]


class TestCredentials:
    @pytest.mark.parametrize(
        ("parts", "path"),
        [
            pytest.param({"source": "{uri: x, access_key: SECRET}"}, "source.access_key", id="access key"),
            pytest.param({"source": "{uri: x, aws_secret_access_key: SECRET}"}, "source.aws_secret_access_key"),
            pytest.param({"source": "{uri: x, endpoint_url: SECRET}"}, "source.endpoint_url", id="endpoint"),
            pytest.param({"source": "{uri: x, token: SECRET}"}, "source.token", id="token"),
            pytest.param({"output": "{uri: x, secret: SECRET}"}, "output.secret", id="secret of the output"),
            pytest.param({"source": "s3://user:SECRET@bucket/x"}, "source.uri", id="password in the source"),
            pytest.param(
                {"source": "{uri: x, image_roots: ['s3://u:SECRET@b']}"}, "source.image_roots.0", id="in a root"
            ),
            pytest.param({"output": "s3://AKIA:SEC/RET@bucket/x"}, "output.uri", id="password with a slash"),
            pytest.param({"checkpoint": "https://u:SECRET@host:80/x"}, "checkpoint", id="password in the checkpoint"),
        ],
    )
    def test_belong_to_the_environment_and_are_never_repeated(self, parts: dict[str, str], path: str):
        found = problems(job_with(**parts))

        assert list(found) == [path]
        assert "AWS environment" in found[path]
        assert "SEC" not in found[path]

    def test_are_not_seen_in_a_misspelt_number_of_tokens(self):
        (message,) = problems(job_with(recipes="[{name: ocr, max_new_token: 5}]")).values()

        assert "did you mean 'max_new_tokens'?" in message

    @pytest.mark.parametrize("uri", ["http://host:8080/a@b/", "s3://bucket/user@example.org/", "hf://org/data@main"])
    def test_are_not_seen_in_an_ordinary_at_sign(self, uri: str):
        assert load_job(job_with(source=uri)).source.uri == uri


class TestFile:
    def test_is_read_from_a_path_or_its_name(self, tmp_path: Path):
        path = tmp_path / "job.yaml"
        path.write_bytes(b"\xef\xbb\xbf" + FULL.encode())

        assert load_job(path) == load_job(str(path)) == load_job(FULL)

    def test_that_does_not_exist_is_one_line(self, tmp_path: Path):
        with pytest.raises(JobError, match=r"job\.yaml: there is no such job file$"):
            load_job(tmp_path / "job.yaml")

    def test_that_is_a_folder_is_one_line(self, tmp_path: Path):
        with pytest.raises(JobError, match=r"is a folder: name the job file in it$"):
            load_job(tmp_path)

    def test_that_is_not_utf8_is_one_line(self, tmp_path: Path):
        path = tmp_path / "job.yaml"
        path.write_bytes("name: café".encode("latin-1"))

        with pytest.raises(JobError, match=r"is not UTF-8 text \(byte 9\): save it as UTF-8$"):
            load_job(path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_that_may_not_be_read_is_one_line(self, tmp_path: Path):
        path = tmp_path / "job.yaml"
        path.write_text(SMALL)
        path.chmod(0)

        with pytest.raises(JobError, match="cannot be read: Permission denied"):
            load_job(path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            pytest.param("", "the job file is empty", id="empty"),
            pytest.param("# later\n", "the job file is empty", id="only a comment"),
            pytest.param("- ocr\n", "must be a mapping (name: ..., source: ...), got a list", id="a list"),
            pytest.param("name: [photos\noutput: x\n", "line 2, column 7", id="open bracket"),
            pytest.param("name: photos\n\tsource: x\n", "line 2, column 1", id="tab"),
            pytest.param("name: \0\n", "line 1: a control character (#x0000)", id="control character"),
            pytest.param("name: a\n---\nname: b\n", "another document", id="two documents"),
            pytest.param("name: *other\n", "found undefined alias", id="unknown alias"),
            pytest.param("name: !!python/name:os.system\n", "could not determine a constructor", id="python object"),
            pytest.param("name: 2024-13-45\n", "month must be in 1..12", id="impossible date"),
            pytest.param("[" * 5000 + "\n", "nested too deeply", id="very deep"),
            pytest.param("a: " + "{a: " * 5000 + "\n", "nested too deeply", id="very deep mapping"),
            pytest.param(LAUGHS, "an alias (*) repeats too much", id="aliases of aliases"),
            pytest.param(MERGES, "an alias (*) repeats too much", id="merge keys of merge keys"),
            pytest.param("recipes: &r [*r]\n", "an alias (*) repeats too much, or itself", id="list in itself"),
            pytest.param("source: &s {<<: *s}\n", "an alias (*) repeats too much, or itself", id="merged with itself"),
            pytest.param("name: !!python/object/apply:os.system [id]\n", "could not determine", id="python call"),
            pytest.param("name: !env HOME\n", "could not determine a constructor", id="a tag of its own"),
            pytest.param(f"limits: {{max_bytes: {'9' * 5000}}}\n", "Exceeds the limit", id="endless number"),
        ],
    )
    def test_that_is_no_yaml_mapping_is_one_line(self, text: str, message: str):
        with pytest.raises(JobError) as caught:
            load_job(text)

        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_that_gives_a_key_twice_is_refused_at_any_depth(self):
        text = "name: a\nsource: x\noutput: y\nname: b\nrecipes:\n  - {name: ocr, seed: 1, seed: 2}\n"

        assert problems(text) == {
            "name": "is given twice, in line 1 and in line 4: keep one",
            "recipes.0.seed": "is given twice, in line 6 and in line 6: keep one",
        }

    def test_may_use_anchors_and_merge_keys(self):
        text = """
        name: photos
        source: images
        recipes:
          - &ocr {name: ocr, temperature: 0.5, seed: 3}
          - {<<: *ocr, name: caption}
        output: labels
        """
        job = load_job(textwrap.dedent(text))

        assert job.recipes == tuple(RecipeSpec(name=name, temperature=0.5, seed=3) for name in ("ocr", "caption"))


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "read"),
        [
            ("name=other", lambda job: job.name == "other"),
            ("limits.max_pixels=1_000", lambda job: job.limits.max_pixels == 1000),
            ("limits.max_pixels='1_000'", lambda job: job.limits.max_pixels == 1000),
            ("resources.tile_actors='2'", lambda job: job.resources.tile_actors == 2),
            ("source.format=parquet", lambda job: job.source == SourceSpec(uri="images", format="parquet")),
            ("recipes.0.max_new_tokens=5", lambda job: job.recipes[0].max_new_tokens == 5),
            ("recipes.ocr.max_new_tokens=5", lambda job: job.recipes[0].max_new_tokens == 5),
            ("recipes=[caption]", lambda job: job.recipes == (RecipeSpec(name="caption"),)),
            ("recipes.0=caption", lambda job: job.recipes == (RecipeSpec(name="caption"),)),
            ("output=s3://bucket/a=b", lambda job: job.output.uri == "s3://bucket/a=b"),
            ("checkpoint= 'a folder'", lambda job: job.checkpoint == "a folder"),
        ],
    )
    def test_set_a_value_by_its_path(self, override: str, read):
        assert read(load_job(SMALL, [override]))

    def test_apply_in_order(self):
        job = load_job(SMALL, ["recipes=[ocr, caption]", "recipes.caption.hints=[ocr]", "name=a", "name=b"])

        assert job.recipes == (RecipeSpec(name="ocr"), RecipeSpec(name="caption", hints=("ocr",)))
        assert job.name == "b"

    def test_change_one_place_even_where_yaml_shares_it(self):
        text = """
        name: photos
        source: images
        recipes: [{name: qa, questions: &asked [a, b]}, {name: grounding, queries: *asked}]
        output: labels
        """
        qa, grounding = load_job(textwrap.dedent(text), ["recipes.qa.questions.0=c"]).recipes

        assert qa.questions == ("c", "b")
        assert grounding.queries == ("a", "b")

    @pytest.mark.parametrize(
        ("override", "path", "message"),
        [
            ("limits.max_pixels", "limits.max_pixels", "has the form path=value"),
            ("=5", "", "has the form path=value"),
            ("limits..max_pixels=5", "limits..max_pixels", "has the form path=value"),
            ("name.first=x", "name.first", "'first' cannot be set inside 'photos', which is a single value"),
            ("recipes.3.seed=1", "recipes.3.seed", "there is no entry 3: the list has 1, counted from 0"),
            ("recipes.orc.seed=1", "recipes.orc.seed", "no entry is called 'orc'; did you mean 'ocr'?"),
            ("recipes.0.seeds=1", "recipes.0.seeds", "unknown key; did you mean 'seed'?"),
            ("limits.max_pixels=", "limits.max_pixels", "is empty"),
            ("limits.max_pixels=[1", "limits.max_pixels", "not valid YAML"),
            ("source.secret_key=SECRET", "source.secret_key", "AWS environment"),
        ],
    )
    def test_that_lead_nowhere_are_problems_with_their_path(self, override: str, path: str, message: str):
        found = problems(SMALL, override)

        assert list(found) == [path]
        assert message in found[path]

    def test_problems_come_together_with_those_of_the_file(self):
        assert set(problems(job_with(engine="{dtyp: x}"), "name.x=1")) == {"name.x", "engine.dtyp"}


class TestDigest:
    @pytest.mark.parametrize(
        "override",
        [
            "name=other",
            "output=elsewhere",
            "resources.tile_actors=7",
            "budget={max_gpu_hours: 1, max_images: 5, deadline: 6h}",
            "limits.max_quarantined_fraction=0.9",
            "limits.decode_timeout_s=9",
            "limits.decode_memory_mb=900",
            "recipes=[caption, {name: ocr, seed: 0}]",
            "source={uri: images}",
            "source.image_roots=[s3://bucket/]",
            "source.allow_http=true",
        ],
    )
    def test_does_not_depend_on_what_leaves_the_labels_alone(self, override: str):
        text = job_with(recipes="[ocr, caption]")

        assert load_job(text, [override]).digest() == load_job(text).digest()

    @pytest.mark.parametrize(
        "override",
        [
            "source.uri=other",
            "source.carry=[a]",
            "checkpoint=other",
            "recipes=[ocr, caption]",
            "recipes.ocr.max_new_tokens=5",
            "recipes.ocr.seed=1",
            "limits.max_pixels=5",
            "limits.min_decoded_fraction=0.5",
            "engine.dtype=bfloat16",
        ],
    )
    def test_changes_with_what_determines_the_labels(self, override: str):
        assert load_job(SMALL, [override]).digest() != load_job(SMALL).digest()

    def test_does_not_depend_on_the_order_in_which_one_recipe_is_given_twice(self):
        twice = ["{name: caption, id: a}", "{name: caption, id: b, style: short}"]
        one, other = (load_job(job_with(recipes=f"[{', '.join(order)}]")) for order in (twice, twice[::-1]))

        assert one.digest() == other.digest()

    def test_is_sha256_in_hex_and_stays_the_same_between_versions(self):
        """A changed default or a new key changes it, and makes finished jobs look changed: decide that knowingly."""
        assert load_job(SMALL).digest() == "748e2e0f936b0f36c7bb34a2c5fbc34d2ae08b82dc3d86ad1152ebba13e138e2"


@pytest.mark.parametrize("text", [FULL, SMALL], ids=["full", "small"])
def test_job_written_as_yaml_reads_back_equal(text: str):
    job = load_job(text, ["checkpoint=Größe 1"])

    assert load_job(job.to_yaml()) == job
    assert "Größe 1" in job.to_yaml()


def test_job_error_lists_its_problems():
    error = JobError([JobProblem(path="a.b", message="is missing"), JobProblem(path="", message="no such file")])

    assert isinstance(error, ValueError)
    assert str(error) == "a.b: is missing\nno such file"
