"""What all types that people write have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler

Text = Annotated[str, Field(max_length=100_000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


def _strict_numbers(schema: Any) -> Any:
    """The schema, whose numbers take neither `true` (which would be 1) nor text such as "1_0" (which would be 10)."""
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list | tuple) else ()
    for part in parts:
        _strict_numbers(part)
    if isinstance(schema, dict) and schema.get("type") in ("int", "float"):
        schema["strict"] = True
    return schema


# Base of all types that people write: an unknown field is an error, spaces around text are removed, and a number is nothing but a
# finite number: no truth value, and no text that looks like one.
class Written(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return _strict_numbers(handler(source))
