"""Property tests run the same examples every time, for as long as they need."""

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(
    1
)  # small tensors on a shared machine: threads wait longer than they work

settings.register_profile(
    "momos",
    max_examples=100,
    deadline=None,  # the first call may compile, and machines are shared
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("momos")
