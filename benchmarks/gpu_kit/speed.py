"""Measures the limits of the card, and how near the networks come to them; each rate beside its error."""

from __future__ import annotations

import contextlib
import itertools
import platform
from collections.abc import Callable, Iterator

import torch

from gpu_kit.kit import Item, Kit, compare_rates, rate, record
from gpu_kit.reference import GREY, build, frame, stock
from hpc_vsr.models.flops import count_flops
from hpc_vsr.models.network import Network
from hpc_vsr.models.precision import autocast
from hpc_vsr.system.gpus import FULL
from hpc_vsr.system.memory import GPU_CONTEXT
from hpc_vsr.training.objective import Objective

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Largest relative RMS error of a network, several times what rounding explains.
MOST_ERROR = {"fp32": 1e-4, "TF32": 3e-2, "bf16": 0.1, "fp16": 3e-2}
PROFILED = 3  # kernels that are named; the whole table is in a file


def check_machine(kit: Kit) -> Iterator[dict]:
    """Record versions, and the card's rates of a copy, a product of matrices and a launch."""
    facts = {"python": platform.python_version(), "torch": torch.__version__}
    with contextlib.suppress(ImportError):
        import triton

        facts["triton"] = triton.__version__
    if kit.on_gpu:
        properties = torch.cuda.get_device_properties(kit.device)
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
                  "nccl": ".".join(map(str, torch.cuda.nccl.version())), "memory_GB": properties.total_memory / 1e9,
                  "multiprocessors": properties.multi_processor_count,
                  "capability": f"{properties.major}.{properties.minor}", "code": " ".join(torch.cuda.get_arch_list())}
    yield record("versions", None, **facts)
    yield record("copy", None, GB_per_s=round(_bandwidth(kit), 1))
    side = kit.sizes.matrix
    for precision in ("fp32", "bf16", "fp16"):
        if precision == "fp16" and not kit.on_gpu:
            continue
        matrix = (kit.random(side, side) - 0.5).to(DTYPES[precision])
        tflops = 2 * side**3 * rate(kit, lambda matrix=matrix: matrix @ matrix) / 1e12
        yield record(f"product of {side} x {side}, {precision}", None, TFLOP_per_s=round(tflops, 2))
    if kit.on_gpu:
        matrix = kit.random(side, side) - 0.5
        with _tf32():
            tflops = 2 * side**3 * rate(kit, lambda: matrix @ matrix) / 1e12
        yield record(f"product of {side} x {side}, TF32", None, TFLOP_per_s=round(tflops, 2))
    small = kit.random(8)
    yield record("launch", None, microseconds=round(1e6 / rate(kit, lambda: small.add_(0.0), 1000), 2))


def _bandwidth(kit: Kit) -> float:
    """Return the GB/s that are read and written."""
    source = torch.rand(kit.sizes.megabytes * 2**18, device=kit.device)
    copied = torch.empty_like(source)
    return 2 * 4 * source.numel() * rate(kit, lambda: copied.copy_(source)) / 1e9


def check_rates(kit: Kit, name: str) -> Iterator[dict]:
    """Measure frames and samples per second of torch's own network in the usual ways, and of ours."""
    ways = list(_ways(kit, name))
    reference = _result(kit, *next(way[1:] for way in ways if way[0] == "stock, fp32"))
    right, works = [], {}
    for way, network, precision, layout in ways:
        found = _result(kit, network, precision, layout)
        error = ((found - reference).norm() / reference.norm()).item() if network.skip is None else None
        ok = None if error is None else error <= MOST_ERROR[precision]
        figures = {} if error is None else {"relative_error": float(f"{error:.1e}")}
        yield record(f"frame: {way}", ok, **figures)
        if ok is not False:  # a wrong result gets no rate
            right.append((way, network, precision, layout))
    height, width = kit.sizes.lr
    flops = count_flops(build(name, "plain"), 1, kit.sizes.lr)
    for way, network, precision, layout in right:
        works[way] = _upscaling(kit, network, precision, layout)
    for found in compare_rates(kit, works, 1, "frames_per_s"):
        found["what"] = f"upscaling to {2 * width}x{2 * height}: {found['what']}"
        yield {**found, "TFLOP_per_s": round(flops * found["frames_per_s"] / 1e12, 3)}
    works = {way: _training(kit, network, precision, layout) for way, network, precision, layout in right}
    for found in compare_rates(kit, works, kit.sizes.batch, "samples_per_s"):
        what = f"step of {kit.sizes.batch} patches of {kit.sizes.patch}x{kit.sizes.patch}"
        yield {**found, "what": f"{what}: {found['what']}"}
    if kit.on_gpu:
        for way in works:
            torch.cuda.reset_peak_memory_stats()
            works[way]()
            kit.finish()
            yield record(f"peak of a step: {way}", None, GB=round(torch.cuda.max_memory_allocated() / 1e9, 3))


