"""Counts -> inline SVG whose colours are the page's own variables, so that it follows light and dark."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pygal
from pygal.style import Style

from pipeline.report.facts import LOGPROB_BINS, MIN_LOGPROB, Facts

MAX_BARS = 12
_WIDTH_PX, _HEIGHT_PX = 420, 240
_MIN_STEP_S, _MAX_STEPS = 1.0, 60
_LABEL_CHARS = 50
"""That stand beside each other below a chart."""
_UNITS_S, _MIN_UNITS = {"hours": 3600, "minutes": 60}, 3


def charts(
    facts: Facts, timeline: Mapping[str, Sequence[float]], expert_imbalance: Sequence[float]
) -> list[tuple[str, str]]:
    """(title, SVG), of what there is anything of.

    Args:
        timeline: of the run that labelled last (see `pipeline.timeline`); empty where that is not known.
        expert_imbalance: of the same run, see `pipeline.expert_load`.
    """
    lengths = {
        f"{2**n - 1}-{2 ** (n + 1) - 2}" if n else "0": facts.text_lengths[n]
        for n in range(max(facts.text_lengths, default=-1) + 1)
    }
    width = -MIN_LOGPROB / LOGPROB_BINS
    logprobs = {f"{MIN_LOGPROB + width * place:.2f}": int(count) for place, count in enumerate(facts.logprobs)}
    first = next((place for place, count in enumerate(logprobs.values()) if count), 0)
    drawn = [
        ("Tile grids, by labels", _most_common(facts.tile_grids)),
        ("Text length, characters", lengths),
        ("Mean log-probability, bins from", dict(list(logprobs.items())[first:])),
        ("Flags", _most_common(facts.flags)),
        ("Finish reasons", _most_common(facts.finish_reasons)),
        ("Quarantined by error kind", _most_common(facts.quarantined)),
    ]
    over_time = [
        (title, speed(timeline["elapsed_s"], timeline[name]))
        for title, name in (("Images per second", "num_images"), ("Output tokens per second", "num_output_tokens"))
        if name in timeline and rates(timeline["elapsed_s"], timeline[name])
    ]
    of_experts = [("Expert load, busiest over mean", by_layer(expert_imbalance))] if expert_imbalance else []
    return over_time + of_experts + [(title, bars(counts)) for title, counts in drawn if any(counts.values())]


def speed(elapsed_s: Sequence[float], sums: Sequence[float]) -> str:
    """How fast a sum grew between one time and the next, over the time since labeling began."""
    large = ((unit, size_s) for unit, size_s in _UNITS_S.items() if elapsed_s[-1] >= _MIN_UNITS * size_s)
    unit, unit_s = next(large, ("seconds", 1))
    chart = pygal.XY(**_config(), show_dots=False, fill=True, x_title=unit, range=None)
    points = [(at / unit_s, rate) for began, ended, rate in rates(elapsed_s, sums) for at in (began, ended)]
    chart.add("", points)
    return _svg(chart)


def rates(elapsed_s: Sequence[float], sums: Sequence[float]) -> list[tuple[float, float, float]]:
    """(from, to, growth per second), of steps that are not too short: what is committed at once was made before."""
    step_s = max(_MIN_STEP_S, elapsed_s[-1] / _MAX_STEPS)
    first, *later = zip(elapsed_s, sums, strict=True)
    kept = [first]
    for point in later:
        if point[0] - kept[-1][0] >= step_s:
            kept.append(point)
    if len(kept) > 1:
        kept[-1] = later[-1]
    return [(before, now, (is_ - was) / (now - before)) for (before, was), (now, is_) in itertools.pairwise(kept)]


def by_layer(imbalance: Sequence[float]) -> str:
    """One bar for each layer with experts, counted from 1; its axis begins at 0, so that even experts reach 1."""
    names = [str(layer) for layer in range(1, len(imbalance) + 1)]
    shown = [name for name in names if int(name) % math.ceil(len(names) / MAX_BARS) == 0]
    chart = pygal.Bar(**_config(), x_title="layer with experts", x_labels_major=shown, show_minor_x_labels=False)
    chart.x_labels = names
    chart.add("", [{"value": one, "label": f"layer {name}"} for name, one in zip(names, imbalance, strict=True)])
    return _svg(chart)


def bars(counts: Mapping[str, int]) -> str:
    slanted = len(counts) * max([6, *map(len, counts)]) > _LABEL_CHARS
    chart = pygal.Bar(**_config(), x_label_rotation=35 if slanted else 0)
    chart.x_labels = list(counts)
    chart.add("", [{"value": count, "label": name} for name, count in counts.items()])
    return _svg(chart)


def _svg(chart: Any) -> str:
    """Without the script that pygal puts into every chart, which the page's policy would refuse."""
    chart.add_xml_filter(_without_scripts)
    return str(chart.render(is_unicode=True))


def _without_scripts(root: Any) -> Any:
    for parent in list(root.iter()):
        for child in [child for child in parent if str(child.tag).rpartition("}")[2] == "script"]:
            parent.remove(child)
    return root


def _most_common(counts: Mapping[str, int]) -> dict[str, int]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[MAX_BARS:])
    return dict(ranked[:MAX_BARS]) | ({"others": rest} if rest else {})


def _config() -> dict[str, object]:
    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground="var(--muted)",
        foreground_strong="var(--muted)",
        foreground_subtle="var(--line)",
        guide_stroke_color="var(--line)",
        major_guide_stroke_color="var(--line)",
        colors=("var(--accent)",),
        font_family="inherit",
        label_font_size=13,
        major_label_font_size=13,
        title_font_size=13,
    )
    return {
        "style": style,
        "js": [],  # it would be fetched from the network
        "width": _WIDTH_PX,
        "height": _HEIGHT_PX,
        "margin": 8,
        "truncate_label": 24,
        "show_legend": False,
        "include_x_axis": True,
        "max_scale": 6,
        "value_formatter": lambda value: f"{value:,.6g}",
        "disable_xml_declaration": True,
    }
