"""Prompts -> embeddings and logits: vision tower, projector, image layout and decoder assembled.

The scientific door to the model; `model.engine` is the one for generating. Shapes: N tiles, P patches, C tower
width, M image tokens per tile, T prompt tokens, D language width, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.image_tokens import lay_out_images
from model.language_model import LanguageModel
from model.projector import Projector
from model.prompt import Prompt
from model.step_layout import StepLayout
from model.transfers import to_device
from model.vision_encoder import VisionEncoder

TILES_PER_BATCH = 16
"""Bounds the tower's activations: 16 tiles of 384 px need about 1.3 GB in float32."""
TILES_AT_ONCE_ON_CPU = 4
"""Of a batch: there is nothing to fill, and the activations of fewer tiles stay in the CPU's cache (a tenth faster)."""


class DeepseekVL2(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionEncoder(config.vision)
        self.projector = Projector(config.projector)
        self.language = LanguageModel(config.language)
        self.image_newline = nn.Parameter(torch.zeros(config.projector.n_embed))
        self.view_separator = nn.Parameter(torch.zeros(config.projector.n_embed))

    @property
    def device(self) -> torch.device:
        return self.image_newline.device

    @property
    def dtype(self) -> torch.dtype:
        return self.language.dtype

    def vision_features(self, tiles: np.ndarray | Tensor) -> Tensor:
        """uint8 [N, S, S, 3] -> features of the tower [N, P, C], final norm applied."""
        tiles = torch.as_tensor(tiles)
        if not len(tiles):
            return self.image_newline.new_empty(0, self.config.vision.num_patches, self.config.vision.width)
        at_once = TILES_AT_ONCE_ON_CPU if self.device.type == "cpu" else TILES_PER_BATCH
        return torch.cat([self.vision(to_device(batch, self.device)) for batch in tiles.split(at_once)])

    def image_embeddings(self, tiles: np.ndarray | Tensor) -> Tensor:
        """uint8 [N, S, S, 3] -> image tokens [N, M, D], row by row, before newlines and separators."""
        features = self.vision_features(tiles)
        if len(features):
            return self.projector(features)
        return features.new_empty(0, self.config.tokens_per_side**2, self.config.projector.n_embed)

    def image_sequence(self, tiles: np.ndarray | Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
        """Tiles of the images of one prompt -> the embeddings at its image positions, in order."""
        return self.lay_out(self.image_embeddings(tiles), grids)

    def lay_out(self, tokens_NMD: Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
        """Image tokens of the images of one prompt -> the embeddings at its image positions, in order."""
        return lay_out_images(
            tokens_NMD,
            grids,
            newline_D=self.image_newline,
            separator_D=self.view_separator,
            global_view_first=self.config.global_view_first,
        )

    def check_prompt(self, prompt: Prompt) -> None:
        """Raises ValueError for token ids without an embedding, which on a GPU would abort the whole process."""
        ids, num_embeddings = prompt.input_ids[~prompt.image_mask], self.config.language.vocab_size
        if len(ids) and ids.max() >= num_embeddings:
            raise ValueError(
                f"the prompt holds token id {ids.max()}, but the model has {num_embeddings} embeddings: "
                "its template uses a control token that this checkpoint was not trained with"
            )

    def embed(self, prompt: Prompt) -> Tensor:
        """[T, D]: token embeddings with the images' embeddings at the masked positions.

        Raises as `check_prompt` does.
        """
        self.check_prompt(prompt)
        image_sequence = self.image_sequence(prompt.tiles, prompt.grids)
        image_mask = torch.from_numpy(prompt.image_mask).to(self.device)
        assert int(prompt.image_mask.sum()) == len(image_sequence), "image positions and image tokens differ in number"
        # ids of image positions are replaced, so any valid id does there, even where <image> is past the vocabulary
        ids = torch.from_numpy(prompt.input_ids).to(self.device).masked_fill(image_mask, 0)
        embeds_TD = self.language.embed_tokens(ids)
        return embeds_TD.masked_scatter(image_mask[:, None], image_sequence.to(embeds_TD.dtype))

    def logits(self, prompt: Prompt) -> Tensor:
        """float32 [T, V]: next-token logits at every position of one prompt."""
        embeds_TD = self.embed(prompt)
        layout = StepLayout.whole_sequence(len(prompt), self.device)
        return self.language.logits(self.language(embeds_TD, layout))
