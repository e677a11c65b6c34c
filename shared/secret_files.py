"""Settings from the files of a folder such as ``/run/secrets``; a file that cannot be used is an error, never a guess.

Half a password is sent to Enphase as a wrong one, and each of those counts toward a lockout. So a file must hold UTF-8
text. A byte order mark is removed (Windows Notepad writes one), and so are blanks and line ends around the text.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic_settings import NestedSecretsSettingsSource, SettingsError

MAX_BYTES = 65_536
CONTROL_CHARACTER = re.compile(r"[^\S\r\n\t ]|[\x00-\x08\x0e-\x1f\x7f]")

JSON_BEGINNINGS = ("[", "{")
"""ENVOYS and other lists may have several lines."""


class SecretFiles(NestedSecretsSettingsSource):
    """Reads a folder that holds one file for each setting, named as its variable in lower case."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {
            file.name: read_secret(file)
            for folder in self.secrets_paths
            if folder.is_dir()
            for file in sorted(folder.iterdir())
            if self._is_setting(file.name)
        }

    def _is_setting(self, name: str) -> bool:
        """Return whether a file is for this service: a field, or anything that begins like a section's fields."""
        first, *rest = name.split("_", 1)
        fields = self.settings_cls.model_fields
        return not name.startswith(".") and "." not in name and (name in fields or (bool(rest) and first in fields))


def read_secret(file: Path) -> str:
    """Return the text of a secret file.

    Raises:
        SettingsError: it cannot be read, or its content cannot be a secret.
    """

    def invalid(what: str) -> SettingsError:
        return SettingsError(f"{file.name.upper()}: the file {file} {what}")

    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise invalid(f"cannot be read ({error.strerror}); correct it, or remove it") from None
    if len(content) > MAX_BYTES:
        raise invalid(f"is larger than {MAX_BYTES} bytes; write only the setting into it")
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise invalid("is not UTF-8 text; save it as UTF-8") from None
    if not text:
        raise invalid("is empty; write the setting into it, or remove it")
    if CONTROL_CHARACTER.search(text):
        raise invalid("contains control characters; save it as UTF-8 text")
    if "\n" in text and not text.startswith(JSON_BEGINNINGS):
        raise invalid("has several lines; write only the setting into it")
    return text
