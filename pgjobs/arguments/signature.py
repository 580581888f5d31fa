"""A task's signature: binds arguments to parameter names, checks their types, and makes the call again from a row."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from pgjobs.arguments import codec, privacy
from pgjobs.arguments.annotations import Unevaluated, hints_of, warn_of_unevaluated
from pgjobs.arguments.cipher import SEALED, Cipher
from pgjobs.arguments.codec import Json
from pgjobs.arguments.privacy import POSITIONALS
from pgjobs.errors import ArgumentsError, EncodingError, ResultTypeError, TaskError
from pgjobs.wording import given


class Signature:
    """Binds arguments to parameter names and checks their types; compiled once a task.

    Args:
        cipher: seals arguments and results; None where they are stored open.
        private: parameters that no message may quote, beside those that are annotated so.
        given: parameters that are no arguments of a job, since a worker fills them.

    Attributes:
        names: of its parameters, in their order.
        dumps: how results become JSON text.
        private: the names in args that are private.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        cipher: Cipher | None = None,
        private: Collection[str] = (),
        given: Collection[str] = (),
    ) -> None:
        self._name = name
        self._function = function
        try:
            self._signature = inspect.signature(function)
        except (ValueError, TypeError) as error:  # such as a function that is built in
            raise TaskError(f"{function!r} cannot be a task ({error}); call it in a function of your own") from None
        parameters = [each for each in self._signature.parameters.values() if each.name not in given]
        self._signature = self._signature.replace(parameters=parameters)
        kinds = {parameter.kind for parameter in parameters}
        self._plain = kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
        by_name = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
        self._by_name_only = kinds <= by_name and cipher is None
        self.names = tuple(parameter.name for parameter in parameters)
        self._known = frozenset(self.names)
        self._required = frozenset(
            parameter.name
            for parameter in parameters
            if parameter.default is parameter.empty and parameter.kind not in _VARIADIC
        )
        hints = hints_of(function)
        self._model, self._converts = _model(hints, parameters)
        self._cipher = cipher
        self.dumps = codec.dumps if cipher is None else cipher.dumps
        self.private = privacy.private_names(function, hints, parameters, private)
        warn_of_unevaluated(function, hints, self.names)
        self._shown = privacy.shown_signature(self._signature, self.private)

    def encode(self, bound: dict[str, Json]) -> str:
        """Returns bound arguments as the JSON text that the row holds.

        Raises:
            EncodingError: they cannot be stored as JSON.
            ConfigurationError: they are to be encrypted, and there is no key.
        """
        try:
            return self.dumps(bound, what="arguments")
        except EncodingError as error:
            name = privacy.unstorable_name(error.path, self.private)
            if name is None:
                raise
            raise EncodingError(f"arguments cannot be stored as JSON: {name} is not JSON", f"$.{name}") from None

    def seal(self, text: str) -> str:
        """What a run has said or written as it is stored: sealed where the task encrypts.

        Raises:
            ConfigurationError: it does, and there is no key.
        """
        return text if self._cipher is None else self._cipher.seal(text)

    def opened(self, args: Json) -> dict[str, Json]:
        """Returns arguments as ``bind`` made them, from a row that may hold them sealed.

        Raises:
            ArgumentsError: they are no object, or sealed although the task does not encrypt: its results would then
                stand open in the table.
            DecryptionError, ConfigurationError: no key fits, or there is none.
        """
        if self._cipher is not None:
            self._cipher.check()
            args = self._cipher.loads(args)
        elif isinstance(args, dict) and SEALED in args:
            raise ArgumentsError(f"task {self._name!r}: they are encrypted; give the task encrypt=True here too")
        if not isinstance(args, dict) or isinstance(args, codec.Unreadable):
            raise ArgumentsError(f"task {self._name!r}: they are no JSON object that can be read")
        return cast("dict[str, Json]", args)

    def schema(self) -> dict[str, Json]:
        """The arguments as a JSON schema: an object, a property a parameter.

        Under OWN stands what JSON schemas have no word for: the names in the order of their positions, those that are
        private, and whether they are to be encrypted.
        """
        described: dict[str, Json] = (
            {} if self._model is None else msgspec.json.schema(self._model, schema_hook=_schema_of)
        )
        shared: dict[str, Json] = described.get("$defs", {})
        known: dict[str, Json] = shared.pop("Arguments", {}).get("properties", {})
        kinds = {parameter.kind for parameter in self._signature.parameters.values()}
        names = [name for name, p in self._signature.parameters.items() if p.kind not in _VARIADIC]
        return {
            "type": "object",
            "properties": {name: _typed(known.get(name, {}), shared) for name in names},
            "required": sorted(self._required),
            "additionalProperties": inspect.Parameter.VAR_KEYWORD in kinds,
            OWN: {
                "positional": self._by_position,
                "private": sorted(self.private),
                "encrypted": self._cipher is not None,
            },
        } | ({"$defs": shared} if shared else {})

    @property
    def _by_position(self) -> list[str]:
        """The names that positional arguments have, in their order; ``*`` for those that come behind these."""
        kinds = [(name, parameter.kind) for name, parameter in self._signature.parameters.items()]
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [name for name, kind in kinds if kind in plain]
        return [*names, *(POSITIONALS for _, kind in kinds if kind is inspect.Parameter.VAR_POSITIONAL)]

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Json]:
        """Returns the arguments as the row holds them.

        Raises:
            ArgumentsError: they do not fit the signature, or one has another type than its annotation says.
        """
        if self._plain and not kwargs and len(args) == len(self.names):
            bound = dict(zip(self.names, args, strict=True))
        else:
            bound = self.by_name(args, kwargs)
        if self._model is None:
            return bound
        try:
            if self._converts:
                return self._converted(bound)
            msgspec.convert(bound, self._model, dec_hook=_from_builtin)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise self._misfit(error) from None
        return bound

    def _converted(self, bound: dict[str, Any]) -> dict[str, Json]:
        """The arguments as JSON, where every key is a text; keys that are numbers are checked as they were given."""
        row = cast("dict[str, Json]", msgspec.to_builtins(bound, enc_hook=_to_builtin, str_keys=True))
        try:
            msgspec.convert(row, self._model, dec_hook=_from_builtin)
        except msgspec.ValidationError:
            msgspec.convert(msgspec.to_builtins(bound, enc_hook=_to_builtin), self._model, dec_hook=_from_builtin)
        return row

    @functools.cached_property
    def defaults(self) -> dict[str, Json]:
        """What arguments are where they are not given, as a row would hold them; without those that none could hold."""
        found: dict[str, Json] = {}
        for name, parameter in self._signature.parameters.items():
            if parameter.default is not parameter.empty:
                with contextlib.suppress(Exception):
                    value = msgspec.to_builtins(parameter.default, enc_hook=_to_builtin, str_keys=True)
                    codec.dumps(value)
                    found[name] = value
        return found

    def by_name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments by their names as they are.

        Raises:
            ArgumentsError: they do not fit the signature.
        """
        try:
            arguments = self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise ArgumentsError(f"task {self._name!r}: {error}; its signature is {self._shown}") from None
        bound: dict[str, Any] = {}
        for name, value in arguments.items():
            match self._signature.parameters[name].kind:
                case inspect.Parameter.VAR_POSITIONAL:
                    bound[POSITIONALS] = list(value)
                case inspect.Parameter.VAR_KEYWORD:
                    bound.update(value)
                case _:
                    bound[name] = value
        return bound

    def unbind(self, args: dict[str, Json]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the positional and keyword arguments of the call that a row stands for.

        Raises:
            ArgumentsError: they do not fit the signature (any more).
            DecryptionError, ConfigurationError: they are sealed, see ``opened``.
        """
        names = args.keys()
        if self._by_name_only and (names == self._known or (names <= self._known and names >= self._required)):
            return (), (self._convert(args) if self._converts else args)
        rest = dict(self.opened(args))
        positionals: Json = rest.pop(POSITIONALS, [])
        if not isinstance(positionals, list):
            raise ArgumentsError(f"task {self._name!r}: {POSITIONALS!r} holds no list of positional arguments")
        try:
            if self._converts:
                rest = self._convert(rest)
            several = bool(positionals)  # pyright: ignore[reportUnknownArgumentType] - a list of JSON
            by_position = [name for name in self.names if self._leads(name, several) and name in rest]
            leading = [rest.pop(name) for name in by_position]
            call = self._signature.bind(*leading, *positionals, **rest)
        except TypeError as error:
            raise ArgumentsError(f"task {self._name!r}: {error}; its signature is {self._shown}") from None
        return call.args, call.kwargs

    def _leads(self, name: str, has_positionals: bool) -> bool:
        kind = self._signature.parameters[name].kind
        return kind is inspect.Parameter.POSITIONAL_ONLY or (
            has_positionals and kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        )

    def rebind(self, args: dict[str, Json]) -> dict[str, Json]:
        """Returns arguments by their names, as a row holds them, checked as those of a call are.

        Raises:
            ArgumentsError, DecryptionError, ConfigurationError: see ``bind`` and ``unbind``.
        """
        return self.bind(*self.unbind(args))

    @functools.cached_property
    def _returns(self) -> Any:
        """The annotation of the result; Any where it says nothing that can be checked."""
        hint = hints_of(self._function).get("return", Any)
        if hint in (Any, object, type(None)) or isinstance(hint, Unevaluated) or not _supported(hint):
            return Any
        return hint

    def result_to_json(self, value: object) -> Json:
        """What a result is as JSON, where its annotation is a type that converts; else the value as it is."""
        if self._returns is Any or _is_json(self._returns):
            return value
        try:
            return msgspec.to_builtins(value, enc_hook=_to_builtin, str_keys=True)
        except TypeError:
            return value

    def result_from_json(self, value: Json) -> Any:
        """The result in the type of the annotation.

        Raises:
            ResultTypeError: it does not fit.
        """
        if self._returns is Any:
            return value
        try:
            return msgspec.convert(value, self._returns, dec_hook=_from_builtin, str_keys=True)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise ResultTypeError(
                f"the result of task {self._name!r} does not fit its annotation: {error}; see job.result"
            ) from None

    def _convert(self, args: dict[str, Json]) -> dict[str, Any]:
        assert self._model is not None  # noqa: S101 - set whenever a type converts
        try:
            typed = msgspec.convert(args, self._model, dec_hook=_from_builtin, str_keys=True)
        except (Exception, SystemExit) as error:  # a type of the application may raise anything where it is made
            raise self._misfit(error) from None
        return {name: getattr(typed, name, value) for name, value in args.items()}

    def _misfit(self, error: BaseException) -> ArgumentsError:
        said = str(error) if isinstance(error, msgspec.ValidationError | TypeError | ValueError) else given(error)
        text = privacy.misfit(said, self.private, all_private=self._cipher is not None)
        return ArgumentsError(f"task {self._name!r}: {text}")


