"""Settings: where a value comes from, what a wrong one gets, and that docs/settings.md lists every one."""

from __future__ import annotations

import base64
import json
import os
import re
import traceback
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from faceward.errors import SettingsError
from faceward.settings import Settings, described, load_settings

KEY = base64.b64encode(bytes(range(32))).decode()
DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no ./config.json of the machine that runs the tests."""
    for name in os.environ:
        if name.startswith("FACEWARD_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def variable_of(name: str) -> str:
    return "FACEWARD_" + name.upper().replace(".", "__")


def document() -> str:
    """docs/settings.md as it must be: its own words, then a table for each section."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("\n## ")[0]
    section = None
    for name, default, description in described():
        if section != (section := name.rpartition(".")[0]):
            kind = Settings.model_fields[section].annotation if section else None
            heading = f"{section}\n\n{kind.__doc__}" if kind else "Directories"
            text += (
                f"\n## {heading}\n\n| setting | environment variable | default | meaning |\n| --- | --- | --- | --- |\n"
            )
        text += f"| `{name}` | `{variable_of(name)}` | `{default}` | {description} |\n"
    return text


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_document_lists_every_setting_as_it_is() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), (
        "to write its tables anew: python tests/unit/test_settings.py"
    )


@pytest.mark.parametrize("name", [name for name, _, _ in described()])
def test_every_variable_of_the_document_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> object:
        value: object = load_settings()
        for part in name.split("."):
            value = getattr(value, part)
        return value

    wanted = another_value(name, read())
    shown = plain(wanted)
    monkeypatch.setenv(variable_of(name), json.dumps(shown) if isinstance(shown, list | dict) else str(shown))
    assert read() == wanted


def plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def another_value(name: str, standing: object) -> object:
    """A value that the setting may have and has not."""
    if name in ("home", "data", "model.pack") or name.endswith("url"):
        return {"home": Path("/h"), "data": Path("/d"), "model.pack": "mine"}.get(name, "postgresql://h/d")
    section, field = name.split(".")
    kind = Settings.model_fields[section].annotation
    assert isinstance(kind, type)
    assert issubclass(kind, BaseModel)
    annotation = kind.model_fields[field].annotation
    if isinstance(standing, bool):
        return not standing
    if isinstance(standing, int | float):
        return standing + 1 if standing >= 1 else 0.5
    if isinstance(standing, list):
        return ["other"]
    if isinstance(standing, dict):
        return {"other": SecretStr(KEY)}
    kinds = [each for each in get_args(annotation) if each is not type(None)] or [annotation]
    if kinds[0] in (str, Path, SecretStr):
        return kinds[0]("other")
    return {int: 7, float: 0.5}.get(kinds[-1], kinds[-1])  # the last of the texts of a Literal


def test_every_setting_is_described() -> None:
    for name, default, description in described():
        json.loads(default)
        assert re.search(r"\w.*\.$", description), f"{name} has no description that is a sentence"


def test_without_anything_the_embedded_server_is_used() -> None:
    assert load_settings().database.url == "embedded"


def test_the_contracts_config_is_read_from_the_working_directory(tmp_path: Path) -> None:
    database = {
        "type": "postgresql",
        "url": "postgresql://u:p@h/face_recognition",
        "pool_size": 20,
        "max_overflow": 40,
        "pool_timeout": 30,
        "pool_recycle": 3600,
    }
    write(tmp_path / "config.json", {"database": database})
    assert load_settings().database.model_dump(include=set(database)) == database


def test_a_named_file_outranks_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "config.json", {"database": {"pool_size": 1}})
    first = write(tmp_path / "first.json", {"database": {"pool_size": 2}})
    second = write(tmp_path / "second.json", {"database": {"pool_size": 3}})
    monkeypatch.setenv("FACEWARD_CONFIG", str(first))
    assert load_settings().database.pool_size == 2
    assert load_settings(second).database.pool_size == 3


def test_a_variable_outranks_the_file_and_leaves_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "config.json", {"database": {"pool_size": 7, "max_overflow": 8}})
    monkeypatch.setenv("FACEWARD_DATABASE__POOL_SIZE", "9")
    settings = load_settings()
    assert (settings.database.pool_size, settings.database.max_overflow) == (9, 8)


def test_an_override_leaves_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "config.json", {"database": {"pool_size": 7, "max_overflow": 8}})
    settings = load_settings(database={"pool_size": 9})
    assert (settings.database.pool_size, settings.database.max_overflow) == (9, 8)


