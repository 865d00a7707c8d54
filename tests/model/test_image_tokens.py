"""The order of one image's tokens, drawn: `g` global view, letters for local tiles, `/` newline, `|` separator."""

import pytest
import torch

from model.config_files import load_processor_config
from model.image_tokens import lay_out_images
from tests import golden


def layout(tiles: str, *grids: tuple[int, int], global_view_first: bool = True) -> str:
    """Lays out one letter per tile, 2x2 image tokens each (`a` is a1 a2 over a3 a4), and spells the result."""
    codes = {code: f"{tile}{number}" for code, (tile, number) in enumerate((t, n) for t in tiles for n in "1234")}
    tokens_NMD = torch.arange(len(codes)).reshape(len(tiles), 4, 1).float()
    newline, separator = torch.tensor([-1.0]), torch.tensor([-2.0])
    sequence = lay_out_images(
        tokens_NMD, grids, newline_D=newline, separator_D=separator, global_view_first=global_view_first
    )
    spelled = {**codes, -1: "/", -2: "|"}
    return " ".join(spelled[int(token)] for token in sequence[:, 0])


def test_global_view_comes_first_then_the_separator_then_the_local_tile():
    assert layout("ga", (1, 1)) == "g1 g2 / g3 g4 / | a1 a2 / a3 a4 /"


def test_global_view_comes_last_where_the_checkpoint_says_tail():
    assert layout("ga", (1, 1), global_view_first=False) == "a1 a2 / a3 a4 / | g1 g2 / g3 g4 /"


def test_tiles_side_by_side_share_their_rows_with_one_newline_per_mosaic_row():
    assert layout("gab", (2, 1)) == "g1 g2 / g3 g4 / | a1 a2 b1 b2 / a3 a4 b3 b4 /"


def test_tiles_above_each_other_follow_each_other():
    assert layout("gab", (1, 2)) == "g1 g2 / g3 g4 / | a1 a2 / a3 a4 / b1 b2 / b3 b4 /"


def test_grid_is_wide_times_high_and_its_tiles_row_by_row():
    assert layout("gabcdef", (3, 2)) == (
        "g1 g2 / g3 g4 / | "
        "a1 a2 b1 b2 c1 c2 / a3 a4 b3 b4 c3 c4 / "
        "d1 d2 e1 e2 f1 f2 / d3 d4 e3 e4 f3 f4 /"
    )  # fmt: skip


def test_images_follow_each_other_with_nothing_between():
    assert layout("gahbc", (1, 1), (2, 1)) == f"{layout('ga', (1, 1))} {layout('hbc', (2, 1))}"


def test_no_images_are_no_tokens():
    assert layout("") == ""


def test_tiles_and_grids_that_differ_in_number_are_a_defect():
    with pytest.raises(AssertionError, match=r"need 3 tiles, got 2"):
        layout("ga", (2, 1))


@pytest.mark.parametrize("grid", [(1, 1), (2, 1), (1, 2), (3, 3), (9, 1), (1, 9)], ids=str)
def test_layout_is_as_long_as_the_prompt_expects(grid: tuple[int, int]):
    config = load_processor_config(golden.checkpoint_folder("base-like"))
    tokens = torch.zeros(1 + grid[0] * grid[1], config.tokens_per_side**2, 1)
    mark = torch.zeros(1)
    sequence = lay_out_images(tokens, [grid], newline_D=mark, separator_D=mark, global_view_first=True)
    assert len(sequence) == config.num_image_tokens(grid)
