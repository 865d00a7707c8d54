"""An output -> its report: one HTML file with everything in it, which asks no network for anything."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.commits import OUTCOMES
from pipeline.output_names import REPORT_FILE, RUN_NAME
from pipeline.report.charts import charts
from pipeline.report.facts import QUARANTINED_PER_KIND, Facts
from pipeline.report.gallery import Card, cards, grouped
from pipeline.report.rows import OpenRun
from pipeline.status import Status, status
from pipeline.storage import join_uri, open_store, shown_uri
from pipeline.worker_deaths import sentence


@dataclass(frozen=True, kw_only=True)
class Written:
    uri: str
    num_bytes: int
    num_rows: int
    num_cards: int
    num_without_picture: int


def write_report(output: str, *, out: str | None = None, max_images: int = 120) -> Written:
    """Writes the page; by default to `<output>/_run/report.html`.

    Args:
        out: URI of the file.
        max_images: samples in the gallery.

    Raises:
        ValueError: no run was ever started there.
    """
    state, run, facts = status(output), OpenRun.at(output), Facts(num_samples=max_images)
    shown: Sequence[Card] = ()
    if run is not None:
        for shard in run.shards:
            for table, rows in run.rows(shard, run.settled(shard)):
                facts.add(table, rows)
        shown = list(cards(run, facts.chosen()))
    page = render(state, run, facts, shown).encode()
    uri = out or join_uri(state.output, RUN_NAME, REPORT_FILE)
    open_store(uri).put(uri, page)
    return Written(
        uri=uri,
        num_bytes=len(page),
        num_rows=facts.num_rows.total(),
        num_cards=len(shown),
        num_without_picture=sum(not card.pictures for card in shown),
    )


def render(state: Status, run: OpenRun | None, facts: Facts, shown: Sequence[Card]) -> str:
    environment = Environment(
        loader=PackageLoader("pipeline.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = _asset("report.js"), _asset("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    expert_imbalance = _recorded(state, run, "expert_imbalance") or ()
    drawn = charts(facts, _recorded(state, run, "timeline") or {}, expert_imbalance)
    return environment.get_template("report.html").render(
        state=state,
        output=shown_uri(state.output),
        name=run.job.name if run is not None else "",
        checkpoint=run.job.checkpoint if run is not None else "",
        summary=run.summary if run is not None else None,
        outcomes=(*OUTCOMES, "pending"),
        rates=_rates(run),
        deaths=sentence(state.label_actor_deaths),
        facts=facts,
        charts=[(title, Markup(svg)) for title, svg in drawn],
        has_expert_load=bool(expert_imbalance),
        cards=shown,
        per_kind=QUARANTINED_PER_KIND,
        quarantined={kind: grouped(rows) for kind, rows in facts.quarantined_rows.items()},
        recipes=list(dict.fromkeys(recipe for card in shown for recipe in card.recipes)),
        flags=sorted({flag for card in shown for flag in card.flags}),
        error_kinds=sorted({kind for card in shown for kind in card.error_kinds}),
        script=Markup(script),
        style=Markup(style),
        script_digest=digest,
    )


def _rates(run: OpenRun | None) -> dict[str, float]:
    """Of the last run that labelled anything, if it has ended."""
    of_run = run.summary["this_run"] if run is not None and run.summary is not None else {}
    shown = {"images/s": "images_per_s", "output tokens/s": "output_tokens_per_s"}
    return {title: of_run[key] for title, key in shown.items() if of_run.get(key)}


def _recorded(state: Status, run: OpenRun | None, key: str) -> Any:
    """What the run that is under way says of itself, else the one that wrote the summary; None where neither does."""
    of_lease = state.run["progress"].get(key)
    if of_lease or run is None or run.summary is None:
        return of_lease
    return run.summary["this_run"].get(key)


def _asset(name: str) -> str:
    return (resources.files("pipeline.report") / "assets" / name).read_text(encoding="utf-8")
