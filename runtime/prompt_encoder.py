"""From token ids to the K and V that the generator attends to: one forward of und_prefill per new prompt."""

from __future__ import annotations

import numpy as np

from motedge.runtime.contract_check import host_dtype
from motedge.runtime.engine import Array, Engine, IntArray
from motedge.runtime.finite import check_finite
from motedge.runtime.prompt_cache import PromptCache
from motedge.runtime.rope import RotaryTable
from motedge.runtime.tables import Tables

GRAPH = "und_prefill"


class PromptEncoder:
    """und_prefill behind a cache."""

    def __init__(self, und: Engine, tables: Tables, rotary: RotaryTable, cache: PromptCache, kv_dtype: str) -> None:
        """`kv_dtype`: the generator's dtype, "fp32" or "fp16", to which K and V are converted once."""
        self._und, self._tables, self._rotary, self.cache = und, tables, rotary, cache
        self._kv_dtype = host_dtype("graph", kv_dtype)

    def encode(self, token_ids: IntArray) -> Array:
        """K and V of a prompt, [L, 2, K, n, D]; not to be changed.

        Raises:
            ContractError: more or fewer tokens than the graph was exported for, or an id outside the vocabulary.
            NonFiniteError: the graph returned NaN or infinity.
        """
        kept = self.cache.get(token_ids)
        if kept is not None:
            return kept
        # First, for it refuses prompts that are too long before anything is computed
        context = self._und.context({"S": token_ids.size})
        cos, sin = self._rotary.text(token_ids.size)
        context.set_input("embeddings", self._tables.embeddings(token_ids))
        context.set_input("cos", cos)
        context.set_input("sin", sin)
        context.run()
        # A copy: the context's buffer is not ours to keep
        und_kv = np.array(context.output("und_kv"), dtype=self._kv_dtype, order="C")
        check_finite(und_kv, f"graph {GRAPH!r} returned NaN or infinity for a prompt of {token_ids.size} tokens")
        self.cache.put(token_ids, und_kv)
        return und_kv
