"""What every service lets its operator set. Each service extends this with one class of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

Settings = TypeVar("Settings", bound=BaseSettings)

# Secrets and whole files are no larger.
MAX_VALUE_BYTES = 1024 * 1024


class FromFiles(PydanticBaseSettingsSource):
    """Values in files: `<NAME>_FILE` holds the path of a file with the value of `<NAME>`, as secrets are mounted.

    A setting whose own name ends so, such as `api_key_file`, is a path like any other, and stays one.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The text of the file, without the newline at its end.

        Raises:
            SettingsError: the file cannot be read, or the value is also given directly.
        """
        name = variable_of(self.settings_cls, field_name)
        given = os.environ.get(f"{name}_FILE")
        if not given or f"{field_name}_file" in self.settings_cls.model_fields:
            return None, field_name, False
        if os.environ.get(name):
            raise SettingsError(f"{name} and {name}_FILE are both set; leave one of them out")
        try:
            with Path(given).open("rb") as file:
                text = file.read(MAX_VALUE_BYTES).decode().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{name}_FILE is {given}, which cannot be read: {error}") from None
        return text, field_name, self.field_is_complex(field)

    def __call__(self) -> dict[str, Any]:
        """The values of all fields that are in files."""
        found = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, is_complex = self.get_field_value(field, name)
            if value is not None:
                found[name] = self.prepare_field_value(name, field, value, is_complex)
        return found


class ServiceSettings(BaseSettings):
    """Read from the environment; the prefix is the service's, such as `AGENTFLUX_GATEWAY_`. An unknown value is an error."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, frozen=True, use_attribute_docstrings=True)

    # Beginnings of variables that are not read here but by what the service starts.
    passed_on: ClassVar[tuple[str, ...]] = ()

    host: str = "127.0.0.1"
    """Address to listen on. Loopback by default: whoever wants to be reached says so."""

    port: int = Field(default=0, ge=0, le=65535)
    """Port to listen on; 0 lets the system choose."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe records that are written."""

    otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector (OTLP over HTTP) that receives traces; None keeps spans in the process."""

    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Largest request body in bytes; a larger one is refused with 413."""

    body_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds within which a client has to send its request body."""

    drain_timeout_s: float = Field(default=30.0, ge=0)
    """Seconds that requests in flight may take after SIGTERM before they are cut."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then files that the environment names."""
        return init_settings, env_settings, FromFiles(settings_cls)


def variable_of(settings: type[BaseSettings], field: str) -> str:
    """The environment variable of a field."""
    alias = settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else f"{settings.model_config.get('env_prefix', '')}{field}".upper()


def unknown_variables(settings: type[BaseSettings], environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each variable that has the prefix of `settings` and sets nothing."""
    prefix = str(settings.model_config.get("env_prefix", ""))
    known = set(_variables(settings))
    passed_on = tuple(getattr(settings, "passed_on", ()))
    for name in sorted(environment):
        if name.upper().startswith(prefix) and name.upper() not in known and not name.upper().startswith(passed_on or ("=",)):
            close = get_close_matches(name.upper(), sorted(known), n=1)
            yield f"{name} is no setting" + (f"; did you mean {close[0]}?" if close else "")


def _variables(settings: type[BaseSettings]) -> Iterator[str]:
    """All that can be set: fields, files of fields, and fields of fields."""
    for field, info in settings.model_fields.items():
        name = variable_of(settings, field)
        yield from (name, f"{name}_FILE")
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from (f"{name}__{part}".upper() for part in info.annotation.model_fields)


def problems_of(settings: type[BaseSettings], environment: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with the settings as the environment has them, one sentence each."""
    problems = list(unknown_variables(settings, os.environ if environment is None else environment))
    try:
        settings()
    except SettingsError as error:
        problems.append(str(error))
    except ValidationError as error:
        for each in error.errors(include_url=False):
            name = variable_of(settings, str(each["loc"][0])) if each["loc"] and each["loc"][0] in settings.model_fields else ""
            name = "__".join([name or ".".join(map(str, each["loc"])), *(str(part).upper() for part in each["loc"][1:])])
            # A setting that may hold a password says so by not being quoted anywhere.
            hidden = settings.model_config.get("hide_input_in_errors") or each["type"] == "missing"
            problems.append(f"{name}: {each['msg']}" + ("" if hidden else f" (it is {each['input']!r:.200})"))
    return problems


def load(settings: type[Settings]) -> Settings:
    """The settings from the environment.

    Raises:
        SystemExit: with everything that is wrong, a line each; the status is 1.
    """
    if problems := problems_of(settings):
        raise SystemExit("\n".join([f"{settings.__name__} cannot be used:", *(f"  {problem}" for problem in problems)]))
    return settings()
