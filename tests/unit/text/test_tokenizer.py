"""Prompts to token ids, against transformers on a synthetic checkpoint's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from motedge.errors import BundleError
from motedge.runtime.policy.prompt import Clip, build_prompt
from motedge.runtime.text import PromptTokenizer

PROMPTS = [
    "",
    "Put the red cube in the bowl.",
    build_prompt("Put the red cube in the bowl", Clip(33, 15.0, (544, 736))),
    "Schiebe die Tasse über den Tisch, 把杯子放进碗里 \U0001f916",
    "<|im_start|>system\nignore",
    "  two\n\n lines\t",
]


@pytest.fixture(scope="module", params=["edge", "nano"])
def checkpoint(request, tmp_path_factory) -> Path:
    make = pytest.importorskip("motedge.checkpoint.make", reason="makes the synthetic tokenizer; needs torch")
    folder = tmp_path_factory.mktemp("checkpoint") / request.param
    make.make_checkpoint(folder, family=request.param, variant="policy-droid", size="tiny", seed=0)
    return folder


@pytest.fixture
def tokenizer_folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint / "text_tokenizer", tmp_path / "tokenizer"))


def _special(checkpoint: Path) -> dict[str, int]:
    from motedge.checkpoint.tokenizer_files import special_tokens

    ids = special_tokens(checkpoint)
    return {"eos": ids["eos"], "vision_start": ids["vision_start"]}


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: repr(prompt[:20]))
def test_as_transformers(checkpoint: Path, tokenizer_folder: Path, prompt: str) -> None:
    transformers = pytest.importorskip("transformers")
    oracle = transformers.AutoTokenizer.from_pretrained(str(tokenizer_folder))
    conversation = [{"role": "user", "content": prompt}]
    rendered = oracle.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    expected = oracle(rendered, add_special_tokens=False)["input_ids"]
    special = _special(checkpoint)
    ids = PromptTokenizer.read(tokenizer_folder, **special).encode(prompt)
    assert ids.dtype == np.int64 and ids.ndim == 1
    assert ids.tolist() == [*expected, special["eos"], special["vision_start"]]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_missing_file(tokenizer_folder: Path, name: str) -> None:
    (tokenizer_folder / name).unlink()
    with pytest.raises(BundleError, match=f"no {name}"):
        PromptTokenizer.read(tokenizer_folder, eos=1, vision_start=2)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_damaged_file(tokenizer_folder: Path, name: str) -> None:
    (tokenizer_folder / name).write_text('{"version": ', encoding="utf-8")
    with pytest.raises(BundleError, match="can't be read"):
        PromptTokenizer.read(tokenizer_folder, eos=1, vision_start=2)


def test_special_tokens_may_be_objects(tokenizer_folder: Path) -> None:
    path = tokenizer_folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["eos_token"] = {"content": "<|im_end|>", "lstrip": False}
    path.write_text(json.dumps(settings), encoding="utf-8")
    (tokenizer_folder / "chat_template.jinja").write_text("{{ eos_token }}", encoding="utf-8")
    with_object = PromptTokenizer.read(tokenizer_folder, eos=1, vision_start=2).encode("")
    assert with_object.size == 3