def check_loader(kit: Kit) -> Iterator[dict]:
    """Measure training steps of Delta on a batch that is reused, and on batches cut from resident frames."""
    from hpc_vsr.data.manifest import read_manifest
    from hpc_vsr.data.patches import Patches, load_batches
    from hpc_vsr.data.samples import Split

    network = build("delta").to(kit.device)
    manifest = read_manifest(kit.dataset)
    side = min(kit.sizes.patch, *manifest.lr_size)
    patches = Patches(Split(manifest, "train", kit.device), side, network.reach, True, 0)
    batches = iter(load_batches(patches, 0, 10**9, kit.sizes.batch, 0, 1, 0, kit.device))
    there = itertools.repeat(next(batches))
    step = _step(kit, network, kit.half)
    works = {"batches that are there": lambda: step(*next(there)),
             "batches cut from resident frames": lambda: step(*next(batches)),
             "the cutting alone": lambda: next(batches)}
    yield from compare_rates(kit, works, kit.sizes.batch, "samples_per_s")


def check_profile(kit: Kit, name: str) -> Iterator[dict]:
    """Profile a frame and a step: kernels, their time and the time of the CPU; the tables are in files."""
    from torch.profiler import ProfilerActivity, profile

    network = build(name).to(kit.device)
    works = {"frame": _upscaling(kit, network, kit.half, None), "step": _training(kit, network, kit.half, None)}
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if kit.on_gpu else [])]
    for what, work in works.items():
        for _ in range(2):
            work()
        kit.finish()
        with profile(activities=activities) as seen:
            work()
            kit.finish()
        averages = [entry for entry in seen.key_averages() if not entry.is_user_annotation]
        path = kit.folder.parent / f"profile-{name}-{what}.txt"
        order = "self_device_time_total" if kit.on_gpu else "self_cpu_time_total"
        path.write_text(seen.key_averages().table(sort_by=order, row_limit=60, max_name_column_width=90))
        where = torch.autograd.DeviceType.CUDA if kit.on_gpu else torch.autograd.DeviceType.CPU
        kernels = [entry for entry in averages if entry.device_type == where]  # a GPU's operations have entries of both
        total = sum(getattr(entry, order) for entry in kernels)
        dearest = sorted(kernels, key=lambda entry: -getattr(entry, order))[:PROFILED]
        yield record(f"{name}, {what}", None, kernels=sum(entry.count for entry in kernels),
                     ms=round(total / 1e3, 3), table=path.name,
                     dearest={entry.key[:60]: round(getattr(entry, order) / 1e3, 3) for entry in dearest})


def check_graphs(kit: Kit) -> Iterator[dict]:
    """A frame replayed from a CUDA graph against one that is launched kernel by kernel."""
    if not kit.on_gpu:
        yield record("CUDA graph of a frame", None, left_out="a CPU has none")
        return
    for name in ("delta", "parallel5"):
        network, lr = build(name).to(kit.device), frame(*kit.sizes.lr).to(kit.device)

        def upscale(network=network, lr=lr) -> torch.Tensor:
            # a context of its own each time: within one the weights, once cast, would be missing in the graph
            with torch.inference_mode(), autocast(kit.device, kit.half):
                return network.upscale(lr)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                upscale()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            replayed = upscale()
        lr.copy_(lr.flip(-1))
        graph.replay()
        most = GREY * (replayed - upscale()).abs().max().item()
        yield record(f"{name}: graph against launches", most <= 0.05, most_grey_levels=most)
        works = {"launches": _upscaling(kit, network, kit.half, None), "graph": graph.replay}
        for found in compare_rates(kit, works, 1, "frames_per_s"):
            yield {**found, "what": f"{name}: {found['what']}"}


