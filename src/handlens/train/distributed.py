"""Several processes that learn as one: started by torchrun, they give the same losses as one process.

``ddp`` keeps the whole model in every process, ``fsdp`` a share of it. Batches are shared out by streams
(``phases.py``). Boundary: torch.distributed is used here and in ``state.py``, nowhere else.
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from handlens.errors import SettingError
from handlens.train.phases import Phase

CPU = torch.device("cpu")
Mode = Literal["alone", "ddp", "fsdp"]


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, seen from one of them."""

    mode: Mode = "alone"
    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        """True in the one process that writes files and speaks."""
        return self.rank == 0

    def add(self, value: float | int) -> float:
        """Return the sum of a number over all processes."""
        return self.add_all([float(value)])[0]

    def add_all(self, values: list[float]) -> list[float]:
        """Return the sums of several numbers over all processes."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def average(self, tensors: list[Tensor]) -> None:
        """Give all processes the mean of their tensors, in place."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, mean in zip(tensors, (flat / self.size).split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def interleave(self, values: list[int]) -> list[int]:
        """Return the values of all streams in the order of streams; process ``rank`` has every ``size``-th."""
        if self.size == 1:
            return values
        own = torch.tensor(values, dtype=torch.int64, device=self.device)
        told = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(told, own)
        return torch.stack(told, dim=1).flatten().tolist()

    def agree(self, *claims: bool) -> tuple[bool, ...]:
        """Return for each claim whether any process makes it."""
        if self.size == 1:
            return claims
        told = torch.tensor(claims, dtype=torch.int32, device=self.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return tuple(bool(claim) for claim in told.tolist())

    def wait(self) -> None:
        """Go on when every process is here."""
        if self.size > 1:
            dist.barrier()

    def streams(self, phase: Phase) -> range:
        """Return the streams of records that this process reads.

        Raises:
            SettingError: they cannot be shared out evenly, or would go alone without all weights.
        """
        if phase.local_steps > 1 and self.mode == "fsdp":
            raise SettingError(
                f"phase {phase.name}: with local_steps every process needs all weights, and fsdp gives it a share of "
                "them; use --parallel ddp"
            )
        if phase.streams % self.size:
            raise SettingError(
                f"phase {phase.name}: {phase.streams} streams cannot be shared by {self.size} processes; "
                f"give a multiple: --set streams={self.size}"
            )
        return range(self.rank, phase.streams, self.size)

    def share(self, objective: nn.Module) -> nn.Module:
        """Copy the module to all processes, or cut it into shares."""
        if self.mode == "fsdp":
            return cut_into_shares(objective, self)
        if self.mode == "ddp":
            devices = [self.device.index] if self.device.type == "cuda" else None
            return nn.parallel.DistributedDataParallel(objective, device_ids=devices)
        return objective

    def gathering(self, module: nn.Module, *, is_last: bool) -> AbstractContextManager[Any]:
        """Let slopes of all but the last batch of a step stay where they are."""
        if self.mode == "fsdp":
            module.set_requires_gradient_sync(is_last)  # type: ignore[operator]
        elif self.mode == "ddp" and not is_last:
            return module.no_sync()  # type: ignore[operator]
        return nullcontext()


ALONE = World()


def layers_of(tower: Any) -> Any:
    """Return the layers of a vision tower under either of their official names (timm's in 1.0 and 2.0)."""
    return tower.blocks if hasattr(tower, "blocks") else tower.encoder.layers


def cut_into_shares(objective: nn.Module, world: World) -> nn.Module:
    """Apply FSDP2: layers one by one, the resampler, then the rest as one group (tied weights stay together)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    model: Any = objective.model
    for part in (*layers_of(model.vpm), *model.llm.model.layers, model.resampler):
        fully_shard(part, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return objective


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor gathered from its shares; every process must ask at the same time."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@contextlib.contextmanager
def join_world(mode: Mode = "fsdp") -> Iterator[World]:
    """Join the processes that torchrun started; without it there is one, on the GPU where there is one."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local) if has_gpu else CPU
    if has_gpu:
        torch.cuda.set_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        with default_device(device):
            yield World(device=device)
        return
    dist.init_process_group("nccl" if has_gpu else "gloo")
    try:
        with default_device(device):
            yield World(mode=mode, rank=dist.get_rank(), size=size, device=device)
    finally:
        dist.destroy_process_group()


def default_device(device: torch.device) -> AbstractContextManager[Any]:
    """Make new tensors on the device of the run; the CPU needs no such word."""
    return device if device.type != "cpu" else nullcontext()
