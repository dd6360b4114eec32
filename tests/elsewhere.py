"""A second device for tests: its tensors compute on the CPU, but mix with others as CUDA's do.

`Device` is a context. In it, whatever names the device (`model.to(device)`, `torch.zeros(...,
device=device)`) gives tensors that say they are there. An operation on tensors of both devices
raises, as torch does; numbers of no dimension are allowed where torch allows them. `waits` counts
by name what would make the host wait for a real device, `launches` the operations that would run
there, `uploads` the copies from the host.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from momos.vq import gather

ATEN = torch.ops.aten
OWN: dict[Any, Callable] = {  # what runs on devices without an implementation of their own
    torch.ops.momos.gather.default: gather._gather_plain,
    torch.ops.momos.sum_by_motif.default: gather._sum_hosted,
}
CROSSING = {ATEN.copy_.default, ATEN._to_copy.default}
INDEXING = {ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default}
# Their shapes or values are wanted by the host.
WAITING = {
    ATEN._local_scalar_dense.default, ATEN.equal.default, ATEN.nonzero.default,
    ATEN.masked_select.default, ATEN._unique2.default, ATEN.unique_dim.default,
    ATEN.unique_consecutive.default, ATEN.bincount.default,
    ATEN.repeat_interleave.Tensor,
}  # fmt: skip
NO_WORK = {ATEN.detach.default, ATEN.alias.default, ATEN.empty.memory_format}


def tensors(value: Any) -> list[Tensor]:
    """All tensors in the arguments of an operation."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for each in value for tensor in tensors(each)]


def replaced(value: Any, by: Callable[[Tensor], Tensor]) -> Any:
    """The arguments or results of an operation, with other tensors."""
    if isinstance(value, Tensor):
        return by(value)
    if isinstance(value, dict):
        return {name: replaced(each, by) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([replaced(each, by) for each in value])
    return value


def _here(tensor: Tensor) -> Tensor:
    return tensor.here if isinstance(tensor, There) else tensor


class There(Tensor):
    """A tensor of the device; `here` has its values."""

    here: Tensor
    where: "Device"

    @staticmethod
    def __new__(cls, here: Tensor, where: "Device") -> "There":
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device="cpu",  # where C++ believes it to be
        )

    def __init__(self, here: Tensor, where: "Device") -> None:
        self.here, self.where = here.detach(), where

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.where.device

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return self.where.device.type == "cuda"

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        flat = tensors((args, kwargs or {}))
        there = next(each for each in flat if isinstance(each, There))
        return there.where.run(func, args, kwargs or {}, flat)

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]
        return f"There({self.here!r})"


class Device:
    """A device by name, and what it was asked to do."""

    def __init__(self, name: str = "xpu:0") -> None:
        self.device = torch.device(name)
        self.waits: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self.uploads = 0

    def put(self, values: Tensor) -> Tensor:
        """A tensor of the device with these values."""
        if values.dtype == torch.float64 and self.device.type == "mps":
            raise TypeError("the MPS framework doesn't support float64")
        return There(values.detach().clone(), self)

    def run(self, func: Any, args: tuple, kwargs: dict, flat: list[Tensor]) -> Any:
        if func in OWN:
            with _Calls(self):  # off, if this is inside another call
                return OWN[func](*args, **kwargs)
        self._check(func, args, flat)
        if func in WAITING or _by_mask(func, args):
            self.waits[str(func)] += 1
        if not func.is_view and func not in NO_WORK:
            self.launches[str(func)] += 1
        if func is ATEN.copy_.default and not isinstance(args[0], There):
            self.waits["copy to the host"] += 1
            args[0].copy_(args[1].here)
            return args[0]
        if kwargs.get("device") == self.device:
            kwargs = kwargs | {"device": torch.device("cpu")}
        result = func(*replaced(args, _here), **replaced(kwargs, _here))
        given = {id(each.here): each for each in flat if isinstance(each, There)}

        def sent(value: Tensor) -> Tensor:  # in place, it is one that was given
            if value.dtype == torch.float64 and self.device.type == "mps":
                raise TypeError("the MPS framework doesn't support float64")
            return given[id(value)] if id(value) in given else There(value, self)

        return replaced(result, sent)

    def _check(self, func: Any, args: tuple, flat: list[Tensor]) -> None:
        here = [each for each in flat if not isinstance(each, There)]
        if func is ATEN.copy_.default and here:
            self.uploads += isinstance(args[0], There)
            return
        if func in INDEXING:  # positions may be on the CPU
            here = [e for e in (args[0], *args[2:3]) if type(e) is Tensor]
            here = [e for e in here if e.ndim]
        elif func is not ATEN.cat.default and func is not ATEN.stack.default:
            here = [each for each in here if each.ndim]
        if here:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {func} got some on "
                f"{self.device} and one of shape {tuple(here[0].shape)} on cpu"
            )


