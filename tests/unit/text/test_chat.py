"""The chat template against transformers, and templates that fail."""

from __future__ import annotations

import pytest

from motedge.errors import BundleError
from motedge.runtime.text.chat import ChatTemplate

MESSAGES = [{"role": "user", "content": 'say "<hi>" & leave'}]
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "thinking": "{%- set enable_thinking = enable_thinking if enable_thinking is defined else True %}"
    "{{- messages[0].content }}{{- '<think>' if enable_thinking else '<think></think>' }}",
    "tojson": "{{ messages | tojson }} {{ messages[0] | tojson(indent=2) }} {{ {'ü': 1} | tojson }}",
    "blocks": "  {% if tools %}\n tools {% endif %}\n{% for m in messages %}\n  {{ m.content | trim }}\n"
    "{% if loop.first %}{% continue %}{% endif %}\n{% endfor %}\n{{ eos_token }}{{ missing }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_as_transformers_renders(name: str, add_generation_prompt: bool) -> None:
    oracle = pytest.importorskip("transformers.utils.chat_template_utils")
    special = {"eos_token": "<|im_end|>"}
    expected, _ = oracle.render_jinja_template(
        conversations=[MESSAGES],
        chat_template=TEMPLATES[name],
        add_generation_prompt=add_generation_prompt,
        **special,
    )
    template = ChatTemplate(TEMPLATES[name], special)
    assert template.render(MESSAGES, add_generation_prompt=add_generation_prompt) == expected[0]


def test_strftime_now() -> None:
    assert ChatTemplate("{{ strftime_now('%Y') }}", {}).render(MESSAGES).startswith("20")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('only one turn') }}", "only one turn"),
        ("{{ messages.append(1) }}", "template failed"),
        ("{{ ''.__class__.__mro__ }}", "template failed"),
        ("{{ 1 / 0 }}", "template failed"),
        ("{{ absent.attribute }}", "template failed"),
    ],
)
def test_templates_that_fail(source: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        ChatTemplate(source, {}).render(MESSAGES)


def test_template_that_is_none() -> None:
    with pytest.raises(BundleError, match="not valid"):
        ChatTemplate("{% for %}", {})
