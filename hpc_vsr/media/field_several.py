"""Reads several variables of a simulation as the channels of one source; all of them lie on the same points."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc_vsr.media.field_part import join_variables
from hpc_vsr.media.field_stagger import check_same_points
from hpc_vsr.media.reading import Facts
from hpc_vsr.system.errors import InputError

if TYPE_CHECKING:
    from hpc_vsr.media.field_source import FieldSource

# keys of a description that each variable has for itself, and what stands for one that a variable lacks
OWN = {"variable": "", "units": "1", "long_name": "", "masked_by": [], "zeros": "", "offset": 0.0}


class FieldsSource:
    """Several variables over the same (time, y, x) in one or more files; see `hpc_vsr.media.source.Source`.

    Each is read as `FieldSource` reads it: with its own units, missing values and offset. A cell may be missing in one
    variable and not in another one.

    Attributes
    ----------
    fields : list of FieldSource
        The variables in the order of the channels.
    offsets : list of float
        What is subtracted from each variable; see `FieldSource`.

    Raises
    ------
    InputError
        If the variables lie on different points or in different groups, or two have one name.
    """

    dtype = "float32"

    def __init__(self, fields: Sequence[FieldSource]):
        self.fields, first = list(fields), fields[0]
        self.files, self.num_frames, self.height, self.width = first.files, first.num_frames, first.height, first.width
        self.channels = tuple(name for field in fields for name in field.channels)
        check_same_points(self.channels, [field.arrays for field in fields], self.files)
        self.block_bytes = sum(field.block_bytes for field in fields)
        self.offsets = [offset for field in fields for offset in field.offsets]
        self.facts = _join_facts(fields)
        self.description = _join_descriptions([field.description for field in fields])

    def read(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield the fields start..stop-1, each (C, H, W) float32 in the units of each variable, and the valid values.

        The mask is (C, H, W), or None if no variable lacks a value. Offsets are subtracted.
        """
        for parts in zip(*(field.read(start, stop) for field in self.fields), strict=True):
            values = np.concatenate([one for one, _ in parts])
            masks = [np.ones(values.shape[1:], bool) if valid is None else valid for _, valid in parts]
            yield values, np.stack(masks) if any(valid is not None for _, valid in parts) else None

    @property
    def output_dtypes(self) -> list[np.dtype]:
        """Types of float that hold an enlarged frame of each variable with what was subtracted from it."""
        return [dtype for field in self.fields for dtype in field.output_dtypes]

    @property
    def chosen(self) -> list[set[str]]:
        """See `FieldSource.chosen`."""
        return [names for field in self.fields for names in field.chosen]

    def open_datasets(self) -> list:
        """Open the files as xarray data sets with all variables; see `FieldSource.open_datasets`."""
        opened = [field.open_parts(stored=False)[0] for field in self.fields]
        return [join_variables(parts) for parts in zip(*opened, strict=True)]


def split_names(text: str) -> list[str]:
    """Return the variables of --variable: "u,v" is ["u", "v"]; `InputError` if one is empty or given twice."""
    names = [name.strip().strip("/") for name in text.split(",")]
    if not all(names):
        raise InputError(f"--variable {text}: give the names of variables, with commas between them")
    plain = [name.rpartition("/")[2] for name in names]
    again = next((name for place, name in enumerate(plain) if name in plain[:place]), None)
    if again is not None:
        raise InputError(f"--variable {text}: has {again} twice; give each variable once")
    groups = {name.rpartition("/")[0] for name in names}
    if len(groups) > 1:
        raise InputError(f"--variable {text}: the variables are in different groups; write them into one group of a "
                         "file, or make a data set of each")
    return names


def choose_for(array: Any, dataset: Any, wanted: Mapping[str, str]) -> dict[str, str]:
    """Return those of the wanted values that choose in a dimension of a variable, which may be a surface."""
    def lies_along(key: str) -> bool:
        along = dataset.variables.get(key)
        return key in array.dims or along is not None and along.ndim == 1 and along.dims[0] in array.dims
    return {key: value for key, value in wanted.items() if lies_along(key)}


def _join_facts(fields: Sequence[FieldSource]) -> Facts:
    """Return the facts of all variables: once what holds for all, and with the name of the variable what does not."""
    several = [field.facts for field in fields]

    def texts(key: str) -> list[str]:
        each = [list(getattr(facts, key)) for facts in several]
        shared = [line for line in each[0] if all(line in lines for lines in each)]
        return shared + [line if key == "warnings" else f"{field.channels[0]}: {line}"
                         for field, lines in zip(fields, each, strict=True) for line in lines if line not in shared]

    first = several[0]
    breaks = {index for facts in several for index in facts.breaks}
    empty = {index for facts in several for index in facts.empty}
    lines = [f"{field.channels[0]}: {field.summary}" for field in fields]
    warnings = texts("warnings")
    lacking = [name for facts, name in zip(several, (field.channels[0] for field in fields), strict=True)
               if set(facts.empty) != empty]
    if lacking:
        warnings.append(f"{fields[0].files[0]}: the frames without a value of one variable are left out for all, also "
                        f"for {', '.join(lacking)}")
    return dataclasses.replace(first, breaks=sorted(breaks), empty=sorted(empty), lines=[*lines, *texts("lines")],
                               warnings=list(dict.fromkeys(warnings)))


def _join_descriptions(several: Sequence[dict]) -> dict:
    """Return one description: what belongs to a variable is a list in the order of the channels; see `SourceInfo`."""
    joined = dict(several[0])
    for key, absent in OWN.items():
        if any(key in one for one in several):
            joined[key] = [one.get(key, absent) for one in several]
    selection = {key: value for one in several for key, value in one.get("selection", {}).items()}
    return {**joined, **({"selection": selection} if selection else {})}