OWN: Final = "x-pgjobs"
"""The key in a published schema under which stands what is pgjobs's own."""

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_JSON_NAMES: Final[dict[type, str]] = {str: "string", int: "integer"}
_JSON_TYPES: Final = (int, str, float, bool, type(None), list, dict, Any, object)


def _model(hints: Mapping[str, Any], parameters: list[inspect.Parameter]) -> tuple[type[msgspec.Struct] | None, bool]:
    """Makes a struct of the annotated parameters, and says whether any needs converting to and from JSON."""
    fields: list[tuple[str, Any, Any]] = []
    converts = False
    for parameter in parameters:
        hint = hints.get(parameter.name, Any)
        if parameter.kind in _VARIADIC or hint is Any or isinstance(hint, Unevaluated) or not _supported(hint):
            continue
        converts = converts or not _is_json(hint)
        fields.append((parameter.name, hint | None if parameter.default is None else hint, msgspec.UNSET))
    if not fields:
        return None, False
    optional: list[Any] = [(name, typing.Union[hint, msgspec.UnsetType], unset) for name, hint, unset in fields]  # noqa: UP007 - hints may be strings' results
    return msgspec.defstruct("Arguments", optional), converts


def _typed(schema: dict[str, Any], shared: dict[str, Any]) -> dict[str, Json]:
    """A schema that says its JSON type beside a reference or a list of values: ``pgjobs.misfit`` reads no more."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_typed(each, shared) for each in schema["anyOf"]]}
    target: dict[str, Any] = (
        shared.get(str(schema["$ref"]).removeprefix("#/$defs/"), {}) if "$ref" in schema else schema
    )
    values: list[object] = target.get("enum", [])
    kinds = {target["type"]} if "type" in target else {_JSON_NAMES.get(type(value)) for value in values}
    (kind,) = kinds if len(kinds) == 1 else (None,)
    return schema if kind is None else {**schema, "type": kind}


def _supported(hint: Any) -> bool:
    try:
        msgspec.json.schema(hint, schema_hook=_schema_of)
    except (TypeError, NotImplementedError):
        return False
    return True


def _schema_of(kind: type) -> dict[str, Any]:
    """The schema of a pydantic model; of other classes that msgspec does not know nothing can be said."""
    if not hasattr(kind, "model_json_schema"):
        raise NotImplementedError(kind)
    return {"type": "object"}


def _is_json(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _is_json(typing.get_args(hint)[0])
    if origin is typing.Literal:
        return True
    if origin is dict:
        key, value = typing.get_args(hint)
        return key is str and _is_json(value)
    if origin is None:
        return hint in _JSON_TYPES
    return (origin is list or _is_union(origin)) and all(_is_json(inner) for inner in typing.get_args(hint))


def _is_union(origin: Any) -> bool:
    return origin in (typing.Union, types.UnionType)


def _to_builtin(value: Any) -> Json:
    if hasattr(value, "model_dump"):  # a pydantic model
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON; convert it, or annotate the parameter with a type that is")


def _from_builtin(kind: type, value: Json) -> Any:
    if isinstance(value, kind):
        return value
    if hasattr(kind, "model_validate"):
        return cast("Any", kind).model_validate(value)
    raise TypeError(f"{kind.__name__} cannot be made from JSON")