def check_memory(kit: Kit) -> Iterator[dict]:
    """Compare the memory that a plan states for a step with the memory that the step takes."""
    from hpc_vsr.data.manifest import read_manifest
    from hpc_vsr.experiment.settings import Experiment, TrainSettings
    from hpc_vsr.training.plan import memory_of_rank

    manifest = read_manifest(kit.dataset)
    side = min(kit.sizes.patch, *manifest.lr_size)
    experiment = Experiment(data=kit.dataset, out=kit.folder / "none", train=TrainSettings(
        batch_size=kit.sizes.batch, patch_size=side, precision=kit.half))
    network = build("delta")
    stated = memory_of_rank(experiment, network, manifest, 1, on_gpu=kit.on_gpu)
    if not kit.on_gpu:
        yield record("stated for a step of Delta", None, stated_GB=round(stated / 1e9, 3))
        return
    step = _training(kit, network.to(kit.device), kit.half, None, side)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        step()
    kit.finish()
    free, total = torch.cuda.mem_get_info(kit.device)
    context = total - free - torch.cuda.memory_reserved()
    reserved = torch.cuda.max_memory_reserved()
    # the context is that of a process that has made many checks; a training has loaded less
    yield record("a step of Delta", stated - GPU_CONTEXT >= reserved, stated_GB=round(stated / 1e9, 3),
                 reserved_GB=round(reserved / 1e9, 3), context_GB=round(context / 1e9, 3),
                 tensors_GB=round(torch.cuda.max_memory_allocated() / 1e9, 3))


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    """Compute convolutions and products in TF32, which is torch's default for convolutions."""
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = FULL


def _ways(kit: Kit, name: str) -> Iterator[tuple[str, Network, str, torch.memory_format | None]]:
    """Yield (name, network, precision, layout of its tensors)."""
    ours = build(name, "plain").to(kit.device)
    plain = stock(ours)
    half = kit.half
    if kit.on_gpu:
        yield "stock, TF32", plain, "TF32", None
    yield "stock, fp32", plain, "fp32", None
    yield f"stock, {half}", plain, half, None
    yield f"stock, {half}, channels last", _channels_last(stock(ours)), half, torch.channels_last_3d
    yield "ours, fp32", ours, "fp32", None
    yield f"ours, {half}", ours, half, None
    yield f"ours, {half}, with the Wiener filters", build(name).to(kit.device), half, None


def _channels_last(network: Network) -> Network:
    """Lay out the weights of all convolutions with the channels last."""
    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            layout = torch.channels_last if isinstance(module, torch.nn.Conv2d) else torch.channels_last_3d
            module.weight.data = module.weight.data.contiguous(memory_format=layout)
    return network


@contextlib.contextmanager
def _computing(kit: Kit, precision: str) -> Iterator[None]:
    with _tf32() if precision == "TF32" else autocast(kit.device, precision):
        yield


def _laid_out(values: torch.Tensor, layout: torch.memory_format | None) -> torch.Tensor:
    return values if layout is None else values.contiguous(memory_format=layout)


def _result(kit: Kit, network: Network, precision: str, layout: torch.memory_format | None) -> torch.Tensor:
    lr = _laid_out(frame(*kit.sizes.lr).to(kit.device), layout)
    with torch.inference_mode(), _computing(kit, precision):
        return network.upscale(lr, tile=0).float().cpu()


def _upscaling(kit: Kit, network: Network, precision: str, layout: torch.memory_format | None) -> Callable[[], None]:
    lr = _laid_out(frame(*kit.sizes.lr).to(kit.device), layout)

    def work() -> None:
        with torch.inference_mode(), _computing(kit, precision):
            network.upscale(lr, tile=0)
    return work


def _training(kit: Kit, network: Network, precision: str, layout: torch.memory_format | None, side: int = 0
              ) -> Callable[[], None]:
    side = side or kit.sizes.patch
    whole, scale = side + 2 * network.reach, 4 if network.has_flow else 2
    lr = _laid_out(frame(whole, whole, kit.sizes.batch).to(kit.device), layout)
    hr = kit.random(kit.sizes.batch, 1, scale * (side - 2), scale * (side - 2))
    step = _step(kit, network, precision)
    return lambda: step(lr, hr)


def _step(kit: Kit, network: Network, precision: str) -> Callable[[torch.Tensor, torch.Tensor], None]:
    network.requires_grad_(True)
    objective = Objective(network, 0.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-9)  # keeps the weights, and so what is compared

    def step(lr: torch.Tensor, hr: torch.Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        with _computing(kit, precision):
            loss = objective(lr, hr, "charbonnier")
            if precision == "TF32":
                loss.backward()
        if precision != "TF32":
            loss.backward()
        optimiser.step()
    return step


def rates_of(name: str, estimate: float) -> Item:
    return Item(f"rates: {name}", lambda kit: check_rates(kit, name), estimate, limit=2.5 * estimate)


def profile_of(name: str) -> Item:
    return Item(f"profile: {name}", lambda kit: check_profile(kit, name), estimate=6, limit=40)


MACHINE = Item("machine", check_machine, estimate=6, limit=120)
LOADER = Item("loader", check_loader, estimate=8, limit=40)
GRAPHS = Item("CUDA graphs", check_graphs, estimate=8, limit=40)
MEMORY = Item("memory", check_memory, estimate=3, limit=30)
