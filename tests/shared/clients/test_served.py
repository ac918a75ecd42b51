"""The model folder on which a selector or argument service starts: one sentence says what is wrong, and names the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.arguments import app as arguments
from services.selector import app as selector
from tests.stack import NOBODY

FILES = {"tokenizer_config.json": "{}", "chat_template.jinja": "x", "tokenizer.json": "{}"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tokenizer_config.json": None}, "No such file or directory: '.*tokenizer_config.json'"),
        ({"tokenizer_config.json": "{"}, "JSONDecodeError: "),
        ({"chat_template.jinja": None}, "KeyError: 'chat_template'"),
        ({"tokenizer.json": "{}"}, "Exception: "),
        ({"tokenizer.json": None}, "Exception: No such file or directory"),
    ],
)
@pytest.mark.parametrize("service", [selector, arguments], ids=["selector", "arguments"])
def test_a_model_folder_that_cannot_be_used_ends_the_start_with_one_sentence(
    service: object, wrong: dict[str, str | None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {**FILES, **wrong}.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    name = "SELECTOR" if service is selector else "ARGUMENTS"
    for setting, value in {"MODEL_DIR": str(tmp_path), "ENGINE_URL": NOBODY, "BASE_MODEL": "base"}.items():
        monkeypatch.setenv(f"AGENTFLUX_{name}_{setting}", value)
    expected = rf"^{name.lower()}: the model folder {tmp_path} cannot be used: .*{said}.*AGENTFLUX_{name}_MODEL_DIR$"
    with pytest.raises(SystemExit, match=expected):
        service.main()  # type: ignore[attr-defined]
