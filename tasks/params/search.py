"""The section `search` of params.yaml: what `make search` tries, which no stage depends on."""

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from tasks.harness.section import Section, Seed

Number = int | float
Choice = bool | int | float | str | list[Any] | None


class Range(Section):
    """What a key may be: a number from `low` to `high`, whole if both are, or one of `choices`."""

    low: Number | None = None
    high: Number | None = None
    log: bool = False
    choices: Annotated[list[Choice], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "Range":
        bounds = (self.low, self.high)
        if self.choices is not None:
            if bounds != (None, None) or self.log:
                raise ValueError("choices should come without low, high and log")
            if len({repr(choice) for choice in self.choices}) < len(self.choices):
                raise ValueError("choices should differ from each other")
        elif self.low is None or self.high is None:
            raise ValueError("should have low and high, or choices")
        elif self.low >= self.high:
            raise ValueError(f"low = {self.low} should be below high = {self.high}")
        elif self.log and self.low <= 0:
            raise ValueError(f"low = {self.low} should be above 0 where log is true")
        return self


class Search(Section):
    trials: int = Field(ge=1, le=10_000)
    parallel: int | None = Field(ge=1, le=1024)
    seed: Seed
    space: Annotated[dict[str, Range], Field(min_length=1)]

    @field_validator("space", mode="before")
    @classmethod
    def _has_known_keys(cls, space: object) -> object:
        """Refuse unknown keys of a range here, where the message can name its key with the dots in it."""
        for name, values in space.items() if isinstance(space, dict) else ():
            unknown = [key for key in values if key not in Range.model_fields] if isinstance(values, dict) else []
            if unknown:
                known = ", ".join(Range.model_fields)
                raise ValueError(f"{name} has the unknown key {unknown[0]}; known here: {known}")
        return space
