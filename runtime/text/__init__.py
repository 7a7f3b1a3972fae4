"""Prompts to tokens, without transformers."""

from motedge.runtime.text.tokenizer import PromptTokenizer

__all__ = ["PromptTokenizer"]
