"""Upscales any input: plans the work, shares what is missing among tasks and ranks, makes it, and joins it.

A video, a folder of images and a field differ in their units of work and in how these are written and joined. Each has
a class with the methods of `Upscaling`, and the loop here is the same for all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol, Self

from hpc_vsr.media.clip_files import is_pattern
from hpc_vsr.media.source import Source, find_kind, open_source
from hpc_vsr.models.settings import Choice
from hpc_vsr.system.config import as_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.mpi import on_main_rank, ranks_on_node
from hpc_vsr.system.progress import Progress
from hpc_vsr.upscale.checks import check_network, choose_variables
from hpc_vsr.upscale.field import FieldUpscaling
from hpc_vsr.upscale.images import ImageUpscaling
from hpc_vsr.upscale.memory import state_memory
from hpc_vsr.upscale.settings import UpscaleSettings
from hpc_vsr.upscale.upscaler import Upscaler, check_size
from hpc_vsr.upscale.video import VideoUpscaling


class Upscaling(Protocol):
    """The plan of an upscaling, which is the same on every rank, and the steps that carry it out.

    Attributes
    ----------
    kind : str
        Kind of input, such as "a video".
    is_field : bool
        Whether it needs a network for fields.
    unused : tuple of str
        Settings that do nothing for this kind.
    item : str
        Name of what is counted: "frame" or "image".
    settings : UpscaleSettings
    source : Source
    frames : range
        The frames to upscale.
    units : sequence of range
        Frames of each unit of work: the segments of a video, single images, all of a field.
    subject, coding, pieces : str
        Texts for the line that says what will be done: the input, and how the output is coded and cut.
    """

    kind: ClassVar[str]
    is_field: ClassVar[bool]
    unused: ClassVar[tuple[str, ...]]
    item: ClassVar[str]
    settings: UpscaleSettings
    source: Source
    frames: range
    units: Sequence[range]
    subject: str
    coding: str
    pieces: str

    @classmethod
    def plan(cls, settings: UpscaleSettings, upscaler: Upscaler, source: Source) -> Self:
        """Check the input and the output, and plan the work, without writing anything."""
        ...

    def is_finished(self) -> bool:
        """Return whether the whole output is there already; raise `InputError` if something else is there."""
        ...

    def begin(self, upscaler: Upscaler) -> Choice:
        """Prepare the output, or check that what is there is of this upscaling; return its choice of precision."""
        ...

    def lock(self) -> contextlib.AbstractContextManager:
        """Return a lock that the main rank holds while units are made."""
        ...

    def missing(self) -> list[int]:
        """Return the numbers of the units that are not there yet."""
        ...

    def make(self, numbers: range, upscaler: Upscaler, progress: Progress) -> None:
        """Make the units of these numbers, unless another task has made them meanwhile."""
        ...

    def join(self, upscaler: Upscaler) -> bool:
        """Join the units if all are there, and remove what is no longer needed; return whether the output is whole."""
        ...


UPSCALINGS: dict[str, type[Upscaling]] = {"video": VideoUpscaling, "frames": ImageUpscaling, "field": FieldUpscaling}


def plan_upscaling(settings: UpscaleSettings, upscaler: Upscaler) -> Upscaling:
    """Check the settings, the network, the input and the output, and plan the work, without writing anything.

    Raises
    ------
    InputError
        If a setting does nothing for this kind of input, the network is for another kind, the input cannot be read or
        is too small, or the output cannot be written or is something else.
    """
    option = "field" if settings.variable is not None else find_kind(settings.input).option
    if option != "field" and is_pattern(settings.input):
        raise InputError(f"--input: {settings.input} is a pattern, and upscale takes one input; run it for each, with "
                         "an --output of its own")
    upscaling = UPSCALINGS[option]
    settings.refuse(upscaling.kind, upscaling.unused)
    check_network(upscaler, upscaling.is_field, str(settings.input))
    reading = settings.reading
    if upscaling.is_field:
        variable, warning = choose_variables(upscaler, settings.variable, str(settings.input))
        reading = dataclasses.replace(reading, variable=variable)
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
    try:
        source = open_source(settings.input, option, "rgb" if upscaler.channels == 3 else "y", reading)
    except InputError as error:
        if reading.variable == settings.variable:
            raise
        raise InputError(f"{error} ({upscaler.name} was trained on {reading.variable}; name others in the same order "
                         "with --variable)") from None
    check_size(source.height, source.width, str(settings.input))
    return upscaling.plan(settings, upscaler, source)


def format_plan(settings: UpscaleSettings, upscaler: Upscaler) -> str:
    """Return the settings and what would be done, as text for --dry-run."""
    lines = [f"{key} = {value}" for key, value in as_dict(settings).items() if value is not None]
    work = plan_upscaling(settings, upscaler)
    facts = work.source.facts
    _share_cores(work, upscaler)
    return "\n".join([*lines, *facts.lines, *(f"warning: {line}" for line in facts.warnings),
                      _describe(work, upscaler)])


def upscale(settings: UpscaleSettings, upscaler: Upscaler, comm: Any) -> bool:
    """Upscale the input, all ranks together inside `abort_together`, and return whether the output is complete."""
    work = on_main_rank(comm, lambda: plan_upscaling(settings, upscaler))
    found = work.settings.sigma, work.settings.noise
    if any(one is not None for one in found) and comm.rank != 0:
        upscaler.suit(*found)  # the first rank has measured or read them
    if comm.rank == 0:
        for warning in work.source.facts.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    if on_main_rank(comm, work.is_finished):
        if comm.rank == 0:
            print(f"{settings.output}: finished before", file=sys.stderr)
    else:
        _make_missing(work, upscaler, comm)
    return on_main_rank(comm, lambda: work.join(upscaler))


def _make_missing(work: Upscaling, upscaler: Upscaler, comm: Any) -> None:
    """Make the missing units of this task, all ranks together, and return when all ranks are done."""
    # every rank computes in the precision in which the work was begun, and knows the network's reach
    upscaler.choice = on_main_rank(comm, lambda: work.begin(upscaler))
    upscaler.reach = on_main_rank(comm, lambda: upscaler.find_reach(work.source.height, work.source.width,
                                                                    work.source.facts.periodic))
    units, neighbours = work.units, ranks_on_node(comm)
    ranks = min(comm.size, len(units))
    _share_cores(work, upscaler, min(neighbours, ranks))
    with work.lock() if comm.rank == 0 else contextlib.nullcontext():
        missing = on_main_rank(comm, work.missing)
        if comm.rank == 0:
            before = len(units) - len(missing)
            print(_describe(work, upscaler, min(neighbours, ranks)) + (f"; {before} finished before" if before else "")
                  + f"; {ranks} rank{'s' * (ranks > 1)}", file=sys.stderr, flush=True)
        # a task (--part) has a fixed stretch of all units, because fewer are missing while other tasks work; its ranks
        # share what is missing there
        here = _stretch(range(len(units)), *work.settings.share())
        mine = _stretch([number for number in missing if number in here], comm.rank, comm.size)
        label = "upscaling" if ranks == 1 else f"upscaling (rank 0 of {ranks})"
        total = sum(len(units[number]) for number in mine)
        with Progress(total, label, work.item, shown=comm.rank == 0) as progress:
            for numbers in _consecutive(mine):
                work.make(numbers, upscaler, progress)
        comm.allgather(None)


def _stretch(items: Sequence[int], index: int, count: int) -> Sequence[int]:
    """Return stretch number `index` of `count` nearly equal ones."""
    first, stop = (-(-len(items) * bound // count) for bound in (index, index + 1))
    return items[first:stop]


def _consecutive(numbers: Sequence[int]) -> Iterator[range]:
    """Yield the runs of consecutive numbers."""
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        yield range(run[0], run[-1] + 1)


def _share_cores(work: Upscaling, upscaler: Upscaler, processes: int = 1) -> None:
    """Let this process compute several frames at the same time, as far as it has cores and memory for them."""
    size = upscaler.size_seen(work.source.height, work.source.width, work.source.facts.periodic)
    upscaler.share_cores(*size, processes, getattr(work.source, "block_bytes", 0))


def _describe(work: Upscaling, upscaler: Upscaler, processes: int = 1) -> str:
    """Return one line that says what will be done."""
    height, width = work.source.height, work.source.width
    seen = upscaler.size_seen(height, width, work.source.facts.periodic)
    return (f"{work.settings.output}: {len(work.frames)} {work.item}s of {work.subject}, {width}x{height} to "
            f"{upscaler.scale * width}x{upscaler.scale * height}{work.coding}; {upscaler.name} in "
            f"{upscaler.precision} on {upscaler.device.type}{work.pieces}; "
            f"{state_memory(upscaler, *seen, processes, getattr(work.source, 'block_bytes', 0))}")
