"""transformers' own models, tiny and random, as the engines behind the loop's ports and as its oracle."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import pytest

from motedge.runtime.reasoner.ports import VisualTokens
from motedge.runtime.reasoner.vision_settings import EDGE, QWEN3_VL
from motedge.runtime.reasoner.visual_input import VisualInput

TOKENS = {"image_token_id": 19, "video_token_id": 18, "vision_start_token_id": 20, "vision_end_token_id": 21}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [12, 10, 10], "mrope_interleaved": True}
TEXT = {
    "vocab_size": 700,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "rope_parameters": ROPE,
    "pad_token_id": 0,
    "eos_token_id": 11,
    "initializer_range": 0.3,
}
VISION = {"hidden_size": 48, "intermediate_size": 64, "patch_size": 16, "initializer_range": 0.1}


def _edge() -> Any:
    module = pytest.importorskip("transformers.models.cosmos3_edge")
    vision = {**VISION, "num_hidden_layers": 2, "num_attention_heads": 2, "num_patches": 16}
    config = module.Cosmos3EdgeConfig(text_config=TEXT, vision_config=vision, projector_hidden_size=64, **TOKENS)
    return module.Cosmos3EdgeForConditionalGeneration(config)


def _nano() -> Any:
    module = pytest.importorskip("transformers.models.cosmos3_omni")
    vision = {**VISION, "depth": 3, "num_heads": 2, "num_position_embeddings": 16, "out_hidden_size": 128}
    vision["deepstack_visual_indexes"] = [0, 1, 2]
    config = module.Cosmos3OmniConfig(text_config=TEXT, vision_config=vision, **TOKENS)
    return module.Cosmos3OmniForConditionalGeneration(config)


class TorchUnd:
    """The text model with its cache; cos and sin are those that it is given."""

    capacity, max_new = 400, 50

    def __init__(self, model: Any) -> None:
        import transformers

        self._model, self._text = model, model.model.language_model
        self._new_cache = lambda: transformers.DynamicCache(config=self._text.config)
        self._cache = self._new_cache()
        # (start, rows) of each step
        self.steps: list[tuple[int, int]] = []

    def step(
        self, embeddings: np.ndarray, cos: np.ndarray, sin: np.ndarray, start: int, deepstack: Optional[np.ndarray]
    ) -> np.ndarray:
        import torch

        self.steps.append((start, len(embeddings)))
        if start == 0:
            self._cache = self._new_cache()
        assert self._cache.get_seq_length() == start
        both = [torch.from_numpy(np.tile(table, 2))[None] for table in (cos, sin)]
        own, self._text.rotary_emb = self._text.rotary_emb, _Fixed(tuple(both))
        more = {}
        if deepstack is not None:
            more["visual_pos_masks"] = torch.ones(1, len(embeddings), dtype=torch.bool)
            more["deepstack_visual_embeds"] = list(torch.from_numpy(deepstack))
        try:
            with torch.no_grad():
                hidden = self._text(
                    inputs_embeds=torch.from_numpy(embeddings)[None], past_key_values=self._cache, **more
                ).last_hidden_state
                return self._model.lm_head(hidden[0, -1]).numpy()
        finally:
            self._text.rotary_emb = own


def _Fixed(value: Any) -> Any:
    import torch

    class Fixed(torch.nn.Module):
        def forward(self, *_: Any) -> Any:
            return value

    return Fixed()


class TorchVision:
    """The vision encoder."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def encode(self, visual: VisualInput) -> VisualTokens:
        import torch

        grid = torch.tensor([[visual.grid.frames, visual.grid.rows, visual.grid.columns]])
        with torch.no_grad():
            seen = self._model.model.get_image_features(torch.from_numpy(visual.patches), grid, return_dict=True)
        layers = [torch.cat(list(layer)) for layer in getattr(seen, "deepstack_features", None) or []]
        tokens = torch.cat(list(seen.pooler_output)).numpy()
        return VisualTokens(tokens, torch.stack(layers).numpy() if layers else None)


@pytest.fixture(scope="package", params=["edge", "nano"])
def torch_model(request: pytest.FixtureRequest) -> SimpleNamespace:
    """The model of a family: `model`, `settings`, `und()`, `vision`, `embed`, `inv_freq`, `config`."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = (_edge if request.param == "edge" else _nano)().eval()
    table = model.get_input_embeddings().weight.detach().numpy()
    return SimpleNamespace(
        family=request.param,
        model=model,
        settings=EDGE if request.param == "edge" else QWEN3_VL,
        und=lambda: TorchUnd(model),
        vision=TorchVision(model),
        embed=lambda ids: table[ids].copy(),
        inv_freq=model.model.language_model.rotary_emb.inv_freq.numpy(),
        config={"rope_axes_dim": ROPE["mrope_section"]},
    )
