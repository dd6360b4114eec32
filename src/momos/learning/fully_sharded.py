"""The parts of FSDP2 that it keeps private: which memory it reuses, and where parameters live.

A parameter that is sent in another form, or belongs to another module than before, needs both.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from momos.learning.latents import LatentShard
from momos.shards import is_fully_sharded, reshard_


def restart_(root: nn.Module) -> None:
    """Lets the next forward pass allocate memory for what latent weights then send."""
    reshard_(root)
    for parameter in _parameters(root):
        if isinstance(parameter._sharded_local_tensor, LatentShard):
            _forget_(parameter)


def release_(
    root: nn.Module, homes: dict[ParametrizationList, tuple[nn.Module, str]]
) -> None:
    """Makes latent weights ordinary sharded parameters, of the modules in `homes`."""
    for parameter in _parameters(root):
        local = parameter._sharded_local_tensor
        if not isinstance(local, LatentShard):
            continue
        _forget_(parameter)
        parameter._sharded_param_data = parameter._sharded_param_data.held
        parameter.sharded_param._local_tensor = local.held
        _rehome_(parameter, homes)


def _forget_(parameter: Any) -> None:
    parameter.all_gather_outputs = []
    parameter._unsharded_inner_tensors = []
    parameter.__dict__.pop("_unsharded_param", None)


def _rehome_(parameter: Any, homes: dict[Any, tuple[nn.Module, str]]) -> None:
    info = parameter._module_info
    info.module, info.param_name = homes[info.module]
    shared = [homes[module] for module in info.shared_modules]
    info.shared_modules = [module for module, _ in shared]
    info.shared_param_names = [name for _, name in shared]
    parameter._post_load_hook_handle.remove()
    hook = info.module.register_load_state_dict_post_hook
    parameter._post_load_hook_handle = hook(lambda *_: parameter.reset_sharded_param())


def _parameters(root: nn.Module) -> Iterator[Any]:
    for module in filter(is_fully_sharded, root.modules()):
        state: Any = module._get_fsdp_state()  # type: ignore[operator]
        groups = getattr(state, "_fsdp_param_groups", None)
        if groups is None:  # torch before 2.12 has one for each module
            groups = [state._fsdp_param_group] if state._fsdp_param_group else []
        for group in groups:
            yield from group.fsdp_params
