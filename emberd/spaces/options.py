"""What shapes a vector space besides files, precision and pooling: `max_tokens`, prompts and more.

The probe texts are short and get no prompt, so they cannot show these. They are therefore recorded
wherever a space is remembered, in `lock.json` and in the stamps of stores, and compared directly.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from emberd.registry.spec import InputType, ModelSpec
from emberd.state import known_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceOptions:
    """Limits and options of a space; None if an older emberd did not record them.

    Attributes:
        max_tokens: where texts are cut, in tokens, special tokens included.
        normalize: whether vectors are scaled to length 1.
        matryoshka_norm: whether a layer norm comes before vectors are cut to a smaller size.
        prompts: texts put in front of the input, by input type.
        include_prompt: False leaves the prompt's tokens out of the pooling.
        lower_case: texts are lower-cased for a tokenizer that would keep their case.
        normalizer: what replaces tokenizer.json's own `normalizer`, in its format; empty if nothing
            does.
    """

    max_tokens: int | None = None
    normalize: bool | None = None
    matryoshka_norm: bool | None = None
    prompts: Mapping[InputType, str] | None = None
    include_prompt: bool | None = None
    lower_case: bool | None = None
    normalizer: str | None = None

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        *,
        max_tokens: int,
        include_prompt: bool = True,
        lower_case: bool = False,
        normalizer: str = "",
    ) -> Self:
        """Return the options of a registry entry; the arguments are what its folder says."""
        return cls(
            max_tokens=max_tokens,
            normalize=spec.normalize,
            matryoshka_norm=spec.matryoshka_norm,
            prompts=dict(spec.prompts),
            include_prompt=include_prompt,
            lower_case=lower_case,
            normalizer=normalizer,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote; unknown keys are ignored.

        Raises:
            TypeError, AttributeError: it is not a mapping, or a value has the wrong type.
        """
        options = cls(**known_fields(cls, data))
        flags = (
            options.normalize,
            options.matryoshka_norm,
            options.include_prompt,
            options.lower_case,
        )
        prompts = options.prompts or {}
        texts: list[object] = [*prompts, *prompts.values(), options.normalizer or ""]
        limit = options.max_tokens
        if not (
            all(isinstance(flag, bool | None) for flag in flags)
            and all(isinstance(text, str) for text in texts)
            and (limit is None or (type(limit) is int and abs(limit) < 2**63))
        ):
            raise TypeError("an option has the wrong type")
        return options

    @property
    def given_prompts(self) -> dict[InputType, str] | None:
        """The prompts that are not empty; None if they were not recorded."""
        if self.prompts is None:
            return None
        return {kind: prompt for kind, prompt in self.prompts.items() if prompt}

    def differences(
        self, other: "SpaceOptions", whose: tuple[str, str] = ("before", "now")
    ) -> list[str]:
        """Say in words what makes `other` a different space; unrecorded values never do.

        Args:
            other: the options of the other space.
            whose: names for the two spaces, this one first.
        """

        def differ(what: str, one: object, two: object) -> Iterator[str]:
            if one is not None and two is not None and one != two:
                yield f"{what} {one} ({whose[0]}) and {two} ({whose[1]})"

        mine, theirs = self.given_prompts, other.given_prompts
        kinds = sorted({*(mine or {}), *(theirs or {})})
        return [
            *differ("texts are cut after", _tokens(self), _tokens(other)),
            *(
                said
                for kind in kinds
                for said in differ(
                    f"the {kind} prompt is", _prompt(mine, kind), _prompt(theirs, kind)
                )
            ),
            *(differ("prompts are", _pooled(self), _pooled(other)) if kinds else ()),
            *differ("vectors are", _length(self), _length(other)),
            *differ("smaller sizes are cut from", _cut_from(self), _cut_from(other)),
            *(
                [*differ("texts are", _case(self), _case(other))]
                or differ("texts are normalized by", _normalizer(self), _normalizer(other))
            ),
        ]


def _tokens(options: SpaceOptions) -> str | None:
    return None if options.max_tokens is None else f"{options.max_tokens} tokens"


def _prompt(prompts: Mapping[InputType, str] | None, kind: InputType) -> str | None:
    if prompts is None:
        return None
    return repr(prompts[kind]) if kind in prompts else "none"


def _pooled(options: SpaceOptions) -> str | None:
    return _said(options.include_prompt, "pooled with their texts", "left out of the pooling")


def _length(options: SpaceOptions) -> str | None:
    return _said(options.normalize, "scaled to length 1", "left as the model gives them")


def _cut_from(options: SpaceOptions) -> str | None:
    return _said(options.matryoshka_norm, "vectors after a layer norm", "vectors as they are")


def _case(options: SpaceOptions) -> str | None:
    return _said(options.lower_case, "lower-cased first", "left in their own case")


def _normalizer(options: SpaceOptions) -> str | None:
    return "tokenizer.json" if options.normalizer == "" else options.normalizer


def _said(flag: bool | None, yes: str, no: str) -> str | None:
    return None if flag is None else yes if flag else no
