"""How a trainer's columns lie: padded with a mask, packed behind one another, or as lists of arrays."""

from __future__ import annotations

import warnings
from typing import Any, Callable, Mapping, NamedTuple

import numpy as np

from objective_lake import _core

#: Columns of responses; all others are of tokens.
RESPONSES = ("desirable", "group", "reward", "weight")
#: Every column that an objective may read.
KNOWN = frozenset(_core.columns())
#: What says where responses begin and end, beside the columns.
LAYOUT = ("mask", "lengths", "cumulative_lengths")
#: What a tuple stands for.
TUPLE = ("log_prob", "mask", "reference_log_prob")


class Kit(NamedTuple):
    """The functions of an array library that laying out needs."""

    array: Callable[[Any], Any]
    concatenate: Callable[[list], Any]
    warn: Callable[[str], None]


class Side(NamedTuple):
    """The arrays of one side by their names, those of lists behind one another."""

    name: str
    arrays: dict[str, Any]
    listed: bool

    @property
    def prefix(self) -> str:
        """The side in messages."""
        return f"{self.name}." if self.name else ""


def arrange(objective, given: Mapping[str, Any], kit: Kit) -> list[Side]:
    """The sides of an objective's data, in its order."""
    rest = {name: value for name, value in given.items() if value is not None}
    sides = []
    for place, name in enumerate(objective.sides):
        if not name:
            sides.append(None)
            continue
        if name not in rest:
            raise ValueError(f"{name}: missing; the objective learns from {objective.data}")
        sides.append(_side(objective, place, name, rest.pop(name), kit))
    if None in sides:
        sides[0] = _side(objective, 0, "", rest, kit)
    elif rest:
        name, names = next(iter(rest)), ", ".join(objective.sides)
        raise ValueError(f"{name}: not used by an objective over {objective.data}; it reads {names}")
    return sides


def _side(objective, place: int, name: str, given: Any, kit: Kit) -> Side:
    prefix = f"{name}." if name else ""
    if isinstance(given, tuple):
        if len(given) > len(TUPLE):
            raise ValueError(f"{name}: expected a tuple ({', '.join(TUPLE)}), got {len(given)} entries")
        given = dict(zip(TUPLE, given))
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{name}: expected columns by name or a tuple ({', '.join(TUPLE)}), got {type(given).__name__}"
        )
    given = {("returns" if own == "return" else own): value for own, value in given.items() if value is not None}
    allowed = objective.columns if place == 0 else objective.columns_of_tokens
    for own in [own for own in given if own not in allowed and own not in LAYOUT]:
        message = f"{prefix}{own}: not used by this objective; it reads {', '.join(allowed)}"
        if own not in KNOWN or (place > 0 and own in RESPONSES):
            raise ValueError(message)
        kit.warn(message)
        del given[own]
    for own in allowed:
        if own not in given and own != "weight":
            raise ValueError(f"{prefix}{own}: missing")

    measure = objective.statistics[0]
    listed = _is_list_of_arrays(given[measure])
    arrays = {}
    if listed:
        for own in LAYOUT[1:]:
            if own in given:
                raise ValueError(f"{prefix}{own}: not used where {measure} is a list of arrays")
        parts = [kit.array(part) for part in given[measure]]
        lengths = [_one_dimension(f"{prefix}{measure}", part) for part in parts]
        arrays["lengths"] = np.asarray(lengths, dtype=np.int64)
    for own, value in given.items():
        if own in RESPONSES or own in LAYOUT[1:]:
            arrays[own] = kit.array(value)
        elif not listed:
            arrays[own] = kit.array(value)
        elif _is_list_of_arrays(value):
            parts = [kit.array(part) for part in value]
            own_lengths = [_one_dimension(f"{prefix}{own}", part) for part in parts]
            if own_lengths != lengths and not (own == "advantage" and own_lengths == [1] * len(lengths)):
                raise ValueError(f"{prefix}{own}: expected the lengths {lengths} of {measure}, got {own_lengths}")
            arrays[own] = kit.concatenate(parts)
        elif own == "advantage":
            arrays[own] = kit.array(value)
        else:
            raise ValueError(f"{prefix}{own}: expected a list of arrays as {measure}")
    if not listed:
        _check_shapes(prefix, measure, arrays)
    return Side(name, arrays, listed)