def _by_mask(func: Any, args: tuple) -> bool:
    return func in INDEXING and any(
        isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8)
        for each in args[1]
    )


class _Calls(TorchFunctionMode):
    """Sees the calls that name a device, and those that read memory."""

    def __init__(self, where: Device) -> None:
        super().__init__()
        self.where = where

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        ours = isinstance(args[0], There) if args else False
        if name in ("data_ptr", "untyped_storage") and ours:
            return func(args[0].here)
        if name in ("numpy", "__array__") and ours:
            raise TypeError(f"can't convert {self.where.device} tensor to numpy")
        if name == "new_tensor" and ours and "device" not in kwargs:
            self.where.uploads += 1
            return self.where.put(func(*args, **kwargs))
        if name == "tolist" and ours:
            self.where.waits[name] += 1
            return args[0].here.tolist()
        if name == "__deepcopy__" and ours and not args[0].requires_grad:
            return self.where.put(args[0].here)
        if name == "cpu":
            args, name = (*args, torch.device("cpu")), "to"
            func = Tensor.to
        at = self._device(name, args, kwargs)
        if at is None:
            return func(*args, **kwargs)
        return self._sent(func, name, args, kwargs, at)

    def _device(self, name: str, args: tuple, kwargs: dict) -> torch.device | None:
        """The device that a call names, if it is this one, or tensors of it are to leave it."""
        named = [kwargs.get("device")]
        if name == "to":
            named += [each for each in args[1:2] if not isinstance(each, torch.dtype)]
        for each in named:
            if isinstance(each, Tensor):
                each = each.device
            if isinstance(each, str | torch.device):
                device = torch.device(each)
                if device.type == self.where.device.type or (
                    args and isinstance(args[0], There)
                ):
                    return device
        return None

    def _sent(self, func, name, args, kwargs, at):
        there = at.type == self.where.device.type
        kwargs.pop("device", None)
        if name == "to":
            values, rest = args[0], args[2:] if _names_device(args[1:2]) else args[1:]
            ours = isinstance(values, There)
            if ours and not there:
                self.where.waits["copy to the host"] += 1
                values = values.here
            elif there and not ours:
                self.where.uploads += 1
                values = self.where.put(values)
            like = [each.dtype for each in args[1:2] if isinstance(each, Tensor)]
            rest = like + [each for each in rest if isinstance(each, torch.dtype)]
            copying = {k: v for k, v in kwargs.items() if v is not None}
            return func(values, *rest, **copying) if rest or copying else values
        if name == "as_tensor" and isinstance(args[0], There) and there:
            return args[0]
        result = func(*args, **kwargs, device="cpu")
        if not there:  # made by a method of one that is there
            return result.here if isinstance(result, There) else result
        if not isinstance(result, There):
            self.where.uploads += name in ("tensor", "as_tensor")
            result = self.where.put(result)
        return result


def _names_device(args: tuple) -> bool:
    return any(isinstance(each, str | torch.device | Tensor) for each in args)


@contextmanager
def pretended(name: str = "xpu:0") -> Iterator[Device]:
    """The device, while it is there."""
    where, overwrite = (
        Device(name),
        torch.__future__.set_overwrite_module_params_on_conversion,
    )
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    overwrite(True)  # a parameter cannot take over the data of another kind of tensor
    try:
        with _Calls(where):
            yield where
    finally:
        overwrite(before)
