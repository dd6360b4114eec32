"""Property tests run the same examples every time, for as long as they need."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "momos",
    max_examples=30,
    deadline=None,  # the first call may compile, and machines are shared
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("momos")
