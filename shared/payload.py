"""What every message of the MQTT contract carries: one flat JSON object."""

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json, to_json


class InvalidPayload(ValueError):
    """A payload is not what the contract says; the message says which field and why, never its content."""


class Payload(BaseModel):
    """A flat JSON object; numbers are numbers, what is unknown is left out, NaN and Infinity are refused."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    identity: ClassVar[frozenset[str]] = frozenset()
    """The fields that the topic tells and that the payload therefore leaves out."""

    def to_json(self) -> bytes:
        """Return the payload as UTF-8 JSON."""
        return self.model_dump_json(exclude_none=True, exclude=set(self.identity)).encode()

    @classmethod
    def from_json(cls, payload: bytes, identity: Mapping[str, str] | None = None) -> Self:
        """Return the object that :meth:`to_json` wrote; keys it does not know are passed over.

        Args:
            payload: UTF-8 JSON.
            identity: what the topic told, for the fields named in :attr:`identity`.

        Raises:
            InvalidPayload: it is no JSON object, a field is missing or has the wrong type, a number is not finite.
        """
        try:
            return cls.model_validate_json(_with_identity(payload, identity) if identity else payload)
        except ValidationError as error:
            raise InvalidPayload(_first_fault(error)) from error


def _with_identity(payload: bytes, identity: Mapping[str, str]) -> bytes:
    try:
        fields = from_json(payload)
    except ValueError as error:
        raise InvalidPayload(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidPayload("not a JSON object")
    return to_json(fields | dict(identity), inf_nan_mode="constants")


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(str(part) for part in fault["loc"]), fault["msg"])))
