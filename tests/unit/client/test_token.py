"""Tokens as clients read and show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from motedge.client import RemotePolicy, read_token
from motedge.errors import UsageError


def test_a_file_with_a_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" a-secret\n")
    assert read_token(file) == read_token(str(file)) == "a-secret"


@pytest.mark.parametrize(
    ("content", "what", "got"),
    [
        (None, "can't be read", "No such file or directory"),
        (b"", "is empty", "no characters"),
        (b" \n", "is empty", "no characters"),
        ("sécret".encode(), "other characters than ASCII's", "byte 0xc3 at 1"),
        (b"one\ntwo", "can't be sent", "several lines"),
    ],
)
def test_a_file_without(tmp_path: Path, content: bytes | None, what: str, got: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=what) as caught:
        read_token(file)
    assert caught.value.got == got and str(file) in caught.value.what
    assert "the server's token" in caught.value.expected and "--token-file" in caught.value.fix


@pytest.mark.parametrize("token", ["", "a-secret\n", " a-secret", "sécret", "a\tsecret"])
def test_what_can_not_be_sent_is_told_before_and_not_repeated(token: str) -> None:
    with pytest.raises(UsageError, match="can't be sent") as caught:
        RemotePolicy("ws://127.0.0.1:1", token=token)
    assert "cret" not in str(caught.value) and "read_token(FILE)" in caught.value.fix
