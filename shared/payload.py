"""The base of every JSON message of the MQTT contract: one flat object."""

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class InvalidPayload(ValueError):
    """A payload breaks the contract; the message names the field and the reason, never the content."""


class Payload(BaseModel):
    """A flat JSON object: numbers are numbers, unknown values are left out, NaN and Infinity are rejected."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    identity: ClassVar[frozenset[str]] = frozenset()
    """The fields that are part of the topic and therefore left out of the payload."""

    def to_json(self) -> bytes:
        """Return the payload as UTF-8 JSON."""
        return self.model_dump_json(exclude_none=True, exclude=set(self.identity)).encode()

    @classmethod
    def from_json(cls, payload: bytes, identity: Mapping[str, str] | None = None) -> Self:
        """Return the object that :meth:`to_json` wrote; unknown keys are ignored.

        Args:
            payload: UTF-8 JSON.
            identity: the fields of :attr:`identity`, from the topic.

        Raises:
            InvalidPayload: it is not a JSON object, a field is missing or of the wrong type, a number is not finite.
        """
        try:
            return cls.model_validate_json(payload, context=identity)
        except ValidationError as error:
            raise InvalidPayload(_first_fault(error)) from error


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(str(part) for part in fault["loc"]), fault["msg"])))
