"""How many replicas each deployment has, and what each of them takes; Serve's words for it."""

import math
from typing import Any

from emberd.config.load import Config
from emberd.registry.spec import ModelSpec

INGRESS = "emberd-ingress"
AT_ONCE = 64  # requests that a replica has: its worker makes batches of them
TARGET = 8  # of them on average: beyond it, another replica starts
STARTS = 3  # of a replica that cannot start
UPSCALE_S, DOWNSCALE_S = 5.0, 60.0
QUIET = {"enable_access_log": False}  # emberd's own log has a line for each request


def model_options(config: Config, spec: ModelSpec) -> dict[str, Any]:
    """Return the options of a model's deployment.

    A pinned model has one replica always. Others leave when they were idle as long as a worker may
    be; the first request waits for a replica then.
    """
    limits = config.settings.limits
    idle_s = spec.idle_unload or limits.idle_unload
    stays = spec.pinned or math.isinf(idle_s)
    scale = {
        "min_replicas": 1 if stays else 0,
        "initial_replicas": 1 if stays else 0,
        "max_replicas": most_replicas(config, spec),
        "target_ongoing_requests": TARGET,
        "upscale_delay_s": UPSCALE_S,
        "downscale_delay_s": DOWNSCALE_S,
        **({} if stays else {"downscale_to_zero_delay_s": idle_s}),
    }
    return {
        "autoscaling_config": scale,
        "max_ongoing_requests": AT_ONCE,
        "max_constructor_retry_count": STARTS,
        "max_surge_percent": 100,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": limits.request_timeout,
        "logging_config": QUIET,
        "ray_actor_options": {"num_cpus": 1},
    }


def ingress_options(config: Config) -> dict[str, Any]:
    """Return the options of the ingress: it waits for replicas, and computes little."""
    return {
        "num_replicas": 1,
        "max_ongoing_requests": 1000,
        "max_constructor_retry_count": STARTS,
        "max_surge_percent": 100,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": config.settings.limits.request_timeout,
        "logging_config": QUIET,
        "ray_actor_options": {"num_cpus": 0.1},
    }


def most_replicas(config: Config, spec: ModelSpec) -> int:
    """Return the number that the entry or `limits.replicas` states; 1 for `auto`."""
    stated = spec.replicas or config.settings.limits.replicas
    return stated if isinstance(stated, int) else 1
