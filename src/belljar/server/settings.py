"""What an operator sets: environment ``BELLJAR_*``, then ``config.toml`` in the state directory, then the defaults here."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from belljar.base.units import parse_duration, parse_size
from belljar.model.errors import InvalidArgument, PermissionDenied

__all__ = ("CONFIG_FILE", "Settings", "read_settings")

CONFIG_FILE = "config.toml"
_Seconds = Annotated[float, BeforeValidator(parse_duration)]


def _size(value: Any) -> int:
    # From the environment everything is text.
    return parse_size(int(value) if isinstance(value, str) and value.isdigit() else value)


_Bytes = Annotated[int, BeforeValidator(_size)]


class Settings(BaseSettings):
    """Sizes and durations as in the API. The names are those of the environment, in lower case and without ``BELLJAR_``."""

    model_config = SettingsConfigDict(env_prefix="BELLJAR_", extra="forbid", env_ignore_empty=True)

    engine: Literal["gvisor", "fake"] = "gvisor"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8585
    database: SecretStr | None = None
    """Where the store is: ``postgresql://USER:PASSWORD@HOST:PORT/NAME``; none given: a SQLite file in the state directory."""
    idle_exit: _Seconds = 60.0
    """An embedded server leaves after so long without a connection and a sandbox."""
    disk_reserve: _Bytes = 1 << 30
    memory_reserve: _Bytes = 512 << 20
    max_snapshots: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    """Of each workspace."""
    audit_days: Annotated[int, Field(ge=0, le=36_500)] = 90
    """So long an entry of the audit log is kept; 0: forever."""
    logs_days: Annotated[int, Field(ge=0, le=3650)] = 7
    """So long what processes wrote last is kept after the end of their sandbox; 0: not at all."""
    logs_size: _Bytes = 256 << 20
    """Of that in all."""
    usage_days: Annotated[int, Field(ge=0, le=36_500)] = 400
    """So long the hours of what was used are kept; 0: forever."""
    events_days: Annotated[int, Field(ge=0, le=36_500)] = 30
    """So long an event is kept; 0: forever."""
    events_most: Annotated[int, Field(ge=0, le=1_000_000_000)] = 100_000
    """Events that are kept of each workspace; 0: any number."""
    usage_every: Annotated[_Seconds, Field(ge=1.0, le=3600.0)] = 30.0
    """Between two readings of what a sandbox uses, for its usage and the history of its stats."""
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Of each listener."""
    pool: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Sandboxes that wait to be claimed; none given: as many as the memory suggests, and 0 switches it off."""
    otel_endpoint: str | None = None
    """Where traces go: a collector for OTLP over HTTP such as ``http://localhost:4318``; none given: as
    OTEL_EXPORTER_OTLP_ENDPOINT says, or nowhere."""
    store_url: str | None = None
    """Where snapshots go that nobody opened for `cool_after`: an object store such as ``s3://bucket/path``; none given: a folder
    in the state directory."""
    store_key: Annotated[SecretStr | None, Field(description="32 bytes as base64 or hex")] = None
    store_key_file: Path | None = None
    """Encrypts snapshots at rest: one key a line, the first for what is new."""
    cool_after: _Seconds = 6 * 3600.0

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings  # what the file says is given as if by a caller


def read_settings(home: Path) -> Settings:
    """Raises PermissionDenied, or InvalidArgument that names the setting and where it came from."""
    file = home / CONFIG_FILE
    try:
        said = tomllib.loads(file.read_text())
    except FileNotFoundError:
        said = {}
    except PermissionError as error:
        raise PermissionDenied(f"{home} belongs to another user", hint="run: sudo belljar serve") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{file} cannot be read: {error}") from error
    try:
        return Settings(**said)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InvalidArgument(f"in {file} or BELLJAR_*: {problems}") from error