def _is_list_of_arrays(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and (
        isinstance(value[0], (list, tuple)) or getattr(value[0], "ndim", 0) > 0
    )


def _one_dimension(name: str, part: Any) -> int:
    if part.ndim != 1:
        raise ValueError(f"{name}: expected arrays of one dimension, got {part.ndim}")
    return part.shape[0]


def _check_shapes(prefix: str, measure: str, arrays: Mapping[str, Any]) -> None:
    shape = tuple(arrays[measure].shape)
    packed = "lengths" in arrays or "cumulative_lengths" in arrays
    if "lengths" in arrays and "cumulative_lengths" in arrays:
        raise ValueError(f"{prefix}lengths: not used where cumulative_lengths is given")
    if len(shape) == 1 and not packed:
        raise ValueError(f"{prefix}{measure}: one dimension needs lengths or cumulative_lengths, which are missing")
    if len(shape) == 0 or (len(shape) != 2 and not packed):
        raise ValueError(f"{prefix}{measure}: expected the dimensions [batch, time], got {len(shape)}")
    for name, array in arrays.items():
        own = tuple(array.shape)
        if name in RESPONSES or name in LAYOUT[1:] or own == shape:
            continue
        # An advantage may be one number a response; the objective checks how many there are.
        if name == "advantage" and (len(own) == 1 or own[1:] == (1,)):
            continue
        if packed and len(own) == 1 and len(shape) == 1:
            continue  # the objective says how many numbers are missing
        raise ValueError(f"{prefix}{name}: expected the shape {shape} of {measure}, got {own}")


def flat(side: Side, arrays: Mapping[str, np.ndarray], measure: str) -> tuple:
    """The columns of a side, the bounds of its responses and its mask, as the native half takes them."""
    columns, mask = {}, None
    prefix = side.prefix
    for name, array in arrays.items():
        if name == "mask":
            mask = _mask(prefix, _row(array))
        elif name == "desirable":
            columns[name] = _row(array) != 0
        elif name == "group":
            columns[name] = _whole(f"{prefix}group", array)
        elif name not in LAYOUT:
            columns[name] = _numbers(array)
    if "lengths" in arrays:
        lengths = _whole(f"{prefix}lengths", arrays["lengths"])
        if lengths.size and lengths.min() < 0:
            raise ValueError(f"{prefix}lengths: expected numbers from 0, got {lengths.min()}")
        bounds = np.zeros(lengths.size + 1, dtype=np.int64)
        np.cumsum(lengths, out=bounds[1:])
    elif "cumulative_lengths" in arrays:
        bounds = _whole(f"{prefix}cumulative_lengths", arrays["cumulative_lengths"])
    else:
        rows, width = arrays[measure].shape
        bounds = np.arange(rows + 1, dtype=np.int64) * width
    return columns, bounds, mask


def _numbers(array: np.ndarray) -> np.ndarray:
    dtype = array.dtype
    if dtype != np.float32 and dtype != np.float64:
        array = array.astype(np.float32 if dtype == np.float16 else np.float64)
    return _row(array)


def _row(array: np.ndarray) -> np.ndarray:
    return (array if array.flags.c_contiguous else np.ascontiguousarray(array)).reshape(-1)


def _whole(name: str, array: np.ndarray) -> np.ndarray:
    whole = _row(array).astype(np.int64)
    if array.dtype.kind == "f" and not np.array_equal(whole, array.reshape(-1)):
        raise ValueError(f"{name}: expected whole numbers")
    return whole


def _mask(prefix: str, mask: np.ndarray) -> np.ndarray:
    if mask.dtype == np.bool_:
        return mask
    kept = mask != 0
    if not np.array_equal(kept, mask):
        wrong = mask[kept != mask][0]
        raise ValueError(f"{prefix}mask: expected 0 or 1, got {wrong}")
    return kept


def shaped(side: Side, arrays: Mapping[str, Any], cotangents: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Cotangents in the shapes of their columns; of lists, as lists."""
    if side.listed:
        ends = np.cumsum(arrays["lengths"])[:-1]
        return {name: np.split(values, ends) for name, values in cotangents.items()}
    return {name: values.reshape(arrays[name].shape) for name, values in cotangents.items()}


def numpy_array(value: Any) -> np.ndarray:
    """A value as an array; what is missing in a list of numbers is not a number."""
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype == object else array


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)


NUMPY = Kit(numpy_array, np.concatenate, _warn)