def test_home_holds_the_embedded_data_where_it_is_set_and_data_outranks_it(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    assert load_settings(home=tmp_path).database_directory == tmp_path / "postgres-18"
    assert load_settings(home=tmp_path, data=elsewhere).database_directory == elsewhere
    assert load_settings().home not in load_settings().database_directory.parents


def test_sections_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "config.json", {"logging": {"level": "INFO"}})
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "JSON object"),
        ({"database": {"pool_sice": 3}}, "database.pool_sice"),
        ({"database": {"pool_size": 0}}, "database.pool_size"),
        ({"database": {"type": "mysql"}}, "database.type"),
        ({"database": "postgresql://h/d"}, "database"),
        ({"search": {"strategy": "fast"}}, "search.strategy"),
        ({"search": {"threshold": 1.5}}, "search.threshold"),
        ({"model": {"threads": "two"}}, "model.threads"),
        ({"images": {"store": "thumbnail"}}, "images.store"),
        ({"images": {"keys": {"a": "c2VjcmV0"}}}, "images.keys: Value error, the key 'a' must be 32 random bytes"),
        ({"images": {"keys": {"a": "secret!"}}}, "images.keys"),
        ({"images": {"keys": {"": KEY}}}, "images.keys: Value error, a key's id must be"),
    ],
)
def test_a_wrong_file_is_refused_by_the_settings_name(tmp_path: Path, content: object, said: str) -> None:
    path = write(tmp_path / "wrong.json", content)
    with pytest.raises(SettingsError, match=re.escape(said)):
        load_settings(path)


def test_an_argument_outranks_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEWARD_MODEL__THREADS", "3")
    assert load_settings().model.threads == 3
    assert load_settings(model={"threads": 5}).model.threads == 5
    with pytest.raises(SettingsError, match=r"no setting 'modle'"):
        load_settings(modle={"threads": 5})


def test_a_variable_that_is_no_section_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEWARD_DATABASE", "sEcReT")
    with pytest.raises(SettingsError, match="FACEWARD_DATABASE__URL") as refused:
        load_settings()
    assert "sEcReT" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value", "where"),
    [
        ("FACEWARD_IMAGES__KEYS", "{2026-03: sEcReT}", "character 2"),
        ("faceward_api__cors_origins", "sEcReT", "character 1"),
        ("FACEWARD_DATABASE", "{'url': 'sEcReT'}", "character 2"),
    ],
)
def test_a_variable_that_must_be_json_is_named_with_where_it_is_none(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, where: str
) -> None:
    monkeypatch.setenv("FACEWARD_MODEL__THREADS", "3")
    monkeypatch.setenv(variable, value)
    with pytest.raises(
        SettingsError, match=rf"variable {variable.upper()} is not JSON, at {where}: Expecting"
    ) as refused:
        load_settings()
    assert "sEcReT" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("FACEWARD_SEARCH_THRESHOLD", "FACEWARD_SEARCH__THRESHOLD"),
        ("FACEWARD_SERCH__THRESHOLD", "FACEWARD_SEARCH__THRESHOLD"),
        ("FACEWARD_IMAGES_KEY", "FACEWARD_IMAGES__KEY"),
        ("faceward_database_url", "FACEWARD_DATABASE__URL"),
        ("FACEWARD_HOMES", "FACEWARD_HOME"),
    ],
)
def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, meant: str) -> None:
    monkeypatch.setenv(variable, "sEcReT")
    with pytest.raises(
        SettingsError, match=f"{variable.upper()}, which faceward does not know. Is {meant} meant"
    ) as refused:
        load_settings()
    assert "sEcReT" not in str(refused.value)


@pytest.mark.parametrize(
    "variable", ["FACEWARD_URL", "FACEWARD_KEY", "FACEWARD_API_KEY", "FACEWARD_VERSION", "FACEWARD_IMAGE"]
)
def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "x")
    assert load_settings() == Settings()


@pytest.mark.parametrize("key", ["S3CRET", base64.b64encode(b"S3CRET" * 6).decode()])
def test_a_key_of_photos_that_is_none_is_shown_in_no_traceback(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("FACEWARD_IMAGES__KEYS", json.dumps({"2026": key}))
    with pytest.raises(SettingsError, match="the key '2026' must be 32 random bytes") as caught:
        load_settings()
    assert key not in "".join(traceback.format_exception(caught.value))


def test_a_key_of_photos_may_end_in_a_newline_as_its_file_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEWARD_IMAGES__KEYS", json.dumps({"2026": KEY + "\n"}))
    assert load_settings().images.key_bytes == {"2026": bytes(range(32))}


def test_a_misspelt_section_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "config.json", {"serch": {"threshold": 0.5}})
    with pytest.raises(SettingsError, match=r"config\.json has the section serch, .* Is search meant"):
        load_settings()


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.json can't be read: No such file"):
        load_settings(tmp_path / "nowhere.json")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not JSON"):
        load_settings(path)


@given(st.dictionaries(st.sampled_from(["url", "pool_size", "pool_timeout", "x"]), st.text(min_size=8)))
def test_no_message_shows_a_value(tmp_path_factory: pytest.TempPathFactory, database: dict[str, str]) -> None:
    path = write(
        tmp_path_factory.getbasetemp() / "config-of-secrets.json", {"database": {**database, "pool_size": "sEcReT"}}
    )
    with pytest.raises(SettingsError) as refused:
        load_settings(path)
    assert "sEcReT" not in str(refused.value)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
